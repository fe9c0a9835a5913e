"""How a body is read: bounded before it is parsed, and nothing in it is dropped in silence."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st

from aitask_cli.gateway import body
from aitask_cli.gateway.body import LARGE_BYTES, MAX_VALUES, Bodies, NotServed, has_at_most, parsed
from aitask_cli.gateway.service import _names
from aitask_cli.gateway.shapes import ChatRequest, DispatchRequest
from shared.errors import UsageFault

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text('",[{\\\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a",[{\\\\', max_size=4), inner),
    max_leaves=30,
)


def marks(value: Any) -> int:
    """Commas and opening brackets of a JSON value."""
    if isinstance(value, list | dict):
        items = list(value.values()) if isinstance(value, dict) else value
        return 1 + max(0, len(items) - 1) + sum(map(marks, items))
    return 0


@given(value=VALUES, ascii_only=st.booleans())
def test_values_are_counted_whatever_the_texts_hold(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    most = marks(value)
    # Fewer quotes than four to a value, or it is many texts: that is refused, too.
    strings = text.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
    assert has_at_most(text, max(most, strings))
    if most:
        assert not has_at_most(text, most - 1)


def filled(head: str, unit: str, tail: str, size: int = 8 << 20) -> bytes:
    return (head + (unit * (size // len(unit))).rstrip(",") + tail).encode()


CHAT = '{"model": "qwen", "messages": ['
MANY = {
    "messages": filled(CHAT, '{"role":"user","content":""},', "]}"),
    "wrong messages": filled(CHAT, "1,", "]}"),
    "parts": filled(CHAT + '{"role":"user","content":[', '{"type":"text","text":""},', "]}]}"),
    "stops": filled(CHAT + '{"role":"user","content":"x"}],"stop":[', "1,", "]}"),
    "lists": filled('{"model":"qwen","prompt":"x","other":[', "[],", "]}"),
    "texts": filled('{"model":"qwen","prompt":"x","other":[', '"",', "]}"),
    "open lists": filled('{"model":"qwen","prompt":"x","other":', "[", ""),
    "after what is no JSON": filled('{"a":"b"\\",', "1,", "}"),
}


@pytest.mark.parametrize("name", MANY)
def test_8_mb_of_small_values_never_reach_the_parser(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body.json, "loads", lambda raw: pytest.fail("it was parsed"))
    with pytest.raises(UsageFault, match=f"more than {MAX_VALUES:,} values"):
        parsed(MANY[name])


@pytest.mark.parametrize("unit", ["x", "\\n", '\\"', "\\\\", "\\u4f60", "a, b; [c] {d} \\\\ "])
def test_8_mb_of_prose_or_code_are_read(unit: str) -> None:
    found = parsed(filled('{"model":"qwen","prompt":"', unit, ',"}'))
    assert isinstance(found, DispatchRequest)
    assert len(found.prompt) > (1 << 20)


def test_a_long_conversation_is_read() -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": "a, b"}]} for _ in range(2500)]
    found = parsed(json.dumps({"model": "qwen", "messages": said}).encode())
    assert isinstance(found, ChatRequest)
    assert len(found.messages) == 2500


def test_a_large_body_is_read_on_a_thread_and_a_small_one_is_not() -> None:
    async def where(size_bytes: int) -> str:
        return await bodies.aside(size_bytes, lambda: threading.current_thread().name)

    bodies = Bodies()
    assert asyncio.run(where(LARGE_BYTES)) == threading.current_thread().name
    assert asyncio.run(where(LARGE_BYTES + 1)).startswith("aitask-bodies")
    bodies.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", {"type": "json_object"}), ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("response_format", "json"), ("logprobs", True), ("top_logprobs", 3), ("logit_bias", {"50256": -100}),
        ("functions", [{"name": "f"}]), ("function_call", {"name": "f"}), ("tools", [{"type": "function"}]),
        ("tool_choice", "required"), ("modalities", ["text", "audio"]), ("audio", {"voice": "x"}), ("num_ctx", 9),
        ("web_search_options", {}), ("prediction", {"type": "content"}), ("best_of", 2), ("temprature", 1),
    ],
)  # fmt: skip
def test_a_field_that_is_not_served_is_refused_by_its_name(name: str, value: Any) -> None:
    for asked in ({"messages": [{"role": "user", "content": "x"}]}, {"prompt": "x"}):
        with pytest.raises(NotServed, match=name) as refused:
            parsed(json.dumps({"model": "qwen", **asked, name: value}).encode())
        assert refused.value.name == name


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "text"}}, {"response_format": None}, {"logprobs": False}, {"top_logprobs": 0},
        {"logit_bias": {}}, {"functions": []}, {"tools": []}, {"tool_choice": "auto"}, {"modalities": ["text"]},
        {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}, {"n": 1, "top_k": None},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)  # fmt: skip
def test_what_changes_no_answer_is_taken(more: dict[str, Any]) -> None:
    said = {"model": "qwen", "messages": [{"role": "user", "content": "x"}], **more}
    assert isinstance(parsed(json.dumps(said).encode()), ChatRequest)


def test_an_answer_is_taken_back_as_an_earlier_message_and_its_tool_calls_are_not() -> None:
    answer = {"role": "assistant", "content": "y", "refusal": None, "reasoning_content": "z", "tool_calls": None}
    asked = {"role": "user", "content": "x"}
    said = {"model": "qwen", "messages": [asked, answer, asked]}
    assert isinstance(parsed(json.dumps(said).encode()), ChatRequest)
    answer["prefix"] = True  # type: ignore[assignment]
    with pytest.raises(NotServed, match=r"messages\.1\.prefix"):
        parsed(json.dumps(said).encode())


def test_what_is_wrong_is_named_and_never_quoted() -> None:
    secret = "a secret prompt"
    with pytest.raises(RequestValidationError) as refused:
        parsed(json.dumps({"model": "qwen", "prompt": [secret]}).encode())
    assert secret not in str(refused.value.errors())


def test_a_list_of_far_too_many_names_is_not_taken_apart() -> None:
    with pytest.raises(UsageFault, match="200,001 models are named"):
        _names("qwen," * 200_000)
    assert _names("qwen, gemini ,") == ["qwen", "gemini"]
