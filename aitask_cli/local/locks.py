"""File locks between aitask processes. A lock ends with its holder, however that dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class OwnLock:
    """A lock taken over from the parent by its descriptor, or none. Given up once, however often asked."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock alone, waiting for it."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def share(path: Path) -> int:
    """Take a lock together with others, waiting while somebody has it alone. Returns its descriptor."""
    fd = _open(path)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def take(path: Path) -> int | None:
    """Take a lock alone if it is free. Returns its descriptor, which may be handed to a child, or None."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def held(path: Path) -> bool:
    """Tell whether any process has the lock."""
    fd = take(path)
    if fd is None:
        return True
    os.close(fd)
    return False
