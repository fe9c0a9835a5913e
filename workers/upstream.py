"""The upstream client: one call to an OpenAI-compatible endpoint, streamed where it can be. It retries nothing."""

from __future__ import annotations

import asyncio
import codecs
import datetime as dt
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import aiohttp
from yarl import URL

from shared.domain import Claimed
from shared.errors import UpstreamError
from shared.families import chat_url, models_url
from workers.answer import Answer, Collector, Piece, dumped, joined, parsed
from workers.families.generic import Behaviour
from workers.sse import EventDecoder
from workers.status import error_message, from_body
from workers.timer import CallTimer
from workers.transport import Transport

OnPiece = Callable[[Piece], None]

# An error's body is read no further than this: nobody reads more of it.
_ERROR_BODY_BYTES = 64 * 1024
# What an upstream may still send once it has said all; then its connection is given up.
_TRAILER_S = 1.0
_LOOK_S = 10.0
_USER_AGENT = "aitask"

# How a request is sent to an endpoint, from the best to the plainest; learned from its refusals.
_STREAM_WITH_USAGE, _STREAM, _PLAIN = 0, 1, 2


_NETWORK = (aiohttp.ClientError, OSError)


class _Plainer(Exception):
    """The endpoint refuses what this way of asking adds; ask again the next plainer way."""


class UpstreamClient:
    """Makes calls. What an endpoint can't do is remembered for as long as the process lives."""

    def __init__(self, transport: Transport, *, max_answer_bytes: int) -> None:
        self._transport = transport
        self._max_bytes = max_answer_bytes
        self._ways: dict[str, int] = {}
        self._urls: dict[str, URL] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def complete(self, task: Claimed, behaviour: Behaviour, on_piece: OnPiece) -> Answer:
        """Ask the task's model and return its answer.

        Raises:
            UpstreamError: the call failed; the error carries what the retry decision needs.
        """
        family = behaviour.family
        timer = CallTimer(total_s=family.timeout_s, idle_s=family.idle_timeout_s)
        try:
            with timer:
                while True:
                    way = self._ways.get(family.endpoint, _STREAM_WITH_USAGE)
                    try:
                        return await self._call(task, behaviour, way, timer, on_piece)
                    except _Plainer:
                        self._ways[family.endpoint] = max(way + 1, self._ways.get(family.endpoint, 0))
        except UpstreamError as error:
            raise _without_key(behaviour.classify(error), family.api_key) from error.__cause__
        except _NETWORK as error:
            raise _without_key(_network_error(error), family.api_key) from error

    async def look(self, behaviour: Behaviour) -> None:
        """Make a light call that only shows whether the endpoint still serves us: its model list.

        Raises:
            UpstreamError: it does not.
        """
        family = behaviour.family
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if family.api_key:
            headers["Authorization"] = f"Bearer {family.api_key}"
        try:
            with CallTimer(total_s=_LOOK_S, idle_s=_LOOK_S):
                async with self._transport.open("GET", self._url(models_url(family.endpoint)), headers) as response:
                    if response.status not in (200, 404, 405):
                        error = await self._refused(response, response.headers.get("content-type", ""), _PLAIN)
                        raise behaviour.classify(error)
        except _NETWORK as error:
            raise _without_key(_network_error(error), family.api_key) from error

    async def _call(self, task: Claimed, behaviour: Behaviour, way: int, timer: CallTimer, on_piece: OnPiece) -> Answer:
        began = time.monotonic()
        async with self._sent(task, behaviour, way) as response:
            content_type = response.headers.get("content-type", "").lower()
            if response.status != 200:
                raise await self._refused(response, content_type, way)
            collector = behaviour.collector(task.model)
            first: list[float] = []

            def show(pieces: Sequence[Piece]) -> None:
                if pieces and not first:
                    first.append(time.monotonic() - began)
                for piece in pieces:
                    on_piece(piece)

            if "text/event-stream" in content_type:
                await self._read_events(response, collector, timer, show)
            else:
                _read_whole(await self._body(response, content_type, timer), collector)
            show(collector.finish())
            answer = collector.answer()
            behaviour.check(answer)
        return Answer(
            text=answer.text,
            reasoning=answer.reasoning,
            finish_reason=answer.finish_reason,
            model=answer.model,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            first_token_s=first[0] if first else None,
            cost_time_s=time.monotonic() - began,
        )

    def _url(self, text: str) -> URL:
        """An address, parsed once."""
        url = self._urls.get(text)
        if url is None:
            try:
                url = self._urls[text] = URL(text)
            except ValueError as error:
                raise _bad_url(str(error)) from None
        return url

    def _sent(
        self, task: Claimed, behaviour: Behaviour, way: int
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        family = behaviour.family
        payload = behaviour.payload(task)
        payload["stream"] = way < _PLAIN
        if way == _STREAM_WITH_USAGE:
            payload["stream_options"] = {"include_usage": True}
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json" if way < _PLAIN else "application/json",
            # A compressed body could grow a thousandfold before its size is seen.
            "Accept-Encoding": "identity",
            "User-Agent": _USER_AGENT,
            **behaviour.headers(task),
        }
        if family.api_key:
            headers["Authorization"] = f"Bearer {family.api_key}"
        return self._transport.open("POST", self._url(chat_url(family.endpoint)), headers, dumped(payload))

    async def _refused(self, response: aiohttp.ClientResponse, content_type: str, way: int) -> UpstreamError:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) >= _ERROR_BODY_BYTES:
                break
        status = response.status
        message = error_message(bytes(body), content_type)
        if way < _PLAIN and status in (400, 404, 415, 422, 501) and "stream" in message.lower():
            raise _Plainer
        return from_body(status, bytes(body), content_type, response.headers, dt.datetime.now(dt.timezone.utc))

    async def _read_events(
        self,
        response: aiohttp.ClientResponse,
        collector: Collector,
        timer: CallTimer,
        show: Callable[[Sequence[Piece]], None],
    ) -> None:
        decoder = EventDecoder()
        size = 0
        try:
            async for chunk in response.content.iter_any():
                size = self._bounded(size + len(chunk))
                events = decoder.feed(chunk)
                if not events or collector.done:
                    continue
                # Only payload shows that the model is at work; keep-alive comments come from in between.
                timer.rearm()
                pieces: list[Piece] = []
                for event in events:
                    pieces += collector.event(event)
                    if collector.done:
                        timer.rearm(_TRAILER_S)
                        break
                show(joined(pieces))
            for event in decoder.finish():
                show(collector.event(event))
        except _NETWORK:
            if not collector.complete:
                raise
        except asyncio.CancelledError:
            # Our own timer, after the upstream had said all: the answer is whole.
            if not (collector.complete and timer.expired):
                raise
            timer.forgive()
        if not collector.complete:
            raise UpstreamError(
                "the stream ended before the answer did", kind="incomplete_stream", retryable=True, http_status=200
            )

    async def _body(self, response: aiohttp.ClientResponse, content_type: str, timer: CallTimer) -> str:
        body = bytearray()
        async for chunk in response.content.iter_any():
            timer.rearm()
            body += chunk
            self._bounded(len(body))
        return _decoded(bytes(body), content_type)

    def _bounded(self, size: int) -> int:
        if size > self._max_bytes:
            raise UpstreamError(
                f"the answer is longer than {self._max_bytes:,} bytes",
                kind="too_large",
                retryable=False,
                http_status=200,
            )
        return size


def _read_whole(text: str, collector: Collector) -> None:
    """Take in a body that is not declared a stream. Some servers stream all the same."""
    if text.lstrip()[:5] == "data:":
        decoder = EventDecoder()
        for event in decoder.feed(text.encode()) + decoder.finish():
            collector.event(event)
        return
    if not text.strip():
        raise UpstreamError("the answer is empty", kind="empty_answer", retryable=True, http_status=200, max_tries=2)
    if text.lstrip()[:1] == "<":
        message = error_message(text[:65536].encode(), "text/html")
        raise UpstreamError(
            f"the answer is {message}, not JSON", kind="bad_json", retryable=True, http_status=200, max_tries=2
        )
    collector.object(parsed(text))


def _decoded(body: bytes, content_type: str) -> str:
    charset = content_type.partition("charset=")[2].split(";")[0].strip(" \"'") or "utf-8"
    try:
        codecs.lookup(charset)
    except LookupError:
        charset = "utf-8"
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        charset = "utf-16"
    return body.decode("utf-8-sig" if charset.lower() in ("utf-8", "utf8") else charset, "replace")


def _bad_url(said: str) -> UpstreamError:
    return UpstreamError(f"the endpoint's URL can't be used: {said}", kind="bad_url", retryable=False)


def _network_error(error: Exception) -> UpstreamError:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, aiohttp.InvalidURL):
        return _bad_url(said)
    if isinstance(error, aiohttp.ClientSSLError):
        return UpstreamError(f"TLS to the endpoint failed: {said}", kind="tls", retryable=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        why = error.os_error.strerror or said
        return UpstreamError(f"can't connect to {error.host}:{error.port}: {why}", kind="connect", retryable=True)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return UpstreamError("the endpoint accepted no connection in time", kind="connect_timeout", retryable=True)
    return UpstreamError(f"the connection broke: {said}", kind="reset", retryable=True)


def _without_key(error: UpstreamError, api_key: str | None) -> UpstreamError:
    """Take the key out of what an upstream said: some repeat it in their error."""
    if api_key and api_key in error.message:
        error.message = error.message.replace(api_key, "[key]")
        error.args = (error.message,)
    return error
