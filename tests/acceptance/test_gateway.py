"""The gateway as other programs see it: the installed command, a worker, and real clients over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from shared.domain import TaskStatus
from tests.acceptance.over_http import Gateway, chat, events, free_port, running
from tests.stand import Stand, altered, wait_for

README = Path(__file__).parents[2] / "README.md"


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


def test_history_is_read_in_pages_by_number_and_by_bytes(gateway: Gateway, stand: Stand) -> None:
    first = gateway.ask("POST", "/v1/chat/completions", {"prompt": "p0", "model": "qwen"})[1]
    told = [first["batch_id"]]
    for number in range(1, 5):
        more = {"prompt": f"p{number}", "model": "qwen", "conversation_id": first["conversation_id"]}
        told.append(gateway.ask("POST", "/v1/chat/completions", more)[1]["batch_id"])
    # Two answers are too long for one page, one is too long for any.
    for batch, mib in ((told[1], 5), (told[2], 5), (told[3], 9)):
        stand.query(
            "UPDATE task SET status = 1, response_text = repeat('x', %s) WHERE batch_id = %s RETURNING 1",
            mib << 20,
            batch,
        )
    path = f"/v1/conversations/{first['conversation_id']}/history"
    assert _pages(gateway, path) == [[told[4]], [told[3]], [told[2]], told[:2]]
    assert _pages(gateway, f"{path}?limit=1") == [[batch] for batch in reversed(told)]
    other = gateway.ask("POST", "/v1/chat/completions", {"prompt": "x", "model": "qwen"})[1]
    for before in (other["batch_id"], "x"):
        assert gateway.ask("GET", f"{path}?before={before}")[0] == 404
    assert gateway.ask("GET", f"{path}?before={told[0]}")[1]["history"] == []


def _pages(gateway: Gateway, path: str) -> list[list[str]]:
    found, before = [], ""
    while True:
        status, page = gateway.ask("GET", path + (f"{'&' if '?' in path else '?'}before={before}" if before else ""))
        assert status == 200, page
        found.append([batch["batch_id"] for batch in page["history"]])
        before = page.get("before")
        if before is None:
            return found


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
    assert {model.id for model in client.models.list()} >= {"gemini-3.5-flash-lite"}
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
    assert [choice.model for choice in three.choices] == ["qwen2.5", "gemini-3.5-flash-lite", "deepseek-flash"]  # type: ignore[attr-defined]
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
    besides = {"top_k": 4, "chat_template_kwargs": {"enable_thinking": False}}
    body = chat("qwen", max_completion_tokens=7, stop='["END"]', **besides, extra_body={"repeat_penalty": 1.5})
    body["messages"] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert gateway.ask("POST", "/v1/chat/completions", body)[0] == 200
    sent = stand.upstream.simulator.seen[-1]["body"]
    assert sent["messages"] == body["messages"]
    assert (sent["max_tokens"], sent["stop"]) == (7, ['["END"]'])
    assert {**besides, "repeat_penalty": 1.5}.items() <= sent.items()
    status, said = gateway.ask("POST", "/v1/chat/completions", chat("qwen", extra_body={"messages": []}))
    assert (status, "messages is no model option" in str(said)) == (400, True)


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
