"""The application: routes, errors, and the document that describes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from aitask_cli.gateway import chat
from aitask_cli.gateway.body import NotServed
from aitask_cli.gateway.chat import AllFailed
from aitask_cli.gateway.document import document
from aitask_cli.gateway.events import events, told
from aitask_cli.gateway.guard import Guard
from aitask_cli.gateway.hub import Busy, Cursor
from aitask_cli.gateway.service import Service
from aitask_cli.gateway.shapes import (
    BatchResult,
    Changed,
    ChatRequest,
    Check,
    Completion,
    ConversationHead,
    Conversations,
    Dispatched,
    ErrorBody,
    Health,
    History,
    Model,
    Models,
    Ready,
    TaskResult,
)
from shared.errors import AitaskError, Conflict, NotFound, Unavailable, UnknownModel, UsageFault

_BODY_SPARE = 256 * 1024
_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        400: "The request is bad; the message names what.",
        401: "The token is missing or wrong.",
        403: "The host name, the page or the user is not served.",
        404: "There is no such thing.",
        409: "The idempotency key was used for another request.",
        408: "The body took too long.",
        413: "The body is too long.",
        415: "The body is not JSON by its content type.",
        422: "A field is missing or of the wrong type; the message names it.",
        429: "The token has made too many requests.",
        502: "No model answered.",
        503: "PostgreSQL is not available, or too much waits; nothing was stored, or the message names the batch.",
    }
    return {status: {"model": ErrorBody, "description": said[status]} for status in statuses}


_ALWAYS = (400, 401, 403, 408, 413, 415, 422, 429, 503)
_CHANGING = (401, 403, 404, 408, 413, 415, 429, 503)
_SSE = {"text/event-stream": {"schema": {"type": "string"}}}

Most = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
Before = Annotated[
    str | None, Query(max_length=64, description="Only batches older than this one of the conversation.")
]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]


def make_app(service: Service, lifespan: Callable[[], AbstractAsyncContextManager[Any]]) -> FastAPI:
    """Make the application.

    Args:
        lifespan: opened while the application serves.
    """

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan():
            yield

    app = FastAPI(
        title="aitask", version="1", lifespan=living, docs_url=None, redoc_url=None,
        description="One question to several AI models at once, durably.",
    )  # fmt: skip
    _add_completions(app, service)
    _add_batches(app, service)
    _add_conversations(app, service)
    _add_health(app, service)
    _add_errors(app)
    settings = service.settings
    most = settings.max_prompt_bytes + settings.context_bytes + _BODY_SPARE
    app.add_middleware(
        Guard, tokens=settings.gateway_tokens, most_bytes=most, origins=settings.gateway_origins,
        body_s=settings.gateway_body_s, per_minute=settings.gateway_rate,
    )  # fmt: skip
    app.openapi = lambda: document(app, needed=bool(settings.gateway_tokens))  # type: ignore[method-assign]
    if settings.gateway_origins:
        # Around the guard: a browser's question whether it may ask carries no token.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.gateway_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
        )
    return app


def _add_completions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/chat/completions",
        response_model=Dispatched | Completion,
        responses={**_documented(*_ALWAYS, 404, 409, 502), 200: {"content": _SSE}},
        summary="Ask one or more models",
    )
    async def complete(http: Request, idempotency_key: Key = None) -> Any:
        """With `prompt`: store the batch and return its ids at once. With `messages`: answer as OpenAI's API does."""
        body = await service.bodies.read(http)
        if not isinstance(body, ChatRequest):
            made = await service.submit(
                body.prompt, body.model, key=idempotency_key, conversation_id=body.conversation_id, system=body.system
            )
            return Dispatched(
                batch_id=made.batch_id, conversation_id=made.conversation_id, task_ids=list(made.task_ids)
            )
        service.hub.admit()
        if body.stream:
            made = await chat.submitted(service, body, idempotency_key)
            return StreamingResponse(
                chat.stream(service, body, made), media_type="text/event-stream",
                headers={**_STREAM, "X-Aitask-Batch": made.batch_id},
            )  # fmt: skip
        found = await chat.completion(service, body, idempotency_key, http)
        return found if found is not None else Response(status_code=499)

    @app.get("/v1/models", responses=_documented(401, 403, 429), summary="The models that can be asked")
    async def models() -> Models:
        families = service.settings.families
        return Models(data=[Model(id=family.default_model, owned_by=family.name) for family in families])


def _add_batches(app: FastAPI, service: Service) -> None:
    @app.get("/v1/batches/{batch_id}", responses=_documented(401, 403, 429, 404, 503), summary="A batch as it stands")
    async def batch(batch_id: str) -> BatchResult:
        return BatchResult.of(await service.batch(batch_id))

    @app.get(
        "/v1/batches/{batch_id}/events",
        response_class=StreamingResponse,
        responses={
            **_documented(401, 403, 429, 404, 422, 503),
            200: {"content": _SSE},
            204: {"description": "All is told."},
        },
        summary="A batch's events, resumable by Last-Event-ID",
    )
    async def batch_events(
        batch_id: str, last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=8192)] = None
    ) -> Response:
        service.hub.admit()
        view = await service.batch(batch_id)
        cursor = Cursor(last_event_id)
        if last_event_id and told(view, cursor):
            # What tells a browser's EventSource not to come again.
            return Response(status_code=204)
        return StreamingResponse(events(service.hub, view, cursor), media_type="text/event-stream", headers=_STREAM)

    @app.post(
        "/v1/batches/{batch_id}/cancel",
        responses=_documented(*_CHANGING),
        summary="End its tasks",
    )
    async def cancel(batch_id: str) -> Changed:
        return Changed(batch_id=batch_id, task_ids=await service.cancel(batch_id))

    @app.post(
        "/v1/batches/{batch_id}/retry",
        responses=_documented(*_CHANGING),
        summary="Try failed tasks",
    )
    async def retry(batch_id: str) -> Changed:
        return Changed(batch_id=batch_id, task_ids=await service.retry(batch_id))

    @app.get("/v1/tasks/{task_id}", responses=_documented(401, 403, 429, 404, 503), summary="One model's share")
    async def task(task_id: str) -> TaskResult:
        return TaskResult.of(await service.task(task_id))


def _add_conversations(app: FastAPI, service: Service) -> None:
    @app.get("/v1/conversations", responses=_documented(401, 403, 429, 422, 503), summary="Conversations, newest first")
    async def conversations(limit: Most = 50) -> Conversations:
        return Conversations(
            conversations=[
                ConversationHead(
                    conversation_id=line.id, title=line.title, last_at=line.last_at.isoformat(), batches=line.batches
                )
                for line in await service.conversations(limit)
            ]
        )

    @app.get(
        "/v1/conversations/{conversation_id}/history",
        response_model_exclude_unset=True,
        responses=_documented(401, 403, 429, 404, 422, 503),
        summary="A conversation's batches, a page at a time",
    )
    async def history(conversation_id: str, limit: Most = 100, before: Before = None) -> History:
        """The newest page, or the one before a batch. A page ends before its texts are longer than 8 MiB together."""
        page = await service.history(conversation_id, most=limit, before=before)
        older = {"before": page.before} if page.before else {}
        found = [BatchResult.of(batch) for batch in page.batches]
        return History(conversation_id=conversation_id, history=found, **older)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Whether this process lives")
    async def health() -> Health:
        return Health()

    @app.get("/ready", responses={503: {"model": Ready}}, summary="Whether a submission would be worked on")
    async def ready(http: Request) -> Any:
        """Redis may be away: it costs time, not work. What was found is told to whoever shows a token."""
        found = await service.ready()
        known = http.scope["state"].get("aitask_who") is not None
        body = Ready(
            ready=all(ok for name, (ok, _) in found.items() if name != "redis"),
            checks={
                name: Check(ok=ok, found=said if known else "is fine" if ok else "is not there")
                for name, (ok, said) in found.items()
            },
        )
        return JSONResponse(body.model_dump(), 200 if body.ready else 503)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(NotServed)
    async def not_served(request: Request, error: Exception) -> Response:
        assert isinstance(error, NotServed)
        kind, code = "invalid_request_error", "unsupported_parameter"
        return _error(400, str(error), kind, param=error.name, code=code)

    @app.exception_handler(AitaskError)
    async def expected(request: Request, error: Exception) -> Response:
        status, kind = next((s, k) for cls, s, k in _STATUSES if isinstance(error, cls))
        return _error(status, str(error), kind, code="model_not_found" if isinstance(error, UnknownModel) else None)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Exception) -> Response:
        return _error(503, str(error), "server_error", headers={"Retry-After": "1"})

    @app.exception_handler(AllFailed)
    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, AllFailed)
        # The queue has retried already: a client that tries again would only ask twice.
        headers = {"x-should-retry": "false", "X-Aitask-Batch": error.batch_id}
        said = error.task.error_msg or "no model answered"
        return _error(502, said, "upstream_error", code=error.task.error_kind, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if part not in ("chat", "dispatch")) or "body"
        # Never the input itself: it may be a prompt.
        return _error(422, f"{where}: {first['msg']}", "invalid_request_error", param=where)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, str(error.detail), "invalid_request_error", headers=error.headers)


_STATUSES: tuple[tuple[type[AitaskError], int, str], ...] = (
    (UnknownModel, 404, "invalid_request_error"),
    (Conflict, 409, "invalid_request_error"),
    (UsageFault, 400, "invalid_request_error"),
    (NotFound, 404, "not_found_error"),
    (Unavailable, 503, "server_error"),
    (AitaskError, 503, "server_error"),
)


def _error(
    status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers=headers)
