"""OpenAI's chat completions, answered through the durable queue: whole, or streamed as the models write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from starlette.requests import Request as HttpRequest

from aitask_cli.gateway.hub import Cursor, Step
from aitask_cli.gateway.service import Service
from aitask_cli.gateway.shapes import ChatRequest, Choice, ChoiceMessage, Completion, ContentPart, Usage
from shared.domain import BatchView, TaskState, TaskStatus, TaskView
from shared.errors import UsageFault
from shared.options import OPTIONS, parse_options
from shared.submission import Submission

_LOOK_FOR_HANGUP_S = 2.0
# Between what an attempt had said before it failed and what the next one says: a stream can't take back.
_ANEW = "\n\n---\n\n"


class AllFailed(Exception):
    """No model answered; the first one's reason stands for all."""

    def __init__(self, task: TaskView, batch_id: str) -> None:
        super().__init__(task.error_msg)
        self.task = task
        self.batch_id = batch_id


async def submitted(service: Service, body: ChatRequest, key: str | None) -> Submission:
    """Store the batch that a chat request asks for.

    The last message is the prompt, system messages at the start are the system prompt, the rest is the context.
    """
    messages = [(m.role if m.role != "developer" else "system", _text(m.content)) for m in body.messages]
    if messages[-1][0] != "user":
        raise UsageFault("messages: the last one is not the user's", remedy="end with a user message")
    system = []
    while messages[0][0] == "system":
        system.append(messages.pop(0)[1])
    options = {name: getattr(body, name) for name in (*OPTIONS, *ChatRequest.PASSED_ON)}
    return await service.submit(
        messages[-1][1],
        body.model,
        key=key,
        system="\n\n".join(system) or None,
        options=parse_options(_pairs(options, body.extra_body)),
        context=[{"role": role, "content": text} for role, text in messages[:-1]],
    )


def _text(content: str | list[ContentPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _pairs(options: dict[str, Any], more: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The options given, as the (name, text) pairs that `parse_options` checks."""
    given = {name: value for name, value in options.items() if value is not None} | (more or {})
    return [(name, _as_text(name, value)) for name, value in given.items()]


def _as_text(name: str, value: Any) -> str:
    if name == "stop" and isinstance(value, str):
        # Here a text is a text, whatever it looks like.
        return json.dumps([value])
    plain = name in OPTIONS and not isinstance(value, (list, dict))
    return str(value) if plain else json.dumps(value)


async def completion(service: Service, body: ChatRequest, key: str | None, http: HttpRequest) -> Completion | None:
    """Wait for every model and return their answers. None: the client hung up; the batch goes on.

    Raises:
        AllFailed: no model answered.
    """
    made = await submitted(service, body, key)
    async for _ in service.hub.follow(made.batch_id, Cursor(), idle_s=_LOOK_FOR_HANGUP_S):
        if await http.is_disconnected():
            return None
    batch = await service.batch_in_time(made.batch_id)
    if not any(task.status is TaskStatus.SUCCESS for task in batch.tasks):
        raise AllFailed(batch.tasks[0], batch.id)
    return Completion(
        id=f"chatcmpl-{batch.id}",
        created=_seconds(batch),
        model=body.model,
        choices=[_choice(index, task) for index, task in enumerate(batch.tasks)],
        usage=Usage.summed(list(batch.tasks)),
    )


def _choice(index: int, task: TaskView) -> Choice:
    if task.status is TaskStatus.SUCCESS:
        message = ChoiceMessage(content=task.response_text, reasoning_content=task.reasoning_text)
        return Choice(index=index, model=task.name, message=message, finish_reason=task.finish_reason or "stop")
    message = ChoiceMessage(content=None, refusal=task.error_msg)
    return Choice(index=index, model=task.name, message=message, finish_reason="error")


async def stream(service: Service, body: ChatRequest, made: Submission) -> AsyncIterator[bytes]:
    """Yield OpenAI's stream of chunks for a batch, a choice for each model."""
    batch = await service.batch_in_time(made.batch_id)
    chunks = _Chunks(batch, body.model)
    for index, task in enumerate(batch.tasks):
        yield chunks.one(index, task.name, {"role": "assistant", "content": ""})
    ended: list[TaskView] = []
    async for step in service.hub.follow(made.batch_id, Cursor()):
        if step is None:
            yield b": waiting\n\n"
        elif step.state is not None:
            for chunk in chunks.of(step, step.state):
                yield chunk
            if step.task is not None:
                ended.append(step.task)
    if body.stream_options is not None and body.stream_options.include_usage:
        yield chunks.usage(Usage.summed(ended))
    yield b"data: [DONE]\n\n"


class _Chunks:
    """Makes chunks, and remembers what each choice has been told so far."""

    def __init__(self, batch: BatchView, model: str) -> None:
        self._head = {
            "id": f"chatcmpl-{batch.id}",
            "object": "chat.completion.chunk",
            "created": _seconds(batch),
            "model": model,
        }
        self._said = {task.position: "" for task in batch.tasks}
        self._attempt: dict[int, int] = {}

    def of(self, step: Step, state: TaskState) -> list[bytes]:
        index = state.position
        if step.piece is not None:
            if step.piece.reasoning:
                return [self.one(index, state.name, {"reasoning_content": step.piece.text})]
            return self._text(state, step.piece.text)
        task = step.task
        if task is None:
            return []
        if task.status is not TaskStatus.SUCCESS:
            delta = {"refusal": task.error_msg}
            return [self.one(index, task.name, delta), self.one(index, task.name, {}, "error")]
        return [*self._rest(task), self.one(index, task.name, {}, task.finish_reason or "stop")]

    def _text(self, state: TaskState, text: str) -> list[bytes]:
        before = self._attempt.setdefault(state.position, state.attempt)
        if before != state.attempt:
            self._attempt[state.position] = state.attempt
            if self._said[state.position]:
                self._said[state.position] = ""
                text = _ANEW + text
        self._said[state.position] += text.removeprefix(_ANEW)
        return [self.one(state.position, state.name, {"content": text})]

    def _rest(self, task: TaskView) -> list[bytes]:
        """What the stored answer has beyond what was streamed; the whole of it where live output fell short."""
        said, final = self._said[task.position], task.response_text or ""
        rest = final[len(said) :] if final.startswith(said) else _ANEW + final
        return [self.one(task.position, task.name, {"content": rest})] if rest else []

    def one(self, index: int, model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "model": model}
        return _data({**self._head, "choices": [choice]})

    def usage(self, usage: Usage) -> bytes:
        return _data({**self._head, "choices": [], "usage": usage.model_dump()})


def _data(said: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(said, ensure_ascii=False)}\n\n".encode()


def _seconds(batch: BatchView) -> int:
    created: datetime = batch.created_at
    return int(created.timestamp())
