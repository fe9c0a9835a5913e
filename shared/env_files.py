"""Reading a `.env` file, and judging whether it is as good as the user's own word. What is odd is refused by name."""

from __future__ import annotations

import grp
import hashlib
import io
import json
import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import SettingFault

# A file of settings is a few kilobytes; what is larger is something else.
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file's lines, as they were read, and who could have written them.

    Attributes:
        path: as people know it; `real_path` with every link followed.
        fault: why the file is not as good as the user's own word, or empty; `remedy` mends that.
        unread: the numbers of lines that are no settings, comments or blanks.
        honcho: the same file as honcho reads it, which cuts some values short.
    """

    path: Path
    values: Mapping[str, str]
    fault: str = ""
    remedy: str = ""
    unread: tuple[int, ...] = ()
    honcho: Mapping[str, str] = field(default_factory=dict)

    @property
    def real_path(self) -> str:
        return os.path.realpath(self.path)

    def digest(self, names: Iterable[str]) -> str:
        """What these lines say, as a hash: it changes with any of their values."""
        lines = {name: self.values[name] for name in names if name in self.values}
        return hashlib.sha256(json.dumps([self.real_path, lines], sort_keys=True).encode()).hexdigest()


def read(path: Path, *, as_honcho: bool = False) -> EnvFile | None:
    """Read a file, or return None when there is none.

    Raises:
        SettingFault: it is no file of settings; the message names it and says why.
    """
    try:
        # Not held up by a fifo that nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, f"can't be read: {error.strerror}", "make it readable, or remove it") from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise _refused(path, f"is a {_kind(found.st_mode)}, not a file of settings", "rename it, or remove it")
    with os.fdopen(fd, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _refused(path, f"is longer than {MOST_BYTES:,} bytes", "keep settings alone in it")
    text = _text(path, data)
    fault, remedy = judge(path, found, _owner_of_link(path))
    values, unread = _lines(text)
    return EnvFile(path, values, fault, remedy, unread, _as_honcho(text) if as_honcho else {})


def judge(path: Path, found: os.stat_result, link_uid: int | None = None) -> tuple[str, str]:
    """Say why a file is not as good as the user's own word, and what mends that; two empty texts when it is."""
    others = {uid for uid in (found.st_uid, link_uid) if uid is not None} - {os.geteuid(), 0}
    if others:
        return f"{path} belongs to {_account(min(others))}, not to you", ""
    if found.st_mode & stat.S_IWOTH:
        return f"{path} can be written by everybody", f"chmod o-w {shlex.quote(str(path))}"
    if found.st_mode & stat.S_IWGRP and not _private_group(found.st_gid, found.st_uid):
        return f"{path} can be written by the group {_group(found.st_gid)}", f"chmod g-w {shlex.quote(str(path))}"
    return "", ""


def _owner_of_link(path: Path) -> int | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_uid if stat.S_ISLNK(found.st_mode) else None


def _private_group(gid: int, owner: int) -> bool:
    """Tell whether a group is the owner's or our own alone: named like the account, and nobody else is in it."""
    for uid in {owner, os.geteuid()}:
        try:
            account = pwd.getpwuid(uid)
            group = grp.getgrgid(gid)
        except KeyError:
            # A container's nameless account: its own group, which nobody else is known to have.
            if uid == os.geteuid() and gid == os.getegid() and not _members(gid):
                return True
            continue
        if group.gr_name == account.pw_name and set(group.gr_mem) <= {account.pw_name}:
            return True
    return False


def _members(gid: int) -> list[str]:
    try:
        return grp.getgrgid(gid).gr_mem
    except KeyError:
        return []


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _text(path: Path, data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _refused(path, "is UTF-16", "save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refused(path, f"is not UTF-8 in line {line}", "save it as UTF-8") from None
    if "\0" in text:
        raise _refused(path, f"has a NUL in line {text[: text.index(chr(0))].count(chr(10)) + 1}", "save it as UTF-8")
    return text


def _lines(text: str) -> tuple[dict[str, str], tuple[int, ...]]:
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    unread = []
    for line in parse_stream(io.StringIO(text)):
        if line.error:
            unread.append(line.original.line)
        elif line.key is not None and line.value is not None:
            values[line.key] = line.value
    return values, tuple(unread)


def _as_honcho(text: str) -> dict[str, str]:
    from honcho.environ import parse

    try:
        found: dict[str, str] = parse(text)
    except ValueError:
        # An open quote: honcho itself does not start with it.
        return {}
    return found


def _refused(path: Path, why: str, remedy: str) -> SettingFault:
    return SettingFault(f"{path} {why}", remedy=remedy)
