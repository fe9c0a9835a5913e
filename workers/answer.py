"""An answer while it is put together from an upstream's JSON, whole or in pieces. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from shared.errors import UpstreamError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. Token counts are None when the upstream does not say."""

    text: str
    reasoning: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    cost_time_s: float = 0.0

    def with_texts(self, text: str, reasoning: str | None) -> Answer:
        """The same answer with its text and its reasoning apart."""
        return replace(self, text=text, reasoning=reasoning)


class Piece(NamedTuple):
    """A piece of text as it came: of the answer, or of the reasoning before it."""

    text: str
    reasoning: bool = False


class Collector:
    """Takes in the JSON objects of one call and makes the answer of them."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish_reason: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._tools = False
        self.done = False

    @property
    def complete(self) -> bool:
        """Whether the upstream said that this was all."""
        return self.done or self._finish_reason is not None

    def event(self, data: str) -> Sequence[Piece]:
        """Take in one streamed event. Returns its pieces of text.

        Raises:
            UpstreamError: the event is an error or not JSON.
        """
        if len(data) < 16 and data.strip() == "[DONE]":
            self.done = True
            return ()
        return self.object(parsed(data))

    def object(self, said: Any) -> Sequence[Piece]:
        """Take in one JSON object, a chunk or a whole answer."""
        if not isinstance(said, dict):
            raise bad_answer("the answer is not a JSON object")
        if said.get("error"):
            raise error_in_answer(said["error"])
        model, usage, choices = said.get("model"), said.get("usage"), said.get("choices")
        if isinstance(model, str):
            self._model = model
        if isinstance(usage, dict):
            self._usage = usage
        if not choices or not isinstance(choices, list) or not isinstance(choices[0], dict):
            return ()
        return self._choice(choices[0])

    def _choice(self, choice: dict[str, Any]) -> Sequence[Piece]:
        finish_reason = choice.get("finish_reason")
        if isinstance(finish_reason, str):
            self._finish_reason = finish_reason
        message = choice.get("delta") or choice.get("message")
        if not isinstance(message, dict):
            return ()
        text = message.get("content")
        if len(message) == 1 and isinstance(text, str):
            # Nearly every event of a stream: nothing but a word.
            self._text.append(text)
            return (Piece(text),) if text else ()
        return self._message(message)

    def _message(self, message: dict[str, Any]) -> Sequence[Piece]:
        self._tools = self._tools or bool(message.get("tool_calls") or message.get("function_call"))
        pieces = []
        reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
        if reasoning:
            self._reasoning.append(reasoning)
            pieces.append(Piece(reasoning, reasoning=True))
        text = _text(message.get("content"))
        if text:
            self._text.append(text)
            pieces.append(Piece(text))
        return pieces

    def answer(self) -> Answer:
        """Return the whole answer.

        Raises:
            UpstreamError: there is no text in it.
        """
        text, reasoning = "".join(self._text), "".join(self._reasoning)
        if self._finish_reason == "content_filter":
            raise UpstreamError(
                "the upstream's content filter stopped the answer",
                kind="content_policy",
                retryable=False,
                http_status=200,
            )
        if not text and self._tools:
            raise UpstreamError(
                "the model called a tool instead of answering", kind="tool_call", retryable=False, http_status=200
            )
        if not text and not reasoning:
            raise bad_answer("the answer has no text", kind="empty_answer")
        return Answer(
            text=text,
            reasoning=reasoning or None,
            finish_reason=self._finish_reason,
            model=self._model,
            prompt_tokens=_count(self._usage.get("prompt_tokens")),
            completion_tokens=_count(self._usage.get("completion_tokens")),
        )


def dumped(value: Any) -> bytes:
    """Return JSON. What orjson refuses, numbers beyond 64 bits, the slower way writes."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def parsed(text: str) -> Any:
    """Parse an upstream's JSON. What orjson refuses, NaN and half a surrogate pair, the slower way reads.

    Raises:
        UpstreamError: it is not JSON; worth two tries.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        head = " ".join(text[:80].split())
        raise bad_answer(f"the answer is not JSON: {head!r}", kind="bad_json") from None


def joined(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Join neighbours of one kind: what came in one packet is shown as one."""
    if len(pieces) < 2:
        return pieces
    return [
        Piece("".join([piece.text for piece in run]), reasoning)
        for reasoning, run in groupby(pieces, key=attrgetter("reasoning"))
    ]


def bad_answer(message: str, *, kind: str = "bad_answer") -> UpstreamError:
    """An answer that makes no sense: the same call may do better, but not often."""
    return UpstreamError(message, kind=kind, retryable=True, http_status=200, max_tries=2)


def error_in_answer(error: Any) -> UpstreamError:
    """The error object of an answer, classified by its words when it came with HTTP 200."""
    said = error if isinstance(error, dict) else {"message": str(error)}
    message = str(said.get("message") or said.get("type") or "an error without a message")
    code = said.get("code") if said.get("code") is not None else said.get("status")
    number = int(str(code)) if str(code).isdecimal() and len(str(code)) == 3 else 0
    status = number if 400 <= number <= 599 else None
    from workers.status import from_status

    if status is not None:
        return from_status(status, message)
    words = f"{said.get('type')} {code} {message}".lower()
    busy = any(word in words for word in ("overload", "rate", "capacity", "unavailable", "timeout", "internal", "busy"))
    return UpstreamError(f"the upstream said: {message[:500]}", kind="error_object", retryable=busy, http_status=200)


def _text(value: Any) -> str:
    """Text out of a content field: a string, or OpenAI's list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def _count(value: Any) -> int | None:
    """A token count that fits the database, or None."""
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if good else None
