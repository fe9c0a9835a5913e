"""DeepSeek R1: the reasoning is kept apart from the answer, whichever way the endpoint sends it."""

from __future__ import annotations

from workers.answer import Answer, Piece
from workers.families.generic import Behaviour, PieceFilter

OPEN, CLOSE = "<think>", "</think>"


class ThinkSplitter(PieceFilter):
    """Splits `<think>…</think>` at the start of the text from what follows, also across chunks or unclosed.

    A `<think>` later in the text is text: the model may be writing about it.
    """

    def __init__(self) -> None:
        self._held = ""
        # None until the first characters tell; then whether we are inside the reasoning.
        self._thinking: bool | None = None
        self._trim = False

    def feed(self, piece: Piece) -> list[Piece]:
        """Take in a piece; returns what is certain by now."""
        if piece.reasoning:
            return [piece]
        self._held += piece.text
        return self._sort(final=False)

    def finish(self) -> list[Piece]:
        """Return what was held back."""
        return self._sort(final=True)

    def _sort(self, *, final: bool) -> list[Piece]:
        found: list[Piece] = []
        if self._thinking is None:
            start = self._held.lstrip()
            if not final and OPEN.startswith(start[: len(OPEN)]) and len(start) < len(OPEN):
                return []
            self._thinking = start.startswith(OPEN)
            self._held = start[len(OPEN) :] if self._thinking else self._held
        if self._thinking:
            reasoning, closed, rest = self._held.partition(CLOSE)
            if not closed:
                kept = 0 if final else _overlap(self._held, CLOSE)
                reasoning, rest = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
            found.append(Piece(reasoning, reasoning=True))
            self._held = rest
            if not closed:
                return [p for p in found if p.text]
            self._thinking, self._trim = False, True
        text = self._held.lstrip() if self._trim else self._held
        self._trim = self._trim and not text
        self._held = ""
        found.append(Piece(text))
        return [p for p in found if p.text]


def split_thinking(text: str) -> tuple[str, str | None]:
    """Return (answer, reasoning) of a whole text."""
    splitter = ThinkSplitter()
    pieces = splitter.feed(Piece(text)) + splitter.finish()
    reasoning = "".join(p.text for p in pieces if p.reasoning).strip()
    return "".join(p.text for p in pieces if not p.reasoning), reasoning or None


def _overlap(text: str, mark: str) -> int:
    """How much of the text's end may be the beginning of the mark."""
    return next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)


class DeepSeekBehaviour(Behaviour):
    """Both shapes of reasoning: `reasoning_content`, and `<think>` in the text."""

    def pieces(self) -> PieceFilter:
        return ThinkSplitter()

    def finish(self, answer: Answer) -> Answer:
        text, thought = split_thinking(answer.text)
        reasoning = "\n\n".join(part for part in (answer.reasoning, thought) if part)
        return answer.with_texts(text, reasoning or None)


behaviour = DeepSeekBehaviour
