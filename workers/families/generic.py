"""Any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Any

from shared.domain import Claimed
from shared.families import Family
from shared.settings import Settings
from workers.answer import Answer, Piece


class Behaviour:
    """What a family may do its own way. A new family overrides what differs."""

    def __init__(self, family: Family, settings: Settings) -> None:
        self.family = family
        self.settings = settings

    def headers(self, task: Claimed) -> dict[str, str]:
        """Headers besides the usual ones."""
        return {}

    def payload(self, task: Claimed) -> dict[str, Any]:
        """The request's body, but for what streaming adds."""
        messages: list[dict[str, str]] = []
        if task.system:
            messages.append({"role": "system", "content": task.system})
        messages += task.context
        messages.append({"role": "user", "content": task.prompt})
        return {"model": task.model, "messages": messages, **self.family.options, **task.options}

    def pieces(self) -> PieceFilter:
        """What turns pieces of text as they came into pieces as they are shown."""
        return PieceFilter()

    def finish(self, answer: Answer) -> Answer:
        """Look at a whole answer.

        Raises:
            UpstreamError: it is none after all.
        """
        return answer


class PieceFilter:
    """Passes pieces on as they came."""

    def feed(self, piece: Piece) -> list[Piece]:
        return [piece]


behaviour = Behaviour
