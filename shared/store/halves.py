"""Doing something with many rows of which one may be refused: a trigger, a damaged row, somebody's own constraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.store.faults import UnstorableData

K = TypeVar("K")
T = TypeVar("T")

# When so many are refused one after another it is not the rows: to go on would be a statement for each of them.
MOST_REFUSED = 10


def halved(
    items: Sequence[K], do: Callable[[Sequence[K]], list[T]], refused: Callable[[K, UnstorableData], None]
) -> list[T]:
    """Do it with all at once; where the data of one is refused with halves of them, down to that one.

    Args:
        do: does all or nothing of what it is given.
        refused: told of each that is refused by itself. What is left after ten of those is left alone.
    """
    done: list[T] = []
    alone = 0
    waiting = [items] if items else []
    while waiting and alone < MOST_REFUSED:
        some = waiting.pop()
        try:
            done += do(some)
        except UnstorableData as error:
            if len(some) == 1:
                alone += 1
                refused(some[0], error)
            else:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
    return done
