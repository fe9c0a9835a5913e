"""However an answer is cut and whether or not it ends, each of its bytes is looked at a bounded number of times."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from workers.piece import Piece
from workers.sse import EventDecoder
from workers.thinking import PrefixDropper, ThinkSplitter

CHUNK = 16 * 1024
MEGABYTE = 1 << 20


def looked_at(work: Callable[[], object]) -> int:
    """An upper bound of the characters looked at: for each line that runs, all text in sight of it."""
    total = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal total
        if not frame.f_code.co_filename.endswith(("sse.py", "thinking.py", "test_linear.py")):
            return None
        if event == "line":
            seen = [*frame.f_locals.values()]
            seen += getattr(frame.f_locals.get("self"), "__dict__", {}).values()
            total += sum(len(value) for value in seen if isinstance(value, (str, bytes)))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return total


def decode(size: int, head: bytes, of: bytes) -> None:
    decoder = EventDecoder()
    decoder.feed(head)
    for _ in range(max(1, size // CHUNK)):
        decoder.feed(of * (CHUNK // len(of)))
    decoder.finish()


def split(size: int, head: str, of: str, opened: bool) -> None:
    splitter = ThinkSplitter(opened=opened)
    dropper = PrefixDropper(("Answer:",))
    for stage in (splitter, dropper):
        stage.feed(Piece(head))
        for _ in range(max(1, size // CHUNK)):
            stage.feed(Piece(of * CHUNK))
        stage.finish()


def grows(measure: Callable[[int], object], unit: int = MEGABYTE) -> list[float]:
    """How much more is looked at for twice as much, from 1 to 8 MB."""
    seen = [looked_at(partial(measure, size * unit)) for size in (1, 2, 4, 8)]
    return [after / before for before, after in pairwise(seen)]


@pytest.mark.parametrize(
    ("head", "of"),
    [(b"data: ", b"x"), (b"data: ", b"\r"), (b"", b"\r"), (b"", b" "), (b"data: ", b"<"), (b"", b"\r\n"), (b"", b"<")],
)
def test_the_decoder_looks_at_twice_as_much_of_twice_as_much(head: bytes, of: bytes) -> None:
    # A line for each CR is counted, which takes its time: of those, less.
    unit = MEGABYTE // 64 if b"\r" in of else MEGABYTE
    assert max(grows(lambda size: decode(size, head, of), unit)) < 2.1


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(("head", "of"), [("", " "), ("", "<"), ("<think>", "<"), ("<think>", "x"), ("x", "\r")])
def test_the_splitter_looks_at_twice_as_much_of_twice_as_much(head: str, of: str, opened: bool) -> None:
    assert max(grows(lambda size: split(size, head, of, opened))) < 2.1


def test_the_count_sees_what_is_looked_at_again_and_again() -> None:
    def again(size: int) -> None:
        held = ""
        for _ in range(max(1, size // CHUNK)):
            held += "x" * CHUNK
            held.lstrip()

    assert max(grows(again)) > 3
