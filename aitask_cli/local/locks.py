"""File locks between aitask processes. A lock ends with its holder, however that dies.

They belong to the open file, so that a child has them too, and can be looked at without being taken: a look must not
make who wants the lock at that moment believe that it is held.
"""

from __future__ import annotations

import fcntl
import os
import struct
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
        _lock(fd, fcntl.F_WRLCK, wait=True)
        yield
    finally:
        os.close(fd)


def share(path: Path) -> int:
    """Take a lock together with others, waiting while somebody has it alone. Returns its descriptor."""
    fd = _open(path)
    _lock(fd, fcntl.F_RDLCK, wait=True)
    return fd


def take(path: Path) -> int | None:
    """Take a lock alone if it is free. Returns its descriptor, which may be handed to a child, or None."""
    fd = _open(path)
    try:
        _lock(fd, fcntl.F_WRLCK, wait=False)
    except OSError:
        os.close(fd)
        return None
    return fd


def held(path: Path) -> bool:
    """Tell whether any process has the lock, without taking it."""
    fd = _open(path)
    try:
        return _is_held(fd)
    finally:
        os.close(fd)


# struct flock: type, whence, start, length, pid; all zero but the type: the whole file.
_FLOCK = "hhqqi"
_FLAGS = {fcntl.F_WRLCK: fcntl.LOCK_EX, fcntl.F_RDLCK: fcntl.LOCK_SH}


def _lock(fd: int, kind: int, *, wait: bool) -> None:
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, 0, 0, 0, 0))
    else:
        fcntl.flock(fd, _FLAGS[kind] | (0 if wait else fcntl.LOCK_NB))


def _is_held(fd: int) -> bool:
    if hasattr(fcntl, "F_OFD_GETLK"):
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
    # Without a way to look, a lock shared with other lookers comes nearest.
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
