"""What of an answer may be shown as it comes: a key that a model repeats is held back until it is decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from shared.redaction import Redactor
from workers.piece import Piece

# A key repeated without end is shown as masked after so much.
_MOST = 4096


class LiveGuard:
    """Lets pieces through, but for the run of characters at their end that may be part of a key."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact
        self._held = ""
        self._reasoning = False
        # What was shown last, and the last three letters and digits of all that came.
        self._tail = ""
        self._near = ""

    def feed(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Take in pieces; returns what may be shown by now."""
        if not self._redact.guards:
            return pieces
        found: list[Piece] = []
        for piece in pieces:
            if piece.reasoning != self._reasoning:
                found += self.finish()
                self._tail, self._near, self._reasoning = "", "", piece.reasoning
            begins, self._near = self._redact.may_begin(self._near, piece.text)
            if not self._held and not begins:
                self._tail = (self._tail + piece.text)[-16:]
                found.append(piece)
                continue
            self._held += piece.text
            if len(self._held) > _MOST or not self._redact.may_end(self._tail + self._held):
                found += self.finish()
        return found

    def finish(self) -> Sequence[Piece]:
        """Return what was held back, without a key."""
        held, self._held = self._held, ""
        text = self._redact.answer_behind(self._tail, held)
        self._tail = (self._tail + held)[-16:]
        return (Piece(text, self._reasoning),) if text else ()
