"""The rows about models, read from JSON: the package's file, and a user's own of the same shape."""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from shared import env_files
from shared.errors import SettingFault

BUILT_IN = Path(__file__).with_name("models.json")
_MOST_BYTES = 4 << 20
_SEE = "docs/upstreams.md shows a row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of one family, or several by a shell pattern. None: not known.

    Attributes:
        default: whether the family's bare name means it.
        context: tokens of question and answer together.
        images, files: whether it takes them; schema: `json_schema`, `json_object` or None.
        efforts: the values of `reasoning_effort` that it takes; empty: it takes none.
        temperature: false for one that refuses or ignores any but its own.
        tokens: what the limit of the answer is called (OpenAI's newer models refuse `max_tokens`).
        ignores: options that it takes and does not heed.
        retired: from this day on it is no more; rerouted: then its successor answers in its name, without a word.
        source, date: where this is from, and the day it was read there.
    """

    name: str
    family: str
    default: bool = False
    context: int | None = None
    images: bool | None = None
    files: bool | None = None
    schema: str | None = None
    efforts: tuple[str, ...] | None = None
    temperature: bool = True
    tokens: str | None = None
    ignores: tuple[str, ...] = ()
    retired: dt.date | None = None
    successor: str | None = None
    rerouted: bool = False
    source: str = ""
    date: dt.date | None = None


@lru_cache(maxsize=1)
def built_in() -> tuple[Model, ...]:
    """The package's rows."""
    return rows(BUILT_IN.read_text(encoding="utf-8"), str(BUILT_IN))


def read(path: Path, *, must_exist: bool) -> tuple[Model, ...]:
    """Read a user's rows; none where there is no file and none is named.

    Raises:
        SettingFault: the file can't be read, others can write it, or a row of it is bad; the message names it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        if not must_exist:
            return ()
        raise _refused(path, "does not exist", "write it, or leave AITASK_MODELS_FILE empty") from None
    except OSError as error:
        raise _refused(path, f"can't be read: {error.strerror}", "make it readable, or remove it") from None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "is not a file", "name a file of rows")
        fault, remedy = env_files.judge(path, found)
        if fault:
            raise SettingFault(f"the models file is not yours alone: {fault}", remedy=remedy or "use one of your own")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise _refused(path, f"is longer than {_MOST_BYTES:,} bytes", "keep rows about models alone in it")
    try:
        return rows(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise _refused(path, "is not UTF-8 text", "save it as UTF-8") from None


def rows(text: str, where: str) -> tuple[Model, ...]:
    """Read rows from JSON.

    Raises:
        SettingFault: it is none, or a row is bad; the message names it by its number.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise _refused(where, f"is not JSON{at}", _SEE) from None
    if not isinstance(said, list):
        raise _refused(where, "is not a list of rows", _SEE)
    return tuple(_row(one, number, where) for number, one in enumerate(said, 1))


def _row(said: Any, number: int, where: str) -> Model:
    if not isinstance(said, dict):
        raise _bad(where, number, "it is not an object")
    values: dict[str, Any] = {}
    for key, value in said.items():
        check = _CHECKS.get(key)
        if check is None:
            raise _bad(where, number, f"there is no field {key[:60]!r}; there are: {', '.join(_CHECKS)}")
        try:
            values[key] = check(value)
        except (ValueError, TypeError):
            raise _bad(where, number, f"{key} can't be {json.dumps(value)[:60]}") from None
    for key in ("name", "family"):
        if not values.get(key):
            raise _bad(where, number, f"it has no {key}")
        values[key] = values[key].lower().removeprefix("models/")
    return Model(**values)


def _refused(where: Path | str, why: str, remedy: str) -> SettingFault:
    return SettingFault(f"the models file {where} {why}", remedy=remedy)


def _bad(where: str, number: int, why: str) -> SettingFault:
    return SettingFault(f"the models file {where}, row {number}: {why}", remedy=_SEE)


def _is(kind: type, *, unknown: bool = True) -> Any:
    def check(value: Any) -> Any:
        if (value is None and unknown) or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
            return value
        raise ValueError

    return check


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError
    return tuple(value)


def _day(value: Any) -> dt.date | None:
    return None if value is None else dt.date.fromisoformat(value)


def _one_of(*allowed: str | None) -> Any:
    def check(value: Any) -> Any:
        if value is not None and value not in allowed:
            raise ValueError
        return value

    return check


_CHECKS: dict[str, Any] = {
    **{field.name: _is(str) for field in fields(Model)},
    **dict.fromkeys(("name", "family", "source"), _is(str, unknown=False)),
    **dict.fromkeys(("default", "temperature", "rerouted"), _is(bool, unknown=False)),
    **dict.fromkeys(("images", "files"), _is(bool)),
    "context": _is(int),
    "schema": _one_of("json_schema", "json_object"),
    "tokens": _one_of("max_tokens", "max_completion_tokens"),
    "efforts": lambda value: None if value is None else _names(value),
    "ignores": _names,
    **dict.fromkeys(("retired", "date"), _day),
}
