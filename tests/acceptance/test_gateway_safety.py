"""What the gateway refuses: bad input, strangers, foreign pages; and its answers held against its document."""

from __future__ import annotations

import http.client
import subprocess
from typing import Any

import pytest

from tests.acceptance.over_http import Gateway, chat, free_port, running
from tests.stand import COMMAND, Stand


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
    "tools": (chat("qwen", tools=[{"type": "function"}]), 400, "tools is not served"),
    "a format": (chat("qwen", response_format={"type": "json_object"}), 400, "response_format is not served"),
    "an unknown field": ({"prompt": "x", "model": "qwen", "temperature": 1}, 400, "temperature is not served"),
    "too many values": (
        b'{"prompt": "x", "model": "qwen", "a": [' + b"[]," * 30_000 + b"[]]}",
        400,
        "more than 20,000",
    ),
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
            refused = gateway.ask("GET", "/v1/models", headers={"Origin": origin})[0]
            assert refused == (401 if allowed else 403)


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
