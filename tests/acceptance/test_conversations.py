"""Conversations, sign-in pauses, the system log and the operator's views, through the installed command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from shared.context import context_for
from shared.domain import TaskStatus
from shared.store import syslog
from shared.store.conversations import Turn
from tests.stand import Stand, wait_for
from workers.families.generic import merged


def messages(stand: Stand, number: int) -> list[tuple[str, str]]:
    body = stand.upstream.simulator.seen[number]["body"]
    return [(m["role"], m["content"][:12]) for m in body["messages"]]


def test_a_conversation_goes_on_with_each_model_s_own_answers(stand: Stand) -> None:
    stand.start_worker()
    assert stand.aitask("ask", "first", "-m", "qwen,gemini", "-s", "be brief").code == 0
    assert stand.aitask("ask", "second", "-c").code == 0
    assert len(stand.upstream.simulator.seen) == 4
    for seen in stand.upstream.simulator.seen[2:]:
        said = seen["body"]["messages"]
        assert [m["role"] for m in said] == ["system", "user", "assistant", "user"]
        assert said[1]["content"] == "first"
        assert f"`{seen['body']['model']}`" in said[2]["content"], "its own answer, not another's"
        assert said[3]["content"] == "second"
    listed = json.loads(stand.aitask("conv", "ls", "--json").out)["conversations"]
    assert [(line["title"], line["batches"]) for line in listed] == [("first", 2)]
    shown = stand.aitask("conv", "show")
    assert shown.out.index("> first") < shown.out.index("> second")


def test_an_unfinished_answer_is_left_out_and_said_and_a_given_conversation_found(stand: Stand) -> None:
    stand.aitask("ask", "first", "-m", "qwen", "-d")
    conversation = json.loads(stand.aitask("conv", "ls", "--json").out)["conversations"][0]["id"]
    stand.aitask("ask", "elsewhere", "-m", "qwen", "-d")
    found = stand.aitask("ask", "second", "--cid", conversation[:10], "-m", "qwen", "-d")
    assert found.code == 0
    assert "left out" in found.err
    [context] = [row[0] for row in stand.query("SELECT context FROM task WHERE context IS NOT NULL")]
    assert context == [{"role": "user", "content": "first"}]
    assert stand.aitask("ask", "x", "-m", "qwen", "--cid", "abc").code == 1
    assert stand.aitask("ask", "x", "-m", "qwen", "--cid", "not!").code == 2


def test_the_newest_turns_within_the_budget_are_told_and_only_to_who_was_asked() -> None:
    turns = [Turn(f"p{n}", None, {"a": f"answer {n}", **({"b": "other"} if n == 1 else {})}, ()) for n in range(4)]
    told = context_for("a", turns, most_bytes=25)
    assert [m["content"] for m in told] == ["p2", "answer 2", "p3", "answer 3"]
    assert [m["content"] for m in context_for("b", turns, most_bytes=1000)] == ["p1", "other"]
    assert context_for("c", turns, most_bytes=1000) == ()


def test_two_prompts_in_a_row_are_joined_for_endpoints_that_refuse_them() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    assert merged(said) == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}]


class SignIn:
    """A keyless Gemini bridge whose Google sign-in can lapse."""

    def __init__(self) -> None:
        self.signed_in = True
        self.looks = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.looks += 1
                self.answer({"data": []})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer({"choices": [{"message": {"content": "from the bridge"}, "finish_reason": "stop"}]})

            def answer(self, body: object) -> None:
                data = json.dumps(body).encode()
                if outer.signed_in:
                    self.send_response(200)
                else:
                    self.send_response(302)
                    self.send_header("Location", "https://accounts.google.com/signin")
                    data = b""
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def bridge() -> Iterator[SignIn]:
    made = SignIn()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_an_expired_sign_in_pauses_the_family_and_a_renewed_one_resumes_it(stand: Stand, bridge: SignIn) -> None:
    stand.more |= {"GEMINI_SERVICE_URL": bridge.url, "GEMINI_KEEPALIVE_S": "0.3"}
    stand.start_worker()
    first = stand.submit("hello", "gemini")
    assert stand.finished(first.batch_id).tasks[0].response_text == "from the bridge"
    bridge.signed_in = False
    wait_for(lambda: stand.query("SELECT 1 FROM family_pause WHERE kind = 'signed_out'"), what="the pause")
    waiting = stand.submit("hello", "gemini", "qwen")
    wait_for(lambda: stand.batch(waiting.batch_id).tasks[1].status is TaskStatus.SUCCESS)
    assert "sign-in has expired" in stand.aitask("ps").err
    assert "sign-in has expired" in stand.aitask("doctor").out
    bridge.signed_in = True
    batch = stand.finished(waiting.batch_id)
    # A call that began before the worker saw the pause may have cost one try, and no more.
    assert batch.tasks[0].status is TaskStatus.SUCCESS
    assert batch.tasks[0].failures <= 1
    assert stand.query("SELECT count(*) FROM family_pause") == [(0,)]


def test_ps_and_models_say_who_works_and_what_is_served(stand: Stand) -> None:
    worker = stand.start_worker("qwen", "-c", "5")
    [row] = json.loads(stand.aitask("ps", "--json").out)["workers"]
    assert (row["pid"], row["families"], row["slots"]) == (worker.pid, ["qwen"], 5)
    assert row["id"].startswith("qwen-worker:")
    found = json.loads(stand.aitask("models", "--json", DEEPSEEK_SERVICE_URL="http://127.0.0.1:1").out)["families"]
    state = {family["name"]: family["reachable"] for family in found}
    assert state == {"gemini": True, "deepseek": False, "qwen": True}
    assert "qwen2.5" in str(found)


def test_errors_go_to_the_system_log_only_when_it_is_on(stand: Stand) -> None:
    stand.start_worker()
    stand.finished(stand.submit("hello", "qwen+400").batch_id)
    assert stand.query("SELECT count(*) FROM system_log") == [(0,)]
    stand.close()
    stand.start_worker(ENABLE_DB_LOG="true")
    task = stand.submit("hello again", "qwen+400")
    stand.finished(task.batch_id)
    wait_for(lambda: stand.query("SELECT 1 FROM system_log"), what="a record")
    found = stand.aitask("logs", "--traces")
    assert task.task_ids[0] in found.out
    assert "UpstreamError" in found.out


def test_a_storm_of_errors_cannot_fill_the_system_log(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "KEEP_ROWS", 50)
    with stand.db() as db:
        for _ in range(5):
            syslog.write(db, [syslog.Entry("error", "x", "m" * 100_000, "t" * 100_000) for _ in range(40)])
        kept = syslog.recent(db, 1000)
    assert len(kept) == 50
    assert max(len(line.message) for line in kept) == syslog.MESSAGE_CHARS


def test_logs_may_be_json(stand: Stand) -> None:
    worker = stand.start_worker("--log-format", "json")
    stand.finished(stand.submit("hello", "qwen+400").batch_id)
    worker.terminate()
    worker.wait(10)
    lines = [json.loads(line) for line in stand.logs().splitlines()]
    assert {"at", "level", "message"} <= set(lines[0])
    assert any(line.get("kind") == "http_400" and line["family"] == "qwen" for line in lines)
