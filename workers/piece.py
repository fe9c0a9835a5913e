"""A piece of text as it came."""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """A piece of text as it came: of the answer, or of the reasoning before it."""

    text: str
    reasoning: bool = False
