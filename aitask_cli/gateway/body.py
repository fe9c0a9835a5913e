"""A request's body: read as JSON and checked off the event loop where it is large, and bounded before it is read.

A thread alone would not do: one call into the JSON parser or into pydantic holds Python's lock from its beginning to
its end, so the loop stands still for as long. What makes those calls short is how much is in a body: long texts are
read at memory speed, many small values are not (1.4 MB of `1,` took 1.6 s, and three times that to say what was wrong
with each). So values are counted first, by calls that run at memory speed themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from aitask_cli.gateway.shapes import ChatRequest, CompletionRequest, DispatchRequest
from aitask_cli.gateway.threads import Threads
from shared.errors import UsageFault

T = TypeVar("T")

LARGE_BYTES = 64 * 1024
# A conversation of some thousand messages has no more.
MAX_VALUES = 20_000
_MARKS = (b",", b"[", b"{")
_BODY: TypeAdapter[Any] = TypeAdapter(CompletionRequest)


class Bodies:
    """Reads bodies: small ones at once, large ones one after another on a thread of their own."""

    def __init__(self) -> None:
        self._threads = Threads(1, name="aitask-bodies")

    async def read(self, http: Request) -> DispatchRequest | ChatRequest:
        """Read a completion request.

        Raises:
            RequestValidationError: a field is missing or of the wrong type.
            UsageFault: it isn't JSON, has too many values or a field that is not served.
        """
        raw = await http.body()
        found: DispatchRequest | ChatRequest = await self.aside(len(raw), lambda: parsed(raw))
        return found

    async def aside(self, size_bytes: int, work: Callable[[], T]) -> T:
        """Do what takes as long as a body is: on the thread when it is large."""
        return work() if size_bytes <= LARGE_BYTES else await self._threads.run(work)

    def close(self) -> None:
        """Let the thread end."""
        self._threads.close()


def parsed(raw: bytes) -> DispatchRequest | ChatRequest:
    """Return the request that a body holds."""
    if not has_at_most(raw, MAX_VALUES):
        raise UsageFault(f"body: it has more than {MAX_VALUES:,} values", remedy="send less at once")
    try:
        said = json.loads(raw)
    except json.JSONDecodeError as error:
        wrong = {"type": "json_invalid", "loc": ("body",), "msg": f"JSON decode error: {error.msg}"}
        raise RequestValidationError([wrong]) from None
    except (ValueError, RecursionError):
        raise UsageFault("body: it can't be read as JSON", remedy="send JSON as UTF-8 text") from None
    if isinstance(said, dict):
        # As everywhere in that API: null is not given.
        said = {name: value for name, value in said.items() if value is not None}
    try:
        found: DispatchRequest | ChatRequest = _BODY.validate_python(said)
    except ValidationError as error:
        raise _refused(error) from None
    return found


def has_at_most(text: bytes, most: int) -> bool:
    """Tell whether a JSON text has at most so many values, without reading it as JSON.

    A value that is not the whole is the first in its list or object, or comes after a comma. Malformed text is
    counted rightly as far as it is well-formed, and a parser comes no further.
    """
    if _marks(text) <= most:
        return True
    # Commas and brackets within strings are no values: prose and code are full of them.
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * most:
        return False
    return sum(map(_marks, bare.split(b'"')[::2])) <= most


def _marks(text: bytes) -> int:
    return sum(map(text.count, _MARKS))


def _refused(error: ValidationError) -> RequestValidationError | UsageFault:
    # The first tells enough; the inputs, which may be prompts, are left behind.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = [part for part in first["loc"] if part not in ("chat", "dispatch")]
    if first["type"] == "extra_forbidden":
        return NotServed(".".join(map(str, where)))
    if where and where[0] in ChatRequest.UNSERVED:
        return NotServed(str(where[0]))
    return RequestValidationError([{**first, "loc": ("body", *where)}])


class NotServed(UsageFault):
    """A field that would change the answer and that is not served.

    Attributes:
        name: of the field.
    """

    def __init__(self, name: str) -> None:
        self.name = "".join(char if char.isprintable() else "?" for char in name[:200])
        super().__init__(f"{self.name} is not served", remedy="leave it out")
