"""How an answer ends: one table from (finish reason, text, reasoning, refusal, tools) to what it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import UpstreamError
from shared.finish import Finish, meaning
from shared.kinds import ErrorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What there is when an upstream has said all."""

    finish_reason: str | None = None
    text: bool = False
    reasoning: bool = False
    refusal: str = ""
    tools: bool = False


def judged(end: End) -> UpstreamError | None:
    """Return why this is no answer, or None: it is one. The rows stand in the order in which they hold."""
    finish = meaning(end.finish_reason)
    if end.refusal and not end.text:
        return _failed(f"the model refused: {end.refusal[:300]}", ErrorKind.REFUSED)
    if finish is Finish.FILTERED:
        return _failed(
            f"the upstream's content filter stopped the answer ({end.finish_reason})", ErrorKind.CONTENT_POLICY
        )
    if finish is Finish.REFUSED:
        return _failed("the model refused", ErrorKind.REFUSED)
    if finish is Finish.BROKEN:
        said = f"the upstream broke the answer off (finish_reason {end.finish_reason})"
        return UpstreamError(said, kind=ErrorKind.INTERRUPTED, retryable=True, http_status=200)
    if finish is Finish.TOOL or (end.tools and not end.text):
        return _failed("the model called a tool instead of answering", ErrorKind.TOOL_CALL)
    if end.text:
        return None
    if finish is Finish.CUT:
        spent = "its thoughts" if end.reasoning else "nothing that can be read"
        return _failed(
            f"no answer: the limit of tokens went into {spent} (finish_reason {end.finish_reason}); "
            "give a larger max_tokens, or a lower reasoning_effort",
            ErrorKind.NO_ANSWER,
        )
    said = "the model thought and gave no answer" if end.reasoning else "the answer has no text"
    by_name = f" (finish_reason {end.finish_reason})" if finish is Finish.UNKNOWN else ""
    return UpstreamError(said + by_name, kind=ErrorKind.NO_ANSWER, retryable=True, http_status=200, max_tries=2)


def _failed(message: str, kind: ErrorKind) -> UpstreamError:
    """The same question would end the same way."""
    return UpstreamError(" ".join(message.split()), kind=kind, retryable=False, http_status=200)
