"""How a request is sent: from the best way to the plainest, learned from what an endpoint refuses."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Streamed with token counts, streamed, and the whole answer at once.
WITH_USAGE, STREAMED, WHOLE = 0, 1, 2
# So long an endpoint's refusal is believed; then it may have learned to stream.
BELIEVED_S = 600.0
# Statuses by which servers say that they don't know or take a parameter.
_REFUSALS = {400, 404, 405, 415, 422, 501}
_OPTIONS = re.compile(r"stream_options|include_usage", re.I)
# The parameter itself, or streaming in words; "upstream" and "downstream" are other things.
_STREAM = re.compile(r"(?<![\w-])stream(?:ing|ed)?(?![\w-])", re.I)
_UNKNOWN = re.compile(
    r"support|allow|permit|accept|unknown|unrecogni[sz]ed|unexpected|invalid|not available|unavailable|extra|disabled"
    r"|not enabled|must be|can(?:no|')t|parameter|argument|field|property|implement|verified",
    re.I,
)


def plainer_way(status: int, body: str, message: str, way: int) -> int | None:
    """Return the way to ask instead when a refusal is about how it was asked, or None when it is about something else.

    Args:
        body: the refusal's body; the parameter may be named there only.
        message: its sentence.
    """
    if way >= WHOLE or status not in _REFUSALS:
        return None
    named = [*parameters(body)]
    if named:
        fields = {name.split(".")[0] for name in named}
        options, stream = "stream_options" in fields or "include_usage" in named, "stream" in fields
    else:
        options, stream = bool(_OPTIONS.search(message)), False
    if not (options or stream) and _STREAM.search(message) and _UNKNOWN.search(message):
        stream = True
    if options and way == WITH_USAGE:
        return STREAMED
    return WHOLE if options or stream else None


def named_option(status: int, body: str, message: str, options: Iterable[str]) -> str | None:
    """Return the option, one of those sent, that a refusal is about, or None."""
    if status not in (400, 422):
        return None
    sent = {*options}
    for name in parameters(body):
        if name.split(".")[0] in sent:
            return name.split(".")[0]
    found = (name for name in sorted(sent, key=len, reverse=True) if _says(message, name))
    return next(found, None) if _UNKNOWN.search(message) else None


def _says(message: str, name: str) -> bool:
    """Whether a sentence names an option as such: quoted, or a word that is no word of a language."""
    if "_" in name:
        return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) is not None
    return re.search(rf"""[`'"‘“]{re.escape(name)}[`'"’”]|supplied: {re.escape(name)}\b""", message) is not None


def parameters(body: str) -> Iterator[str]:
    """The parameters that an error's body names: OpenAI's `param`, and pydantic's `loc`."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return
    said = said[0] if isinstance(said, list) and said else said
    if not isinstance(said, dict):
        return
    error = said.get("error")
    for place in (error, said):
        if isinstance(place, dict):
            if isinstance(place.get("param"), str) and place["param"]:
                yield place["param"]
            yield from _locations(place.get("detail"))
            yield from _locations(place.get("message"))


def _locations(detail: Any) -> Iterator[str]:
    for entry in detail if isinstance(detail, list) else ():
        loc = entry.get("loc") if isinstance(entry, dict) else None
        names = [part for part in loc if isinstance(part, str) and part != "body"] if isinstance(loc, list) else []
        if names:
            yield ".".join(names)


class Ways:
    """What endpoints are known not to take. Believed only once the plainer way has worked, and for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ways: dict[str, tuple[int, float]] = {}
        self._unstreamed: set[str] = set()
        self._dropped: dict[tuple[str, str], tuple[frozenset[str], float]] = {}

    def best(self, endpoint: str) -> int:
        """The best way that isn't known to be refused."""
        way, until = self._ways.get(endpoint, (WITH_USAGE, 0.0))
        return way if self._clock() < until else WITH_USAGE

    def worked(self, endpoint: str, way: int) -> None:
        """A plainer way than the best one has worked where that one was refused."""
        self._ways[endpoint] = (way, self._clock() + BELIEVED_S)

    def answered(self, endpoint: str, *, way: int, streamed: bool) -> None:
        """Remember of an endpoint that was asked for a stream whether it gave one."""
        if way < WHOLE and streamed:
            self._unstreamed.discard(endpoint)
        elif way < WHOLE:
            self._unstreamed.add(endpoint)

    def unstreamed(self, endpoint: str) -> bool:
        """Whether it answers whole what it is asked to stream, so that nothing comes before everything does."""
        return endpoint in self._unstreamed

    def dropped(self, endpoint: str, model: str) -> frozenset[str]:
        """Options of our own that the model is known to refuse."""
        names, until = self._dropped.get((endpoint, model), (frozenset(), 0.0))
        return names if self._clock() < until else frozenset()

    def refuses(self, endpoint: str, model: str, names: frozenset[str]) -> None:
        """The model has answered without these options, and refused them."""
        self._dropped[endpoint, model] = (names, self._clock() + BELIEVED_S)
