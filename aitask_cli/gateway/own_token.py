"""`AITASK_GATEWAY_TOKENS=auto`: a token of the gateway's own, in a file that only its user can read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from aitask_cli.local.paths import private_directory
from shared.errors import Unavailable
from shared.settings import Settings


def with_own_token(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Return the settings with a token where `auto` stands.

    Raises:
        Unavailable: its file can't be made, or is open to others.
    """
    if not any(not token for _, token in settings.gateway_tokens):
        return settings
    file = private_directory(settings.data_path / "gateway") / "token"
    token = _kept(file)
    say(f"callers show the token in {file}")
    return dataclasses.replace(settings, gateway_tokens=(("auto", token),))


def _kept(file: Path) -> str:
    """The token in the file, made first when there is none: programs that know it outlive a restart."""
    with contextlib.suppress(FileExistsError):
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW)) as found:
            state = os.fstat(found.fileno())
            token = found.read(300).strip()
    except OSError as error:
        raise Unavailable(f"{file} can't be read: {error.strerror}", remedy=f"remove it: rm {file}") from None
    private = state.st_uid == os.geteuid() and not stat.S_IMODE(state.st_mode) & 0o077
    if not private or not re.fullmatch(r"[!-~]{16,256}", token):
        raise Unavailable(f"{file} is open to others or holds no token", remedy=f"remove it: rm -f {file}")
    return token
