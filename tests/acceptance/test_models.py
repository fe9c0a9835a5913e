"""The model asked and the question asked, through the installed command: whoever answers otherwise says so."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shared.domain import TaskStatus
from tests.stand import Stand


class Ollama:
    """Answers with what it is told to, and names the context of its running models."""

    def __init__(self) -> None:
        self.status = 200
        self.said: dict[str, Any] = {}
        self.tokens: int | None = 2048
        self.model = "small:latest"
        self.context: int | None = None
        self.asked: list[dict[str, Any]] = []
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/api/ps" and ollama.context:
                    self.reply(200, {"models": [{"name": ollama.model, "context_length": ollama.context}]})
                else:
                    self.reply(404, {})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                ollama.asked.append(asked)
                usage = {
                    "prompt_tokens": ollama.tokens,
                    "completion_tokens": 1,
                    "total_tokens": (ollama.tokens or 0) + 1,
                }
                choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
                answer = {"model": ollama.model, "choices": [choice], **({"usage": usage} if ollama.tokens else {})}
                self.reply(ollama.status, ollama.said or answer)

            def reply(self, status: int, said: Any) -> None:
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def ollama(stand: Stand) -> Iterator[Ollama]:
    made = Ollama()
    stand.more |= {"LLM_SERVICE_URL": made.url, "DEEPSEEK_SERVICE_URL": made.url}
    stand.start_worker()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_an_answer_to_part_of_the_question_says_so_everywhere(stand: Stand, ollama: Ollama) -> None:
    long = "word " * 10_000
    found = stand.aitask("ask", "-m", "qwen/small", stdin=long)
    assert (found.code, found.out) == (0, "yes\n")
    assert "cut question" in found.err
    assert "OLLAMA_CONTEXT_LENGTH" in found.err
    assert "(cut question" in stand.aitask("ask", "-m", "qwen/small,qwen/small:latest", stdin=long).out
    shown = json.loads(stand.aitask("show", "last", "--json").out)["batch"]["tasks"]
    assert [task["cut_question"] for task in shown] == [True, True]
    for command in (("show", "last"), ("watch", "last"), ("ask", "-m", "qwen/small", long)):
        assert stand.aitask(*command).code == 0
        assert stand.aitask(*command, "--strict").code == 3
    ollama.tokens = 10_000
    whole = stand.aitask("ask", "-m", "qwen/small", "--strict", stdin=long)
    assert (whole.code, "cut question" in whole.err) == (0, False)


def test_a_context_smaller_than_the_question_cuts_it_whatever_is_counted(stand: Stand, ollama: Ollama) -> None:
    ollama.tokens, ollama.context = None, 4096
    assert stand.aitask("ask", "-m", "qwen/small", "--strict", stdin="word " * 5000).code == 3
    assert stand.aitask("ask", "-m", "qwen/small", "--strict", stdin="word " * 1000).code == 0


def test_an_answer_of_another_model_says_so_and_one_of_an_alias_does_not(stand: Stand, ollama: Ollama) -> None:
    ollama.model = "large"
    found = stand.aitask("ask", "hello", "-m", "qwen/small,qwen/large")
    assert "## small (answered by large)" in found.out
    assert "## large\n" in found.out
    assert "small: answered by large" in found.err
    shown = json.loads(stand.aitask("show", "last", "--json").out)["batch"]["tasks"]
    assert [task["other_model"] for task in shown] == [True, False]


@pytest.mark.parametrize(
    ("status", "said", "model", "kind", "words"),
    [
        (404, {}, "deepseek-chat", "model_retired", "ask deepseek/deepseek-flash instead"),
        (400, {"error": {"message": "Model Not Exist"}}, "deepseek-chat", "model_retired", "deepseek-flash"),
        (404, {"error": {"message": "model 'small' not found"}}, "qwen/small", "unknown_model", "aitask models"),
        (404, {"error": {"message": "models/small is not found for v1"}}, "qwen/small", "unknown_model", "small"),
        (410, {"error": {"message": "The model has been retired"}}, "qwen/small", "model_retired", "retired"),
        (404, {"detail": "Not Found"}, "qwen/small", "http_404", "HTTP 404"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_there_takes_one_call_and_names_its_successor(
    stand: Stand, ollama: Ollama, status: int, said: dict[str, Any], model: str, kind: str, words: str
) -> None:
    ollama.status, ollama.said = status, said or {"error": {}}
    found = stand.aitask("ask", "hello", "-m", model)
    assert found.code == 5
    [task] = stand.finished(json.loads(stand.aitask("show", "last", "--json").out)["batch"]["id"]).tasks
    assert (task.status, task.error_kind, task.attempt) == (TaskStatus.FAILED, kind, 1)
    assert words in (task.error_msg or "")
    assert len([one for one in ollama.asked if "messages" in one]) == 1


def test_a_default_that_has_ended_is_named_with_the_line_to_change(stand: Stand, ollama: Ollama) -> None:
    change = 'set DEEPSEEK_DEFAULT_MODEL="deepseek-flash"'
    old = {"DEEPSEEK_DEFAULT_MODEL": "deepseek-reasoner"}
    ollama.model = "deepseek-reasoner"
    assert change in stand.aitask("ask", "hello", "-m", "deepseek", **old).err
    assert change in stand.aitask("doctor", **old).out
    assert change in stand.aitask("models", **old).err
    said = json.loads(stand.aitask("models", "--json", **old).out)["families"]
    assert [change in (family["ending"] or "") for family in said] == [False, True, False]
    assert change not in stand.aitask("ask", "hello", "-m", "deepseek").err


def test_an_end_that_is_near_is_said_by_those_who_look_and_not_by_those_who_ask(
    stand: Stand, ollama: Ollama, tmp_path: Path
) -> None:
    end = dt.datetime.now(dt.timezone.utc).date() + dt.timedelta(days=20)
    rows = [{"name": "small", "family": "qwen", "default": True, "retired": str(end), "successor": "smaller"}]
    (tmp_path / "models.json").write_text(json.dumps(rows))
    own = {"AITASK_MODELS_FILE": str(tmp_path / "models.json")}
    said, change = f"`qwen` means small, which is retired on {end}", 'set LLM_DEFAULT_MODEL="smaller"'
    assert f"{said}; {change}" in stand.aitask("doctor", **own).out
    assert f"{said}; {change}" in stand.aitask("models", **own).err
    asked = stand.aitask("ask", "hello", "-m", "qwen", **own)
    assert (asked.code, "retired" in asked.err) == (0, False)
    assert ollama.asked[-1]["model"] == "small"
    (tmp_path / "models.json").write_text('[{"name": "small"}]')
    bad = stand.aitask("ask", "hello", "-m", "qwen", **own)
    assert (bad.code, "row 1: it has no family" in bad.err) == (2, True)


def test_options_that_a_model_ignores_are_said_once(stand: Stand, ollama: Ollama) -> None:
    ollama.model = "deepseek-flash"
    found = stand.aitask("ask", "hello", "-m", "deepseek", "-o", "temperature", "0.1")
    assert found.err.count("deepseek-flash ignores temperature") == 1
    many = stand.aitask("bulk", "-", "-m", "deepseek", "-o", "temperature", "0.1", stdin="one\ntwo\nthree\n")
    assert many.err.count("deepseek-flash ignores temperature") == 1


def test_a_limit_that_a_model_refuses_is_named_as_the_option_that_it_was_given_as(stand: Stand, ollama: Ollama) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model."
    ollama.status, ollama.said = 400, {"error": {"message": said, "param": "max_tokens"}}
    assert stand.aitask("ask", "hello", "-m", "qwen/small", "-o", "max_completion_tokens", "9").code == 5
    [task] = json.loads(stand.aitask("show", "last", "--json").out)["batch"]["tasks"]
    assert (task["error_kind"], task["attempt"]) == ("option_refused", 1)


def test_options_that_aitask_does_not_know_go_to_the_model_as_json(stand: Stand, ollama: Ollama) -> None:
    given = (
        *("-o", "stop", "[/INST]", "-o", "top_k", "40", "-o", "reasoning_effort", "max"),
        *("-o", "chat_template_kwargs", '{"enable_thinking": false}', "-o", "max_completion_tokens", "9"),
    )
    sent = {
        "stop": ["[/INST]"], "top_k": 40, "reasoning_effort": "max", "max_tokens": 9,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    assert stand.aitask("ask", "hello", "-m", "qwen/small", *given).code == 0
    assert sent.items() <= ollama.asked[-1].items()
    found = stand.aitask("bulk", "-", "-m", "qwen/small", *given, stdin="hello again")
    stand.finished(found.out.split()[0])
    assert sent.items() <= ollama.asked[-1].items()
    wrong = stand.aitask("ask", "hello", "-m", "qwen/small", "-o", "temprature", "0.2")
    assert (wrong.code, "did you mean temperature?" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (502, {"error": "bad gateway"}, "HTTP 502"),
        (404, {}, "it has no /v1/chat/completions (HTTP 404"),
        (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}, "it wants a key (HTTP 400"),
        (307, {}, "it redirects to"),
    ],
)
def test_doctor_and_models_say_what_an_ask_would_meet(
    stand: Stand, ollama: Ollama, status: int, said: dict[str, Any], words: str
) -> None:
    ollama.status, ollama.said = status, said or {"x": 1}
    for command in ("doctor", "models"):
        [line] = [line for line in stand.aitask(command).out.splitlines() if "qwen" in line and ollama.url in line]
        assert words in line
        assert "LLM_SERVICE_URL" in line or "LLM_API_KEY" in line
        assert not line.startswith("ok")
        assert "answers\t" not in line
    assert stand.aitask("ask", "hello", "-m", "qwen/small", "--wait", "3").code != 0
