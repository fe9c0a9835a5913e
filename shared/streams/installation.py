"""Whose namespace it is: two installations under one would take each other's hints for junk.

The first to come writes its name under `N:installation`; its workers keep it there, and when none has been for ten
minutes the namespace is free. Who finds another's name there leaves the streams alone, goes by way of the database,
and says under `N:installation:others` that it sends hints all the same: the owner throws those away unburied.
"""

from __future__ import annotations

import time

from shared.errors import HintsUnavailable
from shared.streams.keys import Keys

KEPT_S = 600
LOOK_EVERY_S = 30.0


def clash(keys: Keys, found: str) -> HintsUnavailable:
    """What is said to who finds a stranger's name."""
    return HintsUnavailable(
        f"the namespace {keys.namespace!r} on this Redis belongs to another installation ({shown(found)})",
        remedy=f"set another AITASK_NAMESPACE, or REDIS_URL to another Redis; if that one is gone: "
        f"redis-cli del {keys.installation}",
    )


def shown(found: str) -> str:
    """A name for people."""
    identity, _, database = found.partition(" ")
    return f"database {database or '?'}, {identity}"


def same(one: str, other: str) -> bool:
    """Whether two names are of one installation; the database's own name is only there to be read."""
    return one.partition(" ")[0] == other.partition(" ")[0]


class Ownership:
    """What one process knows of its namespace's owner.

    Args:
        mine: the name of this installation; None: nobody has said it, and nothing is looked at.
    """

    def __init__(self, mine: str | None = None) -> None:
        self.mine = mine
        self.owner: str | None = None
        self._looked_at = float("-inf")

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return self.mine is not None and time.monotonic() - self._looked_at > LOOK_EVERY_S

    def found(self, owner: bytes | None) -> bool:
        """Note what was found. Returns whether the namespace is ours."""
        assert self.mine is not None
        self._looked_at = time.monotonic()
        self.owner = (owner or b"").decode("utf-8", "replace") or self.mine
        return same(self.owner, self.mine)

    def refuse(self, keys: Keys) -> None:
        """Raise HintsUnavailable where the namespace was last seen to be another's."""
        if self.mine is not None and self.owner is not None and not same(self.owner, self.mine):
            raise clash(keys, self.owner)
