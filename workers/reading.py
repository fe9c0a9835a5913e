"""Reading one response's body into a collector: a stream or a whole answer, whichever it turns out to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import aiohttp

from shared.errors import UpstreamError
from shared.kinds import ErrorKind
from shared.redaction import Redactor
from workers.answer import Collector, Piece, joined, parsed
from workers.content import Kind, begins_as, charset_of, decoded
from workers.faults import NETWORK
from workers.packing import unpacked
from workers.sse import EventDecoder, NamedEvent
from workers.status import error_message
from workers.timer import CallTimer

# What an upstream may still send once it has said all; then its connection is given up.
TRAILER_S = 1.0
# What is longer is decoded on a thread, so that other calls' pieces needn't wait for it.
LARGE = 256 * 1024
# Of what makes no sense so much is looked at for a sentence.
_HEAD = 64 * 1024
_PINGS = {"ping", "keepalive", "keep-alive", "heartbeat"}
_T = TypeVar("_T")


async def off_loop(size: int, function: Callable[..., _T], *arguments: object) -> _T:
    """Call a function, on a thread when what it works on is large."""
    if size < LARGE:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


class Reader:
    """Reads the body of one response.

    Args:
        show: told the pieces of text as they come.
        redact: takes the key out of what is quoted of the body.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        collector: Collector,
        timer: CallTimer,
        show: Callable[[Sequence[Piece]], None],
        *,
        max_bytes: int,
        redact: Redactor,
    ) -> None:
        self._collector = collector
        self._timer = timer
        self._show = show
        self._max_bytes = max_bytes
        self._redact = redact
        self._content_type = response.headers.get("content-type", "").lower()
        encoding = response.headers.get("content-encoding", "")
        chunks: AsyncIterator[bytes] = response.content.iter_any()
        self._chunks = chunks if encoding in ("", "identity") else unpacked(chunks, encoding)
        self.size = 0
        self._skipped = ""

    async def read(self) -> bool:
        """Read all of it. Returns whether it was a stream.

        Raises:
            UpstreamError: it is an error, or no answer, or not all of one.
        """
        kind, head = await self._begin()
        streamed = kind is Kind.EVENTS or (kind is Kind.TEXT and "event-stream" in self._content_type)
        if not streamed:
            await self._read_whole(head)
            return False
        await self._read_events(head)
        if not self._collector.complete:
            raise _incomplete(self._redact(self._skipped))
        return True

    async def _begin(self) -> tuple[Kind, bytes]:
        """Read as far as it takes to see what this is."""
        if "json" in self._content_type:
            self._timer.whole()
        head = b""
        async for chunk in self._chunks:
            self._bounded(len(chunk))
            # By white space, too, a server says that it is still there (DeepSeek, for an answer that isn't streamed).
            head = (head + chunk).lstrip(b" \t\r\n")
            kind = begins_as(head)
            if kind is not None:
                return kind, head
            self._timer.queued()
        return begins_as(head, final=True) or Kind.TEXT, head

    async def _read_events(self, head: bytes) -> None:
        decoder = EventDecoder(charset_of(self._content_type))
        try:
            await self._take_events(decoder.feed(head), decoder)
            async for chunk in self._chunks:
                self._bounded(len(chunk))
                events = decoder.feed(chunk)
                if not self._collector.done:
                    await self._take_events(events, decoder)
            await self._take_events(decoder.finish(), decoder)
        except NETWORK:
            if not self._collector.complete:
                raise
        except asyncio.CancelledError:
            # Our own timer, after the upstream had said all: the answer is whole.
            if not (self._collector.complete and self._timer.expired):
                raise
            self._timer.forgive()

    async def _take_events(self, events: list[str], decoder: EventDecoder) -> None:
        collector = self._collector
        pieces: list[Piece] = []
        payload, event = False, ""
        try:
            for event in events:
                if event[0] != "{" and not self._is_payload(event):
                    continue
                if collector.done:
                    break
                payload = True
                if len(event) < LARGE:
                    pieces += collector.event(event)
                else:
                    pieces += await off_loop(len(event), collector.event, event)
        except UpstreamError as error:
            raise self._without_key(event, error) from None
        if payload:
            # Only payload shows that the model is at work; keep-alive comments come from in between.
            self._timer.rearm(TRAILER_S if collector.complete else None)
            if pieces:
                self._show(joined(pieces))
        elif events or decoder.waits:
            self._timer.queued()
            decoder.waits = 0

    def _is_payload(self, event: str) -> bool:
        """Tell an event with something to say from a ping that is no JSON."""
        start = event.lstrip()
        if isinstance(event, NamedEvent):
            if event.name == "error":
                return True
            if event.name in _PINGS:
                return False
        if start[:1] == "{" or start.startswith("[DONE]") or (start[:1] == "[" and start[1:].lstrip()[:1] in "{["):
            return True
        self._skipped = self._skipped or start[:_HEAD]
        return False

    def _without_key(self, event: str, error: UpstreamError) -> UpstreamError:
        """The error that an event is, of its text without the key."""
        clean = self._redact(event)
        said = NamedEvent(clean, event.name) if isinstance(event, NamedEvent) else clean
        return _again(lambda: Collector().event(said), error)

    async def _read_whole(self, head: bytes) -> None:
        body = bytearray(head)
        self._timer.rearm()
        async for chunk in self._chunks:
            self._timer.rearm()
            self._bounded(len(chunk))
            body += chunk
        await off_loop(len(body), self._take_whole, bytes(body))

    def _take_whole(self, body: bytes) -> None:
        text = decoded(body, self._content_type)
        try:
            _take_whole(text, self._collector)
        except UpstreamError as error:
            # What an error quotes is cut: the key is taken out before.
            raise _again(lambda: _take_whole(self._redact(text[:_HEAD]), Collector()), error) from None

    def _bounded(self, more: int) -> None:
        self.size += more
        if self.size > self._max_bytes:
            raise UpstreamError(
                f"the answer is longer than {self._max_bytes:,} bytes",
                kind=ErrorKind.TOO_LARGE,
                retryable=False,
                http_status=200,
            )


def _take_whole(text: str, collector: Collector) -> None:
    start = text.lstrip("\ufeff \t\r\n")
    if not start:
        raise UpstreamError(
            "the answer is empty", kind=ErrorKind.EMPTY_ANSWER, retryable=True, http_status=200, max_tries=2
        )
    if start[0] == "<":
        message = error_message(start[:_HEAD].encode("utf-8", "replace"), "text/html")
        raise UpstreamError(
            f"the answer is {message}, not JSON", kind=ErrorKind.BAD_JSON, retryable=True, http_status=200, max_tries=2
        )
    lines = start.splitlines() if start[0] == "{" and "\n" in start and not _is_json(start) else []
    if len(lines) > 1 and _is_json(lines[0]):
        _take_lines(lines, collector)
    else:
        collector.object(parsed(start))


def _take_lines(lines: list[str], collector: Collector) -> None:
    """A stream of bare JSON, one a line, or one that turns into events after all."""
    for line in lines:
        said = line.removeprefix("data:").strip()
        if said[:1] == "{" or said == "[DONE]":
            collector.event(said)
    if not collector.complete:
        raise _incomplete()


def _is_json(text: str) -> bool:
    try:
        parsed(text)
    except UpstreamError:
        return False
    return True


def _again(judge: Callable[[], object], error: UpstreamError) -> UpstreamError:
    """The same error, of text without the key; the error itself when it comes out another."""
    try:
        judge()
    except UpstreamError as clean:
        return clean if clean.kind == error.kind else error
    return error


def _incomplete(said: str = "") -> UpstreamError:
    message = "the stream ended before the answer did"
    if said:
        message += f"; it said: {' '.join(said.split())[:200]}"
    return UpstreamError(message, kind=ErrorKind.INCOMPLETE_STREAM, retryable=True, http_status=200)
