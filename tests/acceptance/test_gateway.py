"""The gateway as other programs see it: the installed command, a worker, and real clients over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from shared.domain import TaskStatus
from tests.stand import COMMAND, Stand, altered, wait_for

README = Path(__file__).parents[2] / "README.md"
JSON = {"Content-Type": "application/json"}


@dataclass
class Gateway:
    """A gateway as a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, timeout_s: float = 90
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {**JSON, **(headers or {})})
        reply = connection.getresponse()
        raw = reply.read()
        connection.close()
        return reply.status, json.loads(raw) if raw else None

    def stop(self) -> str:
        """Stop it, and return what it has said."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        return self.log.read_text()


@contextmanager
def running(stand: Stand, *arguments: str, port: int = 0, **env: str) -> Iterator[Gateway]:
    port = port or free_port()
    log = stand.home / f"gateway-{port}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(COMMAND), "gateway", "--port", str(port), *arguments], env={**stand.env, **env}, cwd=stand.home,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    gateway = Gateway(process, port, log)
    try:
        wait_for(lambda: process.poll() is not None or alive(gateway), what="the gateway")
        yield gateway
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(30)


def alive(gateway: Gateway) -> bool:
    try:
        return gateway.ask("GET", "/health")[0] == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def gateway(stand: Stand) -> Iterator[Gateway]:
    stand.start_worker()
    with running(stand) as made:
        yield made


def chat(*models: str, **more: Any) -> dict[str, Any]:
    return {"model": ",".join(models), "messages": [{"role": "user", "content": "hello"}], **more}


def events(gateway: Gateway, path: str, last: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """Yield (event, id, data) of an event stream."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=90)
    connection.request("GET", path, headers={"Last-Event-ID": last} if last else {})
    reply = connection.getresponse()
    assert reply.status == 200, reply.status
    found: dict[str, str] = {}
    while line := reply.readline():
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            found[name] = value
        elif "data" in found:
            yield found["event"], found["id"], json.loads(found["data"])
            found = {}
    connection.close()


def test_the_known_api_has_its_shapes(gateway: Gateway) -> None:
    status, made = gateway.ask(
        "POST", "/v1/chat/completions",
        {"prompt": "hello", "model": "gemini-2.5-flash, deepseek-r1:1.5b", "conversation_id": None},
    )  # fmt: skip
    assert status == 200
    assert set(made) == {"batch_id", "conversation_id", "message", "task_ids"}
    assert made["message"] == "Tasks dispatched successfully"
    assert len(made["task_ids"]) == 2

    def finished() -> Any:
        found = gateway.ask("GET", f"/v1/batches/{made['batch_id']}")[1]
        return found if found["status"] != "PROCESSING" else None

    batch = wait_for(finished, what="the batch's end")
    assert batch["status"] == "COMPLETED"
    assert [r["model_name"] for r in batch["results"]] == ["gemini-2.5-flash", "deepseek-r1:1.5b"]
    assert all(r["status"] == 1 and "imulated" in r["response_text"] and r["cost_time"] > 0 for r in batch["results"])
    assert gateway.ask("GET", f"/v1/tasks/{made['task_ids'][1]}")[1]["model_name"] == "deepseek-r1:1.5b"
    _, again = gateway.ask(
        "POST", "/v1/chat/completions",
        {"prompt": "and then?", "model": "gemini", "conversation_id": made["conversation_id"]},
    )  # fmt: skip
    assert again["conversation_id"] == made["conversation_id"]
    _, history = gateway.ask("GET", f"/v1/conversations/{made['conversation_id']}/history")
    assert [batch["user_prompt"] for batch in history["history"]] == ["hello", "and then?"]
    assert gateway.ask("GET", "/v1/conversations")[1]["conversations"][0]["batches"] == 2


def test_a_batch_is_cancelled_and_retried(gateway: Gateway, stand: Stand) -> None:
    made = gateway.ask("POST", "/v1/chat/completions", {"prompt": "x", "model": "qwen+latency=2"})[1]
    path = f"/v1/batches/{made['batch_id']}"
    assert gateway.ask("POST", f"{path}/cancel")[1]["task_ids"] == made["task_ids"]
    assert gateway.ask("POST", f"{path}/cancel")[1]["task_ids"] == []
    assert gateway.ask("POST", f"{path}/retry")[1]["task_ids"] == made["task_ids"]
    assert stand.finished(made["batch_id"]).tasks[0].status is TaskStatus.SUCCESS


def test_an_idempotency_key_gives_the_first_batch_again(gateway: Gateway) -> None:
    body, key = {"prompt": "hello", "model": "qwen"}, {"Idempotency-Key": "one"}
    first = gateway.ask("POST", "/v1/chat/completions", body, headers=key)[1]
    assert gateway.ask("POST", "/v1/chat/completions", body, headers=key)[1] == first
    status, said = gateway.ask("POST", "/v1/chat/completions", {**body, "prompt": "other"}, headers=key)
    assert (status, "idempotency key" in said["error"]["message"]) == (409, True)


def test_events_tell_states_and_text_and_resume_where_they_were(gateway: Gateway) -> None:
    made = gateway.ask("POST", "/v1/chat/completions", {"prompt": "x", "model": "qwen+tps=60+tokens=90,gemini"})[1]
    path = f"/v1/batches/{made['batch_id']}/events"
    seen = []
    for event in events(gateway, path):
        seen.append(event)
        if sum(kind == "text" for kind, _, _ in seen) == 3:
            break
    rest = list(events(gateway, path, last=seen[-1][1]))
    every = seen + rest
    assert every[-1][0] == "done"
    assert every[-1][2]["status"] == "COMPLETED"
    slow = made["task_ids"][0]
    text = "".join(said["text"] for kind, _, said in every if kind == "text" and said["task_id"] == slow)
    final = next(said for kind, _, said in every if kind == "state" and said["task_id"] == slow and said["status"] == 1)
    assert final["response_text"].startswith(text)
    assert len(text) > 100
    # Whoever has been told all is told no more.
    assert gateway.ask("GET", path, headers={"Last-Event-ID": every[-1][1]}) == (204, None)
    replayed = list(events(gateway, path))
    assert [said["status"] for kind, _, said in replayed if kind == "state"] == [1, 1]


def test_openai_s_client_plain_and_streaming_one_model_and_three(gateway: Gateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
    assert {model.id for model in client.models.list()} >= {"gemini-2.5-flash"}
    messages: Any = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "how?"},
    ]
    one = client.chat.completions.create(model="qwen2.5", messages=messages, temperature=0.1)
    assert "imulated" in (one.choices[0].message.content or "")
    assert one.choices[0].finish_reason == "stop"
    assert one.usage is not None
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens > 0
    three = client.chat.completions.create(model="qwen,gemini,deepseek", messages=messages)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert [choice.model for choice in three.choices] == ["qwen2.5", "gemini-2.5-flash", "deepseek-reasoner"]  # type: ignore[attr-defined]
    said: dict[int, str] = {}
    usage = None
    for chunk in client.chat.completions.create(
        model="qwen,gemini,deepseek", messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
    assert said == {choice.index: choice.message.content for choice in three.choices}
    assert usage is not None
    assert usage.completion_tokens > 0


def test_openai_s_asynchronous_client(gateway: Gateway) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="unused") as client:
            messages: Any = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
            whole = await client.chat.completions.create(model="gemini", messages=messages)
            parts = await client.chat.completions.create(model="gemini", messages=messages, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in parts])
            return whole.choices[0].message.content or "", text

    whole, streamed = asyncio.run(ask())
    assert whole == streamed != ""


def test_what_a_client_sends_reaches_the_model(gateway: Gateway, stand: Stand) -> None:
    body = chat("qwen", max_completion_tokens=7, stop=["END"])
    body["messages"] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert gateway.ask("POST", "/v1/chat/completions", body)[0] == 200
    sent = stand.upstream.simulator.seen[-1]["body"]
    assert sent["messages"] == body["messages"]
    assert (sent["max_tokens"], sent["stop"]) == (7, ["END"])


def test_no_answer_at_all_is_openai_s_error_and_is_not_tried_again(gateway: Gateway, stand: Stand) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="qwen+401", messages=[{"role": "user", "content": "hello"}])
    assert caught.value.status_code == 502
    assert caught.value.code == "http_401"
    assert stand.upstream.calls == 1
    some = client.chat.completions.create(model="qwen+401,gemini", messages=[{"role": "user", "content": "hello"}])
    assert [choice.finish_reason for choice in some.choices] == ["error", "stop"]
    assert some.choices[0].message.refusal == "HTTP 401: wrong API key (simulated)"


def test_a_client_that_hangs_up_gets_its_answer_under_the_same_key(gateway: Gateway, stand: Stand) -> None:
    body, key = chat("qwen+latency=3"), {"Idempotency-Key": "hangs up"}
    with pytest.raises(TimeoutError):
        gateway.ask("POST", "/v1/chat/completions", body, headers=key, timeout_s=1)
    status, said = gateway.ask("POST", "/v1/chat/completions", body, headers=key)
    assert status == 200
    assert "imulated" in said["choices"][0]["message"]["content"]
    assert stand.upstream.calls == 1


def deep(depth: int) -> bytes:
    return b'{"prompt": "x", "model": ' + b"[" * depth + b"]" * depth + b"}"


BAD: dict[str, tuple[Any, int, str]] = {
    "no model": ({"prompt": "x"}, 422, "model"),
    "no prompt": ({"model": "qwen"}, 422, "prompt"),
    "a wrong type": ({"prompt": ["x"], "model": "qwen"}, 422, "prompt"),
    "a wrong type in a message": ({"model": "qwen", "messages": [{"role": "user", "content": 1}]}, 422, "messages.0"),
    "an empty prompt": ({"prompt": " ", "model": "qwen"}, 400, "prompt"),
    "an unknown model": ({"prompt": "x", "model": "nobody"}, 404, "nobody"),
    "an unknown conversation": ({"prompt": "x", "model": "qwen", "conversation_id": "0" * 32}, 404, "conversation"),
    "no user at the end": ({"model": "qwen", "messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
    "only a system message": ({"model": "qwen", "messages": [{"role": "system", "content": "x"}]}, 400, "messages"),
    "no messages": ({"model": "qwen", "messages": []}, 422, "messages"),
    "an option out of bounds": (chat("qwen", temperature=9), 400, "temperature"),
    "tools": (chat("qwen", tools=[{"type": "function"}]), 422, "tools"),
    "two choices": (chat("qwen", n=2), 422, "n:"),
    "not JSON": (b"{", 422, "JSON"),
    "a list": ([], 422, "body"),
    "invalid UTF-8": (b'{"prompt": "\xff\xfe", "model": "qwen"}', 400, "body"),
    "a NUL": ({"prompt": "a\0b", "model": "qwen"}, 400, "NUL"),
    "half a character": (b'{"prompt": "\\ud800", "model": "qwen"}', 422, "prompt"),
    "10 MB": (b'{"prompt": "' + b"x" * 10_000_000 + b'", "model": "qwen"}', 413, "longer than"),
    "10,000 deep": (deep(10_000), 400, "body"),
    "900 deep": (deep(900), 422, "model"),
}


def test_bad_input_names_the_field_and_writes_nothing(gateway: Gateway, stand: Stand) -> None:
    for name, (body, status, named) in BAD.items():
        found, said = gateway.ask("POST", "/v1/chat/completions", body)
        assert (found, name) == (status, name), said
        assert named in said["error"]["message"], (name, said)
        assert set(said["error"]) == {"message", "type", "param", "code"}
    for path in ("/v1/batches/x", f"/v1/batches/{'0' * 8}-0000-4000-8000-{'0' * 12}", "/v1/tasks/1", "/v1/nothing"):
        assert gateway.ask("GET", path)[0] == 404
    assert stand.query("SELECT count(*) FROM batch") == [(0,)]


def test_another_address_needs_tokens_and_tokens_are_asked_for(stand: Stand) -> None:
    refused = stand.aitask("gateway", "--host", "0.0.0.0", "--port", str(free_port()))
    assert (refused.code, "AITASK_GATEWAY_TOKENS" in refused.err) == (2, True)
    secret = "s3cret-of-sixteen-or-more"
    with running(stand, AITASK_GATEWAY_TOKENS=f"alice:{secret}") as gateway:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {secret}"}):
            status, said = gateway.ask("GET", "/v1/models", headers=given)
            assert (status, said["error"]["type"]) == (401, "authentication_error")
        assert gateway.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {secret}"})[0] == 200
        body = {"prompt": "a secret prompt", "model": "qwen"}
        gateway.ask("POST", "/v1/chat/completions", body, headers={"Authorization": f"Bearer {secret}"})
        gateway.ask("POST", "/v1/chat/completions", {"prompt": ["a secret prompt"]}, headers={"Host": "elsewhere"})
        said = gateway.stop()
    assert "alice" in said
    assert "a secret prompt" not in said
    assert secret not in said


def test_without_tokens_no_foreign_host_name_is_served(gateway: Gateway) -> None:
    assert gateway.ask("GET", "/v1/models", headers={"Host": "evil.example"})[0] == 403
    assert gateway.ask("GET", "/v1/models", headers={"Host": f"localhost:{gateway.port}"})[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    connection.request("GET", "/v1/models", headers={"Origin": "https://evil.example"})
    assert connection.getresponse().headers["Access-Control-Allow-Origin"] is None


def test_a_page_of_a_named_origin_may_ask_and_needs_its_token(stand: Stand) -> None:
    tokens = {"AITASK_GATEWAY_TOKENS": "page:0123456789abcdef", "AITASK_GATEWAY_ORIGINS": "https://good.example"}
    with running(stand, **tokens) as gateway:
        for origin, allowed in (("https://good.example", "https://good.example"), ("https://evil.example", None)):
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            connection.request("OPTIONS", "/v1/chat/completions", headers=headers)
            assert connection.getresponse().headers["Access-Control-Allow-Origin"] == allowed
            assert gateway.ask("GET", "/v1/models", headers={"Origin": origin})[0] == 401


def test_ready_says_what_is_missing(stand: Stand) -> None:
    with running(stand) as gateway:
        status, said = gateway.ask("GET", "/ready")
        assert (status, said["checks"]["workers"]["ok"], said["checks"]["database"]["ok"]) == (503, False, True)
        stand.start_worker()
        status, said = gateway.ask("GET", "/ready")
        assert (status, said["ready"]) == (200, True)
        gateway.process.terminate()
        assert gateway.process.wait(30) == 0


def test_a_killed_gateway_loses_no_accepted_batch_and_watchers_resume(stand: Stand) -> None:
    stand.start_worker()
    port, accepted = free_port(), []
    seen: list[tuple[str, str, Any]] = []
    with running(stand, port=port) as first:
        made = first.ask("POST", "/v1/chat/completions", {"prompt": "x", "model": "qwen+tps=40+tokens=120"})[1]
        path = f"/v1/batches/{made['batch_id']}/events"
        submitting = threading.Thread(target=submit_until_cut, args=(first, accepted))
        submitting.start()
        for event in events(first, path):
            seen.append(event)
            if sum(kind == "text" for kind, _, _ in seen) == 5:
                break
        wait_for(lambda: len(accepted) > 5, what="accepted batches")
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(30)
        submitting.join()
    with running(stand, port=port) as second:
        rest = list(events(second, path, last=seen[-1][1]))
        for batch_id in accepted:
            assert second.ask("GET", f"/v1/batches/{batch_id}")[0] == 200
            assert stand.finished(batch_id).tasks[0].status is TaskStatus.SUCCESS
    text = "".join(said["text"] for kind, _, said in seen + rest if kind == "text")
    final = next(said["response_text"] for kind, _, said in rest if kind == "state" and said["status"] == 1)
    assert final.startswith(text)
    assert rest[-1][0] == "done"


def submit_until_cut(gateway: Gateway, accepted: list[str]) -> None:
    for number in range(2000):
        try:
            status, said = gateway.ask("POST", "/v1/chat/completions", {"prompt": f"p{number}", "model": "gemini"})
        except (OSError, http.client.HTTPException, ValueError):
            return
        if status == 200:
            accepted.append(said["batch_id"])
        time.sleep(0.02)


@pytest.fixture
def document(gateway: Gateway) -> Any:
    status, found = gateway.ask("GET", "/openapi.json")
    assert status == 200
    return found


def test_no_request_makes_an_error_500_or_an_undocumented_answer(
    gateway: Gateway, document: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """schemathesis makes requests from the document, good and bad, and holds every answer against it."""
    command = [
        str(COMMAND.with_name("schemathesis")), "run", f"{gateway.url}/openapi.json", "--max-examples", "6",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--request-timeout", "20", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--max-time", "12",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert {"/v1/chat/completions", "/v1/batches/{batch_id}/events"} <= set(document["paths"])


def test_the_readme_s_examples_give_the_documented_shapes(gateway: Gateway, stand: Stand) -> None:
    text = README.read_text()
    names: dict[str, str] = {}
    shapes = []
    for line in re.findall(r"^curl .*$", text, re.M):
        command = line.replace("http://127.0.0.1:8000", gateway.url)
        done = subprocess.run(["sh", "-c", command], env={**os.environ, **names}, capture_output=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        if "/events" in line:
            assert b"event: done" in done.stdout
            continue
        said = json.loads(done.stdout)
        shapes.append(set(said))
        if "batch_id" in said and "task_ids" in said:
            names = {"BATCH": said["batch_id"], "CONVERSATION": said["conversation_id"]}
            stand.finished(said["batch_id"])
    assert shapes == [
        {"batch_id", "conversation_id", "message", "task_ids"},
        {"batch_id", "conversation_id", "status", "user_prompt", "created_at", "results"},
        {"conversation_id", "history"},
        {"id", "object", "created", "model", "choices", "usage"},
    ]


HIDDEN = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "fastapi" else real(name, *more)
"""


def test_a_gateway_that_is_not_installed_says_so(stand: Stand, tmp_path: Path) -> None:
    found = stand.aitask("gateway", command=altered(tmp_path, HIDDEN))
    assert (found.code, "pip install 'aitask[gateway]'" in found.err) == (2, True)
