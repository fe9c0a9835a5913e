"""One attempt: the call, and what its outcome means for the task."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import random
import time
from collections.abc import Callable

from shared.domain import ASK, Claimed, Finished, TaskStatus
from shared.errors import UpstreamError
from shared.kinds import ErrorKind, Outcome
from shared.logs import TRACE_OF
from shared.models import answering
from workers.answer import Answer, Piece
from workers.families.generic import Behaviour
from workers.gate import Gate
from workers.missing import named
from workers.question import Contexts, is_cut, size_of
from workers.retry import decide
from workers.upstream import UpstreamClient

log = logging.getLogger("aitask.attempt")

# Errors that show the endpoint itself to be in trouble; any other answer shows that it is up.
_DOWN = {
    ErrorKind.CONNECT, ErrorKind.CONNECT_TIMEOUT, ErrorKind.RESET, ErrorKind.TLS, ErrorKind.TIMEOUT,
    ErrorKind.IDLE_TIMEOUT, ErrorKind.INCOMPLETE_STREAM, ErrorKind.BAD_JSON, ErrorKind.EMPTY_ANSWER,
    ErrorKind.INTERRUPTED,
}  # fmt: skip


# What keeps a call from its endpoint, and so shows nothing of it.
_UNREACHED = {ErrorKind.CERTIFICATE, ErrorKind.PROXY, ErrorKind.BAD_URL}


def endpoint_down(error: UpstreamError) -> bool:
    """Tell whether an error counts for the family's breaker."""
    status = error.http_status
    if error.limited or not error.retryable:
        return False
    return error.kind in _DOWN or (status is not None and status >= 500 and error.retry_after_s is None)


async def attempt(
    task: Claimed,
    behaviour: Behaviour,
    upstream: UpstreamClient,
    gate: Gate,
    *,
    max_failures: int,
    on_piece: Callable[[Piece], None],
    contexts: Contexts | None = None,
) -> Finished:
    """Make the call and return what is to be recorded."""
    began = time.monotonic()
    try:
        answer = await upstream.complete(task, behaviour, on_piece)
    except UpstreamError as failure:
        error = named(failure, behaviour.settings.models, behaviour.family, task.model, _today())
        return _failed(task, error, gate, max_failures=max_failures, took_s=time.monotonic() - began)
    except Exception as bug:  # a bug in one family's code must not end the worker
        log.exception("a call ended in a bug", extra={"task_id": task.id, "family": task.family})
        wrong = UpstreamError(
            f"internal error: {type(bug).__name__}", kind=ErrorKind.INTERNAL, retryable=True, max_tries=2
        )
        return _failed(task, wrong, gate, max_failures=max_failures, took_s=time.monotonic() - began)
    gate.answered(task.family, task.model)
    by = answering(behaviour.settings.models, behaviour.family, task.model, answer.model, _today())
    return _answered(task, answer, by=by, cut_question=await _question_is_cut(task, answer, behaviour, contexts))


def _today() -> dt.date:
    return dt.datetime.now(dt.timezone.utc).date()


async def _question_is_cut(task: Claimed, answer: Answer, behaviour: Behaviour, contexts: Contexts | None) -> bool:
    size, context = size_of(task), None
    if contexts is not None:
        # A worker that leaves does not wait for this, and keeps the answer.
        with contextlib.suppress(asyncio.CancelledError):
            context = await contexts.of(behaviour.family, task.model, size)
    return is_cut(size, answer.prompt_tokens, context)


def _answered(task: Claimed, answer: Answer, *, by: str | None, cut_question: bool) -> Finished:
    return Finished(
        id=task.id,
        attempt=task.attempt,
        status=TaskStatus.SUCCESS,
        outcome=Outcome.ANSWERED,
        response_text=answer.text,
        reasoning_text=answer.reasoning,
        http_status=200,
        cost_time_s=answer.cost_time_s,
        first_token_s=answer.first_token_s,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        finish_reason=answer.finish_reason,
        upstream_model=by,
        cut_question=cut_question,
    )


def _waits(task: Claimed, error: UpstreamError, gate: Gate) -> int:
    """How often in a row the upstream had made us wait before: of a limit of rate the model's refusals tell."""
    if error.limited:
        return max(0, gate.refusals(task.family, task.model) - 1)
    # The task's own tries that cost nothing were waits.
    return max(0, task.attempt - 1 - task.failures - task.rescues)


def _failed(task: Claimed, error: UpstreamError, gate: Gate, *, max_failures: int, took_s: float) -> Finished:
    if error.limited:
        gate.refused(task.family, task.model, began_at=time.monotonic() - took_s)
    decision = decide(
        error,
        failures=task.failures,
        bad_answers=task.bad_answers,
        max_failures=max_failures,
        chance=random.random(),
        waits=_waits(task, error, gate),
        waiting_s=task.claimed_for_s,
        interactive=task.lane == ASK,
    )
    if endpoint_down(error):
        gate.failed(task.family, error.message)
    elif not error.limited and error.kind not in _UNREACHED:
        gate.succeeded(task.family)
    if decision.cool_s:
        gate.cool(task.family, task.model, decision.cool_s)
    fields = {"task_id": task.id, "family": task.family, "attempt": task.attempt, "kind": error.kind}
    if decision.status is TaskStatus.PENDING:
        log.info("a call failed and will be tried again: %s", error.message, extra=fields)
    else:
        log.error("a task failed: %s", error.message, extra={**fields, TRACE_OF: error})
    return Finished(
        id=task.id,
        attempt=task.attempt,
        status=decision.status,
        outcome=Outcome.RETRY if decision.status is TaskStatus.PENDING else Outcome.FAILED,
        run_in_s=decision.run_in_s,
        counts_failure=decision.counts_failure,
        counts_bad_answer=decision.counts_bad_answer,
        cool_s=decision.cool_s,
        error_kind=error.kind,
        error_msg=error.message,
        http_status=error.http_status,
        cost_time_s=took_s,
    )
