"""SQL with `:name` for each value, as the driver takes it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

# `:name`, but not the `::` of a cast.
_VALUE = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


class Statement(Protocol):
    """A statement with `:name` for each value."""

    @property
    def text(self) -> str: ...


class Sql:
    """A statement with `:name` for each value."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


@lru_cache(maxsize=512)
def for_driver(text: str) -> str:
    """The statement with the driver's own places for values."""
    return _VALUE.sub(r"%(\1)s", text.replace("%", "%%"))


class Prepared:
    """A statement of the hot path: each connection has it planned once, for the planning costs more than the work.

    Args:
        name: of the statement on the server.
        text: SQL with `:name` for each value.
        types: the PostgreSQL type of each value, by name.
    """

    def __init__(self, name: str, text: str, **types: str) -> None:
        places = {value: f"${number}" for number, value in enumerate(types, 1)}
        self.name = name
        self.prepare = f"PREPARE {name} ({', '.join(types.values())}) AS {_VALUE.sub(lambda v: places[v[1]], text)}"
        # What psycopg2 writes for a list needs its type said: an empty one has none.
        typed = {value: f"CAST(%({value})s AS {kind})" for value, kind in types.items()}
        self.execute = f"EXECUTE {name} ({', '.join(typed.values())})"
        # The same in one go, for where nothing can be prepared.
        self.plain = _VALUE.sub(lambda v: typed[v[1]], text.replace("%", "%%"))
