"""The upstream client: one call to an OpenAI-compatible endpoint, streamed where it can be. It retries nothing."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace

import aiohttp
from yarl import URL

from shared.domain import Claimed
from shared.errors import UpstreamError
from shared.families import Family, chat_url, models_url
from shared.kinds import ErrorKind
from shared.redaction import Redactor, secrets_of
from shared.text import one_line
from workers.answer import Answer, Piece, dumped
from workers.families.generic import Behaviour
from workers.faults import NETWORK, bad_url, redirected, translated
from workers.live import LiveGuard
from workers.packing import unpacked
from workers.reading import Reader, off_loop
from workers.status import error_message, from_body
from workers.timer import CallTimer
from workers.transport import Transport
from workers.ways import WHOLE, WITH_USAGE, Ways, named_option, plainer_way

OnPiece = Callable[[Piece], None]

# An error's body is read no further than this: nobody reads more of it.
_ERROR_BODY_BYTES = 64 * 1024
_LOOK_S = 10.0
_USER_AGENT = "aitask"
# An upstream's words of its own: no longer than any that has been seen.
_FINISH_CHARS, _MODEL_CHARS = 64, 200


class _Refusal(Exception):
    """The endpoint refuses how it was asked, and there is another way."""

    def __init__(self, error: UpstreamError, *, way: int, dropped: frozenset[str]) -> None:
        self.error = error
        self.way = way
        self.dropped = dropped


class UpstreamClient:
    """Makes calls. What an endpoint can't do is remembered for a while."""

    def __init__(
        self, transport: Transport, *, max_answer_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport = transport
        self._max_bytes = max_answer_bytes
        self._ways = Ways(clock)
        self._urls: dict[str, URL] = {}
        self._redactors: dict[tuple[str, str | None], Redactor] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def complete(self, task: Claimed, behaviour: Behaviour, on_piece: OnPiece) -> Answer:
        """Ask the task's model and return its answer.

        Raises:
            UpstreamError: the call failed; the error carries what the retry decision needs.
        """
        family = behaviour.family
        timer = CallTimer(
            total_s=family.timeout_s,
            idle_s=family.idle_timeout_s,
            first_s=family.first_token_s,
            queue_s=family.queue_s,
        )
        with self._errors(behaviour), timer:
            answer = await self._asked(task, behaviour, timer, on_piece)
            return await off_loop(len(answer.text), _without_secrets, answer, self._redactor(family))

    async def look(self, behaviour: Behaviour) -> None:
        """Make a light call that only shows whether the endpoint still serves us: its model list.

        Raises:
            UpstreamError: it does not.
        """
        url = models_url(behaviour.family.endpoint)
        with self._errors(behaviour), CallTimer(total_s=_LOOK_S, idle_s=_LOOK_S):
            headers = {"Accept-Encoding": "identity", **_identity(behaviour.family)}
            async with self._transport.open("GET", self._url(url), headers) as response:
                if response.status not in (200, 404, 405):
                    error, _, _ = await self._refused(response, behaviour.family)
                    raise error

    @contextmanager
    def _errors(self, behaviour: Behaviour) -> Iterator[None]:
        """The door at which every error becomes ours, is looked at by the family, and loses the key."""
        redact = self._redactor(behaviour.family)
        try:
            yield
        except UpstreamError as error:
            judged = behaviour.classify(error)
            redact.clean(judged)
            raise judged from error.__cause__
        except NETWORK as error:
            judged = behaviour.classify(translated(error, behaviour.family))
            judged.__cause__ = error
            redact.clean(judged)
            raise judged from judged.__cause__
        except Exception as bug:
            redact.clean(bug)
            raise

    def _redactor(self, family: Family) -> Redactor:
        key = (family.endpoint, family.api_key)
        found = self._redactors.get(key)
        if found is None:
            urls = (family.endpoint, self._transport.proxy_of(family.endpoint))
            secrets = [secret for url in urls for secret in secrets_of(url)]
            found = self._redactors[key] = Redactor((family.api_key, *secrets))
        return found

    async def _asked(self, task: Claimed, behaviour: Behaviour, timer: CallTimer, on_piece: OnPiece) -> Answer:
        """Ask the best way that is known, and plainer ones while the endpoint refuses how it is asked."""
        endpoint = behaviour.family.endpoint
        way, dropped = self._ways.best(endpoint), self._ways.dropped(endpoint, task.model)
        known = (way, dropped)
        while True:
            if way == WHOLE or self._ways.unstreamed(endpoint):
                timer.whole()
            try:
                answer = await self._call(task, behaviour, way, dropped, timer, on_piece)
            except _Refusal as refusal:
                if (refusal.way, refusal.dropped) == (way, dropped):
                    raise refusal.error from None
                way, dropped = refusal.way, refusal.dropped
                continue
            if way != known[0]:
                self._ways.worked(endpoint, way)
            if dropped != known[1]:
                self._ways.refuses(endpoint, task.model, dropped)
            return answer

    async def _call(
        self,
        task: Claimed,
        behaviour: Behaviour,
        way: int,
        dropped: frozenset[str],
        timer: CallTimer,
        on_piece: OnPiece,
    ) -> Answer:
        began = time.monotonic()
        async with self._sent(task, behaviour, way, dropped) as response:
            if not 200 <= response.status < 300:
                error, body, said = await self._refused(response, behaviour.family)
                raise self._another_way(task, behaviour, way, dropped, error, body, said)
            collector = behaviour.collector(task.model)
            first: list[float] = []

            def show(pieces: Sequence[Piece]) -> None:
                if pieces and not first:
                    first.append(time.monotonic() - began)
                for piece in guard.feed(pieces):
                    on_piece(piece)

            redact = self._redactor(behaviour.family)
            guard = LiveGuard(redact)
            reader = Reader(response, collector, timer, show, max_bytes=self._max_bytes, redact=redact)
            self._ways.answered(behaviour.family.endpoint, streamed=await reader.read(), way=way)
            show(collector.finish())
            for piece in guard.finish():
                on_piece(piece)
            answer = await off_loop(reader.size, collector.answer)
            behaviour.check(answer)
        return replace(answer, first_token_s=first[0] if first else None, cost_time_s=time.monotonic() - began)

    def _another_way(
        self,
        task: Claimed,
        behaviour: Behaviour,
        way: int,
        dropped: frozenset[str],
        error: UpstreamError,
        body: str,
        said: str,
    ) -> Exception:
        """What a refusal leads to: asking again without what it is about, if that is ours, or the error."""
        status = error.http_status or 0
        plainer = plainer_way(status, body, said, way)
        if plainer is not None:
            return _Refusal(error, way=plainer, dropped=dropped)
        if error.kind != f"http_{status}":
            return error
        ours = behaviour.family.options.keys() - task.options.keys() - dropped
        # By the names that were sent: the limit of the answer has two.
        name = named_option(status, body, said, {*ours, *task.options, *(behaviour.options(task).keys() - dropped)})
        if name in ours:
            return _Refusal(error, way=way, dropped=dropped | {str(name)})
        if name is not None:
            error.kind = ErrorKind.OPTION_REFUSED
            error.message = f"the model refuses the option {name}: {error.message}"
        return error

    def _url(self, text: str) -> URL:
        """An address, parsed once."""
        url = self._urls.get(text)
        if url is None:
            try:
                url = self._urls[text] = URL(text)
            except ValueError as error:
                raise bad_url(str(error)) from None
        return url

    def _sent(
        self, task: Claimed, behaviour: Behaviour, way: int, dropped: frozenset[str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        payload = behaviour.payload(task)
        for name in dropped - task.options.keys():
            payload.pop(name, None)
        payload["stream"] = way < WHOLE
        if way == WITH_USAGE:
            payload["stream_options"] = {"include_usage": True}
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json" if way < WHOLE else "application/json",
            # A compressed body could grow a thousandfold before its size is seen.
            "Accept-Encoding": "identity",
            **behaviour.headers(task),
            **_identity(behaviour.family),
        }
        return self._transport.open("POST", self._url(chat_url(behaviour.family.endpoint)), headers, dumped(payload))

    async def _refused(self, response: aiohttp.ClientResponse, family: Family) -> tuple[UpstreamError, str, str]:
        """Return the error of a status that is none of success, its body, and its sentence, both without the key."""
        if 300 <= response.status < 400:
            location = response.headers.get("location", "")
            return redirected(response.status, location, response.url, family), "", ""
        body = bytearray()
        encoding = response.headers.get("content-encoding", "")
        async for chunk in unpacked(response.content.iter_any(), encoding):
            body += chunk
            if len(body) >= _ERROR_BODY_BYTES:
                break
        raw = self._redactor(family)(bytes(body[:_ERROR_BODY_BYTES]).decode("utf-8-sig", "replace"))
        clean, content_type = raw.encode("utf-8", "replace"), response.headers.get("content-type", "").lower()
        error = from_body(response.status, clean, content_type, response.headers, dt.datetime.now(dt.timezone.utc))
        return error, raw, error_message(clean, content_type)


def _identity(family: Family) -> dict[str, str]:
    key = {"Authorization": f"Bearer {family.api_key}"} if family.api_key else {}
    return {"User-Agent": _USER_AGENT, **key}


def _without_secrets(answer: Answer, redact: Redactor) -> Answer:
    """The answer as it may be kept: its own words without the key, the upstream's short and printable."""
    reasoning = None if answer.reasoning is None else redact.answer(answer.reasoning)
    text = redact.answer(answer.text)
    finish_reason = _short(answer.finish_reason, _FINISH_CHARS, redact)
    model = _short(answer.model, _MODEL_CHARS, redact)
    if (text, reasoning, finish_reason, model) == (answer.text, answer.reasoning, answer.finish_reason, answer.model):
        return answer
    return replace(answer, text=text, reasoning=reasoning, finish_reason=finish_reason, model=model)


def _short(said: str | None, chars: int, redact: Redactor) -> str | None:
    if said is None:
        return None
    clean = redact.word(said) if len(said) <= chars else redact(said)
    return clean if len(clean) <= chars and clean.isprintable() else one_line(clean, chars)
