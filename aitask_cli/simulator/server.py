"""The simulator: an OpenAI-compatible server that answers by script, and counts what it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from aitask_cli.local.identity import identify
from aitask_cli.simulator.field import SHAPES
from aitask_cli.simulator.script import NASTY, Script, answer_text
from aitask_cli.simulator.shapes import Shape, send

HUGE_BYTES = 100_000_000
_BACKLOG = 8192
_FILES = 16_384
_KEEPALIVE_S = 0.2
_PROMPT_BYTES = 64 << 20
THOUGHT = "The user asks something. Simulated thinking weighs it and finds it simple."
MODELS = (
    "gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-2.5-flash", "gemini-2.5-pro", "deepseek-flash",
    "deepseek-r1:1.5b", "qwen2.5", "llama3.2:3b",
)  # fmt: skip


class Simulator:
    """One simulated upstream.

    Attributes:
        calls: how often each (model, prompt) was asked.
        seen: the requests of late, newest last, for tests: model, prompt, headers, monotonic time.
    """

    def __init__(self, script: Script, *, remember: int = 0) -> None:
        self.script = script
        self.calls: Counter[tuple[str, str]] = Counter()
        self._free_at: dict[str, float] = {}
        self.open_now = 0
        self.open_most = 0
        self.last_at = 0.0
        self.seen: list[dict[str, Any]] = []
        self.down = False
        self._remember = remember

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_PROMPT_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "pid": os.getpid(),
                "simulated": True,
                "calls": sum(self.calls.values()),
                "distinct": len(self.calls),
                "open_now": self.open_now,
                "open_most": self.open_most,
                "last_at": self.last_at,
            }
        )

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "owned_by": "simulator"} for name in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = json.loads(await request.read())
            model, messages = str(asked["model"]), asked["messages"]
            prompt = str(messages[-1]["content"])
        except (ValueError, KeyError, IndexError, TypeError):
            return _error(400, "the request needs `model` and `messages`")
        self.calls[model, prompt] += 1
        self.last_at = time.monotonic()
        if self._remember:
            seen = {
                "model": model,
                "prompt": prompt,
                "headers": {k.lower(): v for k, v in request.headers.items()},
                "at": time.monotonic(),
                "body": asked,
            }
            self.seen = [*self.seen[-self._remember + 1 :], seen]
        script = self.script.with_suffixes(model)
        if script.times is not None and self.calls[model, prompt] > script.times:
            script = replace(script, fault=None)
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            return await self._answer(request, asked, script, model, prompt)
        finally:
            self.open_now -= 1

    async def _answer(
        self, request: web.Request, asked: dict[str, Any], script: Script, model: str, prompt: str
    ) -> web.StreamResponse:
        if self.down or script.fault == "close":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if script.every_s and (left_s := self._left(model, script.every_s)) > 0:
            return _slow_down(script.fault or "429", left_s)
        if script.fault in SHAPES:
            return await _shaped(request, SHAPES[script.fault], stream=bool(asked.get("stream")))
        if script.fault == "nostream" and asked.get("stream"):
            return _error(400, "stream is not supported by this model")
        refused = _refusal(script)
        if refused is not None:
            return refused
        if script.latency_s:
            await asyncio.sleep(script.latency_s)
        if script.fault == "hang":
            await asyncio.sleep(86_400)
        if script.fault == "huge":
            return await _huge(request)
        text = _text(script, model, prompt)
        if asked.get("stream"):
            return await self._stream(request, asked, script, model, text)
        return await _plain(script, model, prompt, text)

    def _left(self, model: str, every_s: float) -> float:
        """How long a model still takes no call, in seconds; 0: it takes this one."""
        now = time.monotonic()
        left_s = max(0.0, self._free_at.get(model, 0.0) - now)
        if not left_s:
            self._free_at[model] = now + every_s
        return left_s

    async def _stream(
        self, request: web.Request, asked: dict[str, Any], script: Script, model: str, text: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        while script.fault == "keepalive":
            await response.write(b": still here\n\n")
            await asyncio.sleep(_KEEPALIVE_S)
        chunks = _chunks(script, model, text, usage=bool(asked.get("stream_options")))
        if script.tokens_per_s > 0:
            async for chunk in _paced(chunks, 1 / script.tokens_per_s):
                await response.write(chunk)
        else:
            await response.write(b"".join(chunks))
        if script.fault == "truncated" and request.transport is not None:
            request.transport.abort()
            return response
        await response.write_eof()
        return response


async def _shaped(request: web.Request, shape: Shape, *, stream: bool) -> web.Response:
    """Send an answer byte for byte, past aiohttp, and end the connection."""
    transport = request.transport
    if transport is not None:
        await send(shape, transport.write, asyncio.sleep, stream=stream)
        transport.close()
    return web.Response(status=500)


def _slow_down(fault: str, left_s: float) -> web.Response:
    if fault == "429bare":
        return _error(429, "too many requests")
    if fault == "429body":
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{left_s:.3f}s"}]
        said = {"code": 429, "message": "slow down (simulated)", "status": "RESOURCE_EXHAUSTED", "details": details}
        return web.json_response({"error": said}, status=429)
    return _error(429, "slow down", {"Retry-After": f"{round(left_s, 3):g}"})


def _refusal(script: Script) -> web.Response | None:
    """The answers that are errors from the first byte."""
    if script.fault in ("429", "429body", "429bare") and not script.every_s:
        return _slow_down(script.fault, script.retry_after_s)
    statuses = {"500": "simulated crash", "503": "simulated overload", "400": "bad request", "401": "wrong API key"}
    if script.fault in statuses:
        return _error(int(script.fault), statuses[script.fault])
    if script.fault == "context":
        return _error(400, "This model's maximum context length is 8192 tokens")
    if script.fault == "html":
        page = "<html><head><title>502 Bad Gateway</title></head><body>oops</body></html>"
        return web.Response(text=page, content_type="text/html")
    if script.fault == "badjson":
        return web.Response(text='{"choices": [{"message": {"content": "bro', content_type="application/json")
    if script.fault == "empty":
        return web.Response(text="", content_type="application/json")
    if script.fault == "error200":
        return web.json_response({"error": {"message": "the model is overloaded", "type": "overloaded_error"}})
    if script.fault == "redirect":
        return web.Response(status=307, headers={"Location": "http://127.0.0.2:9/v1/chat/completions"})
    return None


def _text(script: Script, model: str, prompt: str) -> str:
    text = answer_text(model, prompt, script.tokens)
    if script.fault == "refusal":
        return "I'm just a language model, so I can't help you with that. (Simulated.)"
    if script.fault == "nasty":
        return NASTY + text
    if script.fault == "think":
        return f"<think>\n{THOUGHT}\n</think>\n\n{text}"
    if script.fault == "unclosed":
        return f"<think>\n{THOUGHT}"
    return text


async def _plain(script: Script, model: str, prompt: str, text: str) -> web.Response:
    if script.tokens_per_s > 0:
        await asyncio.sleep(script.tokens / script.tokens_per_s)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if script.fault == "reasoning":
        message["reasoning_content"] = THOUGHT
    if script.fault == "nochoices":
        message = {"role": "assistant", "content": None}
    if script.fault == "tools":
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    count = len(text.split(" "))
    body = {
        "id": "simulated",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": count, "total_tokens": 0},
    }
    if script.fault == "utf16":
        data = json.dumps(body, ensure_ascii=False).encode("utf-16")
        return web.Response(body=data, headers={"Content-Type": "application/json; charset=utf-16"})
    if script.fault == "truncated":
        return web.Response(body=json.dumps(body).encode()[:40], content_type="application/json")
    return web.json_response(body)


def _chunks(script: Script, model: str, text: str, *, usage: bool) -> list[bytes]:
    head = {"id": "simulated", "object": "chat.completion.chunk", "model": model}

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    if script.fault == "tools":
        return [event({"tool_calls": [{"index": 0, "id": "1", "type": "function"}]}), event({}, "tool_calls"), _DONE]
    if script.fault == "nochoices":
        return [_data({**head, "choices": []}), event({}, "stop"), _DONE]
    chunks = [event({"role": "assistant", "content": ""})]
    if script.fault == "reasoning":
        chunks += [event({"reasoning_content": word}) for word in _words(THOUGHT)]
    words = _words(text)
    if script.fault == "truncated":
        return chunks + [event({"content": word}) for word in words[: len(words) // 2]]
    chunks += [event({"content": word}) for word in words]
    chunks.append(event({}, "stop"))
    if usage:
        chunks.append(_data({**head, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(words)}}))
    return [*chunks, _DONE]


_DONE = b"data: [DONE]\n\n"


def _data(said: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(said, ensure_ascii=False)}\n\n".encode()


def _words(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


async def _paced(chunks: list[bytes], every_s: float) -> AsyncIterator[bytes]:
    """Chunks at their pace, measured from the start so that sleeping late does not add up."""
    began = time.monotonic()
    for number, chunk in enumerate(chunks):
        ahead = began + number * every_s - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        yield chunk


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    block = b" " * 65536
    for _ in range(HUGE_BYTES // len(block)):
        await response.write(block)
    await response.write_eof()
    return response


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"message": f"{message} (simulated)", "type": "simulated_error", "code": status}}
    return web.json_response(body, status=status, headers=headers)


async def start(simulator: Simulator, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start serving. Returns the runner, to clean up, and the port.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(simulator.application(), access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    return runner, int(runner.addresses[0][1])


def serve(script: Script, *, host: str, port: int, ready: Callable[[int], None], ready_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        ready: told the port.
        ready_file: written with pid and port once requests are taken.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    asyncio.run(_serve(script, host, port, ready, ready_file))


async def _serve(script: Script, host: str, port: int, ready: Callable[[int], None], ready_file: Path | None) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    runner, bound = await start(Simulator(script), host, port)
    if ready_file is not None:
        fresh = ready_file.with_suffix(".new")
        itself = identify(os.getpid())
        fresh.write_text(json.dumps({**(itself.noted() if itself else {}), "port": bound}))
        fresh.replace(ready_file)
    ready(bound)
    await stop.wait()
    await runner.cleanup()
