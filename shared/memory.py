"""What the user has been told and what they trust, by path: small files outside the data directory, each a hash.

Without a writable home nothing is remembered, and nothing fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from shared import env_files, homes


class Memory:
    """Remembers one hash for each kind and subject."""

    def __init__(self, base: Path | None = None) -> None:
        self._base = base or homes.memory()

    def knows(self, kind: str, about: str, digest: str) -> bool:
        """Tell whether this very hash is remembered. What others could have written counts for nothing."""
        if self._base is None:
            return False
        path = self._file(kind, about)
        try:
            with path.open("rb") as file:
                fault, _ = env_files.judge(path, os.fstat(file.fileno()))
                return not fault and file.read(200) == digest.encode()
        except OSError:
            return False

    def learn(self, kind: str, about: str, digest: str) -> bool:
        """Remember a hash in place of the one before. Returns whether that could be done."""
        if self._base is None:
            return False
        path = self._file(kind, about)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(digest.encode())
            fresh.replace(path)
        except OSError:
            return False
        return True

    def forget(self, kind: str, about: str) -> bool:
        """Forget what is remembered. Returns whether there was anything."""
        if self._base is None:
            return False
        with contextlib.suppress(OSError):
            self._file(kind, about).unlink()
            return True
        return False

    def _file(self, kind: str, about: str) -> Path:
        assert self._base is not None
        return self._base / kind / hashlib.sha256(os.fsencode(about)).hexdigest()[:32]
