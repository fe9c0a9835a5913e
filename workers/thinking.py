"""The text pipeline: reasoning that stands in the text is split from it, and prefixes are taken off. Pure.

Live output and the stored answer come out of the same pipeline: what it lets through is what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Protocol

from workers.piece import Piece

# Opening and closing marks: R1, Qwen3, QwQ, MiniMax, GLM …; Gemini's compatible endpoint; Kimi-VL; Magistral; Seed-OSS.
MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
)
CLOSE = "</think>"
# Models whose chat template writes the opening mark, so that their text has the closing one alone.
OPENS_IN_TEMPLATE = (
    "*r1", "*r1-*", "*r1:*", "*-r1*", "*reasoner*", "*qwq*", "*thinking*", "*-think", "*-think-*", "*magistral*",
    "*minimax-m*", "*deepscaler*", "*phi-4-*reasoning*", "*nemotron*reason*",
)  # fmt: skip
# A closing mark on a line of its own: what stands before it was thought, also where nothing opened it.
_ALONE = re.compile(r"(?:^|\n)[ \t]*</think>[ \t]*(?:\n|$)")


class Stage(Protocol):
    """One step of the pipeline."""

    @property
    def settled(self) -> bool:
        """Whether it lets everything through from now on."""

    def feed(self, piece: Piece) -> Sequence[Piece]:
        """Take in a piece; returns what is certain by now."""

    def finish(self) -> Sequence[Piece]:
        """Return what was held back."""


@lru_cache(maxsize=1024)
def opens_in_template(model: str) -> bool:
    """Tell by a model's name whether its template opens the reasoning."""
    name = model.lower().rsplit("/", 1)[-1]
    return any(fnmatchcase(name, pattern) for pattern in OPENS_IN_TEMPLATE)


class ThinkSplitter:
    """Splits reasoning at the start of the text from what follows, also across chunks or unclosed.

    A mark later in the text is text: the model may be writing about it.

    Args:
        opened: whether the template opens the reasoning. Then text is held back until the closing mark tells what it
            was; without one it is the answer.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._opened = opened
        # What isn't told apart yet, in parts: joined once, so that each character is looked at a few times in all.
        self._parts: list[str] = []
        # Its beginning without white space while that may be a mark's, then its last characters.
        self._start = ""
        self._markless = False
        self._held = ""
        self._close = CLOSE
        # None until the first characters tell; then whether we are inside the reasoning.
        self._thinking: bool | None = None
        self._trim = False

    @property
    def settled(self) -> bool:
        """Whether it is past the place where reasoning may stand."""
        return self._thinking is False and not self._trim

    def feed(self, piece: Piece) -> Sequence[Piece]:
        """Take in a piece; returns what is certain by now."""
        if self.settled:
            return (piece,)
        if piece.reasoning:
            # It comes in a field of its own, so nothing in the text is.
            self._opened = False
            return (piece,)
        return self._sorted(piece.text, final=False)

    def finish(self) -> Sequence[Piece]:
        """Return what was held back."""
        return self._sorted("", final=True)

    def _sorted(self, text: str, *, final: bool) -> Sequence[Piece]:
        found: list[Piece] = []
        if self._thinking is not None:
            self._held += text
        elif not self._begun(text, final=final):
            return found
        if self._thinking:
            reasoning, closed, rest = self._held.partition(self._close)
            if not closed:
                kept = 0 if final else _overlap(self._held, self._close)
                reasoning, rest = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
            self._held = rest
            found.append(Piece(reasoning, reasoning=True))
            if not closed:
                return [piece for piece in found if piece.text]
            self._thinking, self._trim = False, True
        text = self._held.lstrip() if self._trim else self._held
        self._trim = self._trim and not text
        self._held = ""
        found.append(Piece(text))
        return [piece for piece in found if piece.text]

    def _begun(self, text: str, *, final: bool) -> bool:
        """Decide whether the text begins with reasoning. False: not certain yet."""
        self._parts.append(text)
        self._start += text if self._start else text.lstrip()
        for opening, close in () if self._markless else MARKS:
            if self._start.startswith(opening):
                self._thinking, self._close, self._held = True, close, self._start[len(opening) :]
                return True
        if not final and not self._markless and any(opening.startswith(self._start) for opening, _ in MARKS):
            return False
        self._markless = True
        closed = self._opened and CLOSE in self._start
        if self._opened and not closed and not final:
            self._start = self._start[-len(CLOSE) :]
            return False
        self._thinking, self._held = closed, "".join(self._parts)
        self._parts.clear()
        return True


class PrefixDropper:
    """Takes what an endpoint puts before every answer off it."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = prefixes
        # The white space at the beginning, in parts, and what stands behind it.
        self._blank: list[str] = []
        self._start: str | None = ""

    @property
    def settled(self) -> bool:
        """Whether the answer's beginning has passed."""
        return self._start is None

    def feed(self, piece: Piece) -> Sequence[Piece]:
        """Take in a piece; returns what is certain by now."""
        if self._start is None or piece.reasoning:
            return (piece,)
        behind = piece.text if self._start else piece.text.lstrip()
        self._blank.append(piece.text[: len(piece.text) - len(behind)])
        self._start += behind
        start = self._start
        if any(prefix.startswith(start) and prefix != start for prefix in self._prefixes):
            return ()
        return self.finish()

    def finish(self) -> Sequence[Piece]:
        """Return what was held back."""
        start, self._start = self._start or "", None
        held = "".join([*self._blank, start])
        self._blank.clear()
        for prefix in sorted(self._prefixes, key=len, reverse=True):
            if start.startswith(prefix):
                held = start[len(prefix) :].lstrip()
                break
        return (Piece(held),) if held else ()


class Pipeline:
    """Stages one after another."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        # Whether text has gone in of which nothing has come out yet.
        self.holds = False

    @property
    def settled(self) -> bool:
        """Whether everything passes from now on."""
        return all(stage.settled for stage in self._stages)

    def feed(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Take in pieces; returns what is certain by now."""
        for stage in self._stages:
            if not pieces:
                return pieces
            self.holds = True
            pieces = stage.feed(pieces[0]) if len(pieces) == 1 else [p for piece in pieces for p in stage.feed(piece)]
        return pieces

    def finish(self) -> Sequence[Piece]:
        """Return what the stages held back."""
        pieces: Sequence[Piece] = ()
        for stage in self._stages:
            pieces = [*(p for piece in pieces for p in stage.feed(piece)), *stage.finish()]
        return pieces


def closed_late(text: str) -> tuple[str, str] | None:
    """Return (reasoning, answer) of a text with a lone closing mark that nothing opened; None: it has none."""
    found = _ALONE.search(text)
    if found is None or "<think>" in text[: found.start()] or text[: found.start()].count("```") % 2:
        return None
    return text[: found.start()].strip(), text[found.end() :].lstrip()


def split_thinking(text: str, *, opened: bool = False) -> tuple[str, str | None]:
    """Return (answer, reasoning) of a whole text."""
    splitter = ThinkSplitter(opened=opened)
    pieces = [*splitter.feed(Piece(text)), *splitter.finish()]
    reasoning = "".join(p.text for p in pieces if p.reasoning).strip()
    return "".join(p.text for p in pieces if not p.reasoning), reasoning or None


def _overlap(text: str, mark: str) -> int:
    """How much of the text's end may be the beginning of the mark."""
    return next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)
