"""An answer while it is put together from an upstream's JSON, whole or in pieces. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from shared import finish
from shared.errors import UpstreamError
from workers.ending import End, judged
from workers.json_text import bad_answer, dumped, parsed
from workers.message import calls_a_tool, texts_of
from workers.piece import Piece
from workers.status import error_object
from workers.thinking import Pipeline, closed_late
from workers.tokens import counted, usage_in

__all__ = ["Answer", "Collector", "Piece", "bad_answer", "dumped", "joined", "parsed"]


# An event with nothing but these is a good one: most ends of answers need not be searched for an error.
_ENVELOPE = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"}
_GOOD = {"chat.completion.chunk", "chat.completion"}


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


class Collector:
    """Takes in the JSON objects of one call and makes the answer of them.

    Args:
        pipeline: what text passes through; what comes out is both shown and kept. None: as it came.
        late: whether a lone closing mark makes reasoning of what stood before it.
    """

    def __init__(self, pipeline: Pipeline | None = None, *, late: bool = False) -> None:
        self._pipeline = pipeline
        self._late = late
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._finish_reason: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._tools = False
        # What came in pieces, before the pipeline: a last frame may repeat it whole.
        self._pieces = False
        self.done = False

    @property
    def complete(self) -> bool:
        """Whether the upstream said that this was all."""
        return self.done or self._finish_reason is not None

    def event(self, data: str) -> Sequence[Piece]:
        """Take in one streamed event. Returns its pieces of text.

        Raises:
            UpstreamError: the event is an error.
        """
        if type(data) is not str and getattr(data, "name", "") == "error":
            raise _named_error(data)
        if data[:1] != "{":
            return self._no_object(data)
        said = parsed(data)
        # Nearly every event of a stream is nothing but a word; it takes the shortest way there is.
        try:
            choice = said["choices"][0]
            delta = choice["delta"]
            text = delta["content"]
            plain = len(delta) == 1 and choice["finish_reason"] is None and type(text) is str
        except (KeyError, IndexError, TypeError):
            return self.object(said)
        if not plain or said.get("usage") or "error" in said or "error" in choice or type(said.get("model")) is not str:
            return self.object(said)
        self._model = said["model"] or self._model
        return self._word(text)

    def _no_object(self, data: str) -> Sequence[Piece]:
        """An event that is no object: a ping, or JSON behind blanks. How the stream ends tells whether it mattered."""
        start = data.strip()
        if start == "[DONE]":
            self.done = True
        elif start[:1] == "{" or (start[:1] == "[" and '"' in start):
            return self.object(parsed(start))
        return ()

    def object(self, said: Any) -> Sequence[Piece]:
        """Take in one JSON object, a chunk or a whole answer.

        Raises:
            UpstreamError: it is an error, or no answer at all.
        """
        if not isinstance(said, dict):
            raise error_object(said) or bad_answer("the answer is not a JSON object")
        model, choices = said.get("model"), said.get("choices")
        if isinstance(model, str) and model:
            self._model = model
        first = choices[0] if choices and isinstance(choices, list) else None
        if not isinstance(first, dict) or said.get("error") or first.get("finish_reason") or said.get("usage"):
            self._seldom(said)
        return self._choice(first, said) if isinstance(first, dict) else ()

    def _seldom(self, said: dict[str, Any]) -> None:
        """What only an error, or the end of an answer, has."""
        kind = said.get("object")
        if not (said.keys() <= _ENVELOPE and (kind is None or isinstance(kind, str)) and kind in _GOOD):
            self._error(said)
        # Counts are cumulative: the last ones hold.
        self._usage = usage_in(said) or self._usage

    def _error(self, said: dict[str, Any]) -> None:
        wrong = error_object(said)
        if wrong is not None:
            raise wrong

    def _choice(self, choice: dict[str, Any], said: dict[str, Any]) -> Sequence[Piece]:
        reason = choice.get("finish_reason")
        if reason is not None:
            self._finish_reason = finish.named(reason) or self._finish_reason
        delta = choice.get("delta")
        if not isinstance(delta, dict) or not delta:
            return self._whole(choice, said)
        text = delta.get("content")
        if isinstance(text, str) and (len(delta) == 1 or (len(delta) == 2 and "role" in delta)):
            return self._word(text)
        if choice.get("error"):
            self._error(said)
        self._pieces = True
        return self._message(delta, whole=False)

    def _word(self, text: str) -> Sequence[Piece]:
        self._pieces = True
        if not text:
            return ()
        piece = (Piece(text),)
        if self._pipeline is not None:
            return self._through(piece)
        self._text.append(text)
        return piece

    def _whole(self, choice: dict[str, Any], said: dict[str, Any]) -> Sequence[Piece]:
        """A whole message, or a legacy completion's text. After pieces it only repeats them."""
        message = choice.get("message")
        if not isinstance(message, dict):
            text = choice.get("text")
            message = {"content": text} if isinstance(text, str) else None
            if message is None or (self._pieces and said.get("object") == "chat.completion"):
                return ()
        if self._pieces and (self._text or self._reasoning or self._refusal or self._pending):
            return ()
        if "usage" not in said:
            self._usage = usage_in(said) or self._usage
        return self._message(message, whole=True)

    @property
    def _pending(self) -> bool:
        """Whether the pipeline holds text back: then there is some."""
        return self._pipeline is not None and self._pipeline.holds

    def _message(self, message: dict[str, Any], *, whole: bool) -> Sequence[Piece]:
        self._tools = self._tools or calls_a_tool(message)
        reasoning, text, refusal = texts_of(message, whole=whole)
        if refusal:
            self._refusal.append(refusal)
        pieces = []
        if reasoning:
            pieces.append(Piece(reasoning, reasoning=True))
        if text:
            pieces.append(Piece(text))
        return self._through(pieces)

    def _through(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Send pieces through the pipeline, for as long as it has anything to decide."""
        pipeline = self._pipeline
        if pipeline is not None:
            pieces = pipeline.feed(pieces)
            if pipeline.settled:
                self._pipeline = None
        return self._kept(pieces)

    def _kept(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        for piece in pieces:
            (self._reasoning if piece.reasoning else self._text).append(piece.text)
        return pieces

    def finish(self) -> Sequence[Piece]:
        """Nothing more comes. Returns the pieces that the pipeline has held back."""
        pipeline, self._pipeline = self._pipeline, None
        return () if pipeline is None else self._kept(pipeline.finish())

    def answer(self) -> Answer:
        """Return the whole answer.

        Raises:
            UpstreamError: it is none, by the table of endings.
        """
        self.finish()
        text, reasoning = "".join(self._text), "".join(self._reasoning)
        late = closed_late(text) if self._late and "</think>" in text else None
        if late is not None:
            reasoning, text = "\n\n".join(part for part in (reasoning, late[0]) if part), late[1]
        wrong = judged(
            End(
                finish_reason=self._finish_reason,
                text=not text.isspace() and bool(text),
                reasoning=bool(reasoning.strip()),
                refusal="".join(self._refusal).strip(),
                tools=self._tools,
            )
        )
        if wrong is not None:
            raise wrong
        prompt_tokens, completion_tokens = counted(self._usage)
        return Answer(
            text=text,
            reasoning=reasoning.strip() or None,
            finish_reason=self._finish_reason,
            model=self._model,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )


def joined(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Join neighbours of one kind: what came in one packet is shown as one."""
    if len(pieces) < 2:
        return pieces
    return [
        Piece("".join([piece.text for piece in run]), reasoning)
        for reasoning, run in groupby(pieces, key=attrgetter("reasoning"))
    ]


def _named_error(data: str) -> UpstreamError:
    """The data of an event, or of a field, that is called `error`."""
    try:
        said = parsed(data)
    except UpstreamError:
        said = data
    found = error_object(said) or error_object({"error": said})
    return found or bad_answer("the upstream sent an error without a word")
