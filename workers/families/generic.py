"""Any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Any, Protocol

from shared.domain import Claimed
from shared.errors import UpstreamError
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
        return {"model": task.model, "messages": merged(messages), **self.family.options, **task.options}

    def pieces(self) -> PieceFilter | None:
        """What turns pieces of text as they came into pieces as they are shown; None: nothing."""
        return None

    @property
    def keepalive_s(self) -> float:
        """How often the endpoint's session is kept warm, in seconds; 0 for an endpoint that has none."""
        return 0.0

    def classify(self, error: UpstreamError) -> UpstreamError:
        """Look at a failed call: what an error means may depend on the family."""
        return error

    def finish(self, answer: Answer) -> Answer:
        """Look at a whole answer.

        Raises:
            UpstreamError: it is none after all.
        """
        return answer


def merged(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Join neighbours of one role: some endpoints refuse two prompts without an answer in between."""
    joined: list[dict[str, str]] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


class PieceFilter(Protocol):
    """Sorts pieces of text anew."""

    def feed(self, piece: Piece) -> list[Piece]:
        """Take in a piece; returns what is certain by now."""


behaviour = Behaviour
