"""What goes in and out over HTTP: the known API's shapes and OpenAI's."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from shared.domain import BatchView, TaskView


class ErrorDetail(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Every error of this API."""

    error: ErrorDetail


_ONLY_THESE = ConfigDict(extra="forbid")
_UNUSED = Field(default=None, description="Taken, and of no effect.")
_NEUTRAL = Field(default=None, description="Not served: only the value that changes nothing is taken.")
_NONE_OF = Field(default=None, max_length=0, description="Not served.")


class DispatchRequest(BaseModel):
    """A prompt for one or more models; answered at once with the batch's id."""

    model_config = _ONLY_THESE

    prompt: str = Field(min_length=1)
    model: str = Field(min_length=1, description="One model, or several separated by commas.")
    conversation_id: str | None = Field(default=None, description="The conversation to continue.")
    system: str | None = None


class ContentPart(BaseModel):
    """A part of a message. Only text is understood."""

    model_config = _ONLY_THESE

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation. An answer's message is taken back as it was given."""

    model_config = _ONLY_THESE

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    reasoning_content: str | None = _UNUSED
    refusal: str | None = _UNUSED
    annotations: list[Any] | None = _UNUSED
    audio: None = _NEUTRAL
    function_call: None = _NEUTRAL
    tool_calls: list[Any] | None = _NONE_OF


class StreamOptions(BaseModel):
    model_config = _ONLY_THESE

    include_usage: bool = False
    include_obfuscation: bool | None = _UNUSED


class PlainText(BaseModel):
    """The one response format that is served."""

    model_config = _ONLY_THESE

    type: Literal["text"]


class ChatRequest(BaseModel):
    """OpenAI's chat completion request; what is not listed here is refused by name."""

    model_config = _ONLY_THESE
    # Known to OpenAI's clients, and served with the values that change nothing.
    UNSERVED: ClassVar[frozenset[str]] = frozenset({
        "function_call", "functions", "logit_bias", "logprobs", "modalities", "response_format", "tool_choice", "tools",
        "top_logprobs",
    })  # fmt: skip
    # What models besides OpenAI's take; `extra_body` has whatever else there is.
    PASSED_ON: ClassVar[tuple[str, ...]] = (
        "top_k", "min_p", "repetition_penalty", "chat_template_kwargs", "thinking", "enable_thinking", "verbosity",
    )  # fmt: skip

    model: str = Field(min_length=1, description="One model, or several separated by commas: one choice each.")
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    verbosity: str | None = None
    extra_body: dict[str, Any] | None = Field(default=None, description="More model options, passed on as they are.")
    response_format: PlainText | None = _NEUTRAL
    tools: list[Any] | None = _NONE_OF
    tool_choice: Literal["none", "auto"] | None = _NEUTRAL
    functions: list[Any] | None = _NONE_OF
    function_call: Literal["none", "auto"] | None = _NEUTRAL
    logit_bias: dict[str, Any] | None = _NONE_OF
    logprobs: Literal[False] | None = _NEUTRAL
    top_logprobs: Literal[0] | None = _NEUTRAL
    modalities: list[Literal["text"]] | None = _NEUTRAL
    parallel_tool_calls: bool | None = _UNUSED
    user: str | None = _UNUSED
    metadata: dict[str, Any] | None = _UNUSED
    store: bool | None = _UNUSED
    service_tier: str | None = _UNUSED
    safety_identifier: str | None = _UNUSED
    prompt_cache_key: str | None = _UNUSED
    prompt_cache_retention: str | None = _UNUSED
    prompt_cache_options: dict[str, Any] | None = _UNUSED


def _which(body: Any) -> str:
    return "chat" if isinstance(body, dict | ChatRequest) and _has_messages(body) else "dispatch"


def _has_messages(body: Any) -> bool:
    return isinstance(body, ChatRequest) or "messages" in body


CompletionRequest = Annotated[
    Annotated[DispatchRequest, Tag("dispatch")] | Annotated[ChatRequest, Tag("chat")], Discriminator(_which)
]


class Dispatched(BaseModel):
    """A batch that is stored."""

    batch_id: str
    conversation_id: str
    message: str = "Tasks dispatched successfully"
    task_ids: list[str]


class TaskResult(BaseModel):
    """One model's share. `status` is 0 PENDING, 1 SUCCESS, 2 FAILED or 3 PROCESSING; times are in seconds."""

    task_id: str
    batch_id: str
    model_name: str
    family: str
    status: Literal[0, 1, 2, 3]
    response_text: str | None
    reasoning_text: str | None
    cost_time: float | None
    first_token: float | None
    error_kind: str | None
    error_msg: str | None
    attempt: int
    failures: int
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    finished_at: str | None

    @classmethod
    def of(cls, task: TaskView) -> TaskResult:
        return cls(
            task_id=task.id,
            batch_id=task.batch_id,
            model_name=task.name,
            family=task.family,
            status=int(task.status),  # type: ignore[arg-type]
            response_text=task.response_text,
            reasoning_text=task.reasoning_text,
            cost_time=task.cost_time_s,
            first_token=task.first_token_s,
            error_kind=task.error_kind,
            error_msg=task.error_msg,
            attempt=task.attempt,
            failures=task.failures,
            prompt_tokens=task.prompt_tokens,
            completion_tokens=task.completion_tokens,
            finish_reason=task.finish_reason,
            finished_at=task.finished_at.isoformat() if task.finished_at else None,
        )


class BatchResult(BaseModel):
    """A batch as it stands."""

    batch_id: str
    conversation_id: str
    status: Literal["PROCESSING", "COMPLETED", "PARTIAL", "FAILED"]
    user_prompt: str
    created_at: str
    results: list[TaskResult]

    @classmethod
    def of(cls, batch: BatchView) -> BatchResult:
        return cls(
            batch_id=batch.id,
            conversation_id=batch.conversation_id,
            status=batch.status.value,
            user_prompt=batch.prompt,
            created_at=batch.created_at.isoformat(),
            results=[TaskResult.of(task) for task in batch.tasks],
        )


class History(BaseModel):
    """A page of a conversation's batches, the newest of them last: as many as were asked for, or as fit."""

    conversation_id: str
    history: list[BatchResult]
    before: str = Field(
        default="", description="Give it as `before` for the page of older ones; absent: there are none."
    )


class ConversationHead(BaseModel):
    conversation_id: str
    title: str
    last_at: str
    batches: int


class Conversations(BaseModel):
    """The conversations that were last continued, newest first."""

    conversations: list[ConversationHead]


class Changed(BaseModel):
    """The tasks that a cancel or a retry has changed."""

    batch_id: str
    task_ids: list[str]


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class Models(BaseModel):
    """The default models of the families."""

    object: Literal["list"] = "list"
    data: list[Model]


class Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    @classmethod
    def summed(cls, tasks: list[TaskView]) -> Usage:
        """Add up what the upstreams said; one that said nothing counts nothing."""
        asked = sum(task.prompt_tokens or 0 for task in tasks)
        said = sum(task.completion_tokens or 0 for task in tasks)
        return cls(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said)


class ChoiceMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One model's answer. A model that failed has its reason for a refusal, and `error` for a finish reason."""

    index: int
    model: str
    message: ChoiceMessage
    finish_reason: str


class Completion(BaseModel):
    """OpenAI's chat completion, with a choice for each model."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Check(BaseModel):
    ok: bool
    found: str


class Ready(BaseModel):
    """Whether a submission would be taken and worked on."""

    ready: bool
    checks: dict[str, Check]
