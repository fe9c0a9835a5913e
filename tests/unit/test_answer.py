"""Putting an answer together: events, errors inside a 200, reasoning in either shape."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UpstreamError
from shared.families import BUILT_IN
from workers.answer import Collector, Piece, joined
from workers.refusals import is_refusal
from workers.sse import EventDecoder
from workers.status import error_message, from_body
from workers.thinking import ThinkSplitter, split_thinking
from workers.waits import named_wait

EVENTS = ["one", "two\nlines", "üñï", "4"]
STREAM = "".join("".join(f"data: {line}\n" for line in event.split("\n")) + "\n" for event in EVENTS)


@given(st.lists(st.integers(1, 30), max_size=40), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_come_out_the_same_however_the_bytes_are_cut(cuts: list[int], end: str) -> None:
    data = (": keep-alive\n\n" + STREAM).replace("\n", end).encode()
    decoder, found, at = EventDecoder(), [], 0
    for cut in cuts:
        found += decoder.feed(data[at : at + cut])
        at += cut
    found += decoder.feed(data[at:]) + decoder.finish()
    assert found == EVENTS


def test_a_last_event_without_its_blank_line_counts() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: [DONE]") == []
    assert decoder.finish() == ["[DONE]"]


def chunk(**delta: object) -> str:
    return json.dumps({"choices": [{"delta": delta, "finish_reason": None}]})


def test_pieces_add_up_to_the_answer_with_its_usage() -> None:
    collector = Collector()
    collector.event(chunk(role="assistant", content=""))
    assert list(collector.event(chunk(content="Hel"))) == [Piece("Hel")]
    collector.event(chunk(content="lo"))
    collector.event('{"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]}')
    assert collector.complete
    collector.event('{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}')
    answer = collector.answer()
    assert (answer.text, answer.model, answer.prompt_tokens, answer.completion_tokens, answer.finish_reason) == (
        "Hello", "m", 3, 2, "stop",
    )  # fmt: skip


def test_reasoning_content_is_kept_apart() -> None:
    collector = Collector()
    assert list(collector.event(chunk(reasoning_content="hm"))) == [Piece("hm", reasoning=True)]
    collector.event(chunk(content="yes"))
    assert (collector.answer().text, collector.answer().reasoning) == ("yes", "hm")


def test_pieces_of_one_packet_are_shown_as_one_and_reasoning_stays_apart() -> None:
    came = [Piece("h", reasoning=True), Piece("m", reasoning=True), Piece("y"), Piece("es"), Piece("?", reasoning=True)]
    assert list(joined(came)) == [Piece("hm", reasoning=True), Piece("yes"), Piece("?", reasoning=True)]
    assert list(joined([])) == []


@pytest.mark.parametrize(
    ("said", "kind", "retryable"),
    [
        ({"error": {"message": "the model is overloaded"}}, "error_object", True),
        ({"error": {"message": "please generate less", "type": "invalid_request_error"}}, "error_object", False),
        ({"error": {"code": 429, "message": "slow down"}}, "http_429", True),
        ({"error": {"code": 400, "message": "maximum context length is 10"}}, "context_too_long", False),
        ({"error": "plain words"}, "error_object", True),
        ([1, 2], "bad_answer", True),
        ("text", "bad_answer", True),
    ],
)
def test_an_error_inside_a_200_is_classified(said: object, kind: str, retryable: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        Collector().object(said)
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"choices": []}, "no_answer"),
        ({"choices": [{"message": {"content": None}}]}, "no_answer"),
        ({"choices": [{"message": "text"}]}, "no_answer"),
        ({"choices": "none"}, "no_answer"),
        ({"choices": [{"message": {"content": None, "tool_calls": [{}]}}]}, "tool_call"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}, "content_policy"),
        ({"choices": [{"message": {"content": 7}}], "usage": {"prompt_tokens": -1}, "model": 5}, "no_answer"),
    ],
)
def test_an_answer_without_text_has_a_readable_reason(said: object, kind: str) -> None:
    collector = Collector()
    collector.object(said)
    with pytest.raises(UpstreamError) as caught:
        collector.answer()
    assert caught.value.kind == kind


def test_json_nested_deeper_than_python_goes_is_a_bad_answer() -> None:
    with pytest.raises(UpstreamError) as caught:
        Collector().event('{"a":' * 100_000)
    assert caught.value.kind == "bad_json"


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("<think>a</think>b", "b", "a"),
        ("\n<think>\na\n</think>\n\nb", "b", "a"),
        ("<think>never closed", "", "never closed"),
        ("no thought", "no thought", None),
        ("text with <think>inside</think>", "text with <think>inside</think>", None),
        ("<think></think>b", "b", None),
        ("<thin", "<thin", None),
        ("<think>a < b </thin </think> c", "c", "a < b </thin"),
    ],
)
def test_thinking_is_split_from_the_answer(text: str, answer: str, reasoning: str | None) -> None:
    assert split_thinking(text) == (answer, reasoning)


@given(st.lists(st.integers(1, 9), max_size=60))
def test_thinking_is_split_the_same_however_the_text_is_cut(cuts: list[int]) -> None:
    text = " <think>so </th what</think>\n\nthe <think>answer</think>"
    pieces: list[Piece] = []
    splitter, at = ThinkSplitter(), 0
    for cut in cuts:
        pieces += splitter.feed(Piece(text[at : at + cut]))
        at += cut
    pieces += [*splitter.feed(Piece(text[at:])), *splitter.finish()]
    assert "".join(p.text for p in pieces if p.reasoning) == "so </th what"
    assert "".join(p.text for p in pieces if not p.reasoning) == "the <think>answer</think>"


def test_every_refusal_phrase_is_seen_and_a_long_answer_with_one_is_not_a_refusal() -> None:
    refusals = next(row.refusals for row in BUILT_IN if row.name == "gemini")
    for phrase in refusals:
        assert is_refusal(phrase.capitalize() + ".", refusals)
        assert not is_refusal(f'The sentence "{phrase}" is what such models say.', refusals)
        assert not is_refusal(phrase + " but here is all about it: " + "word " * 100, refusals)
    assert is_refusal("I’m just a language model, so no.", refusals)


NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT", "date": "Thu, 01 Jan 2026 12:00:20 GMT"}, 10.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], wait: float | None) -> None:
    assert named_wait(headers, None, NOW) == wait


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422])
def test_these_statuses_are_permanent(status: int) -> None:
    assert not from_body(status, b"no", "text/plain", {}, NOW).retryable


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_these_statuses_are_transient(status: int) -> None:
    assert from_body(status, b"later", "text/plain", {}, NOW).retryable


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"error": {"message": "no"}}', "application/json", "no"),
        (b'[{"error": {"message": "no"}}]', "application/json", "no"),
        (b'{"error": "no"}', "application/json", "no"),
        (b'{"detail": "no"}', "application/json", "no"),
        (b"<html><title>502\n Bad</title>", "text/html", "an HTML page (502 Bad)"),
        (b"plain", "text/plain", "plain"),
        (b"", "", ""),
    ],
)
def test_an_error_s_sentence_is_found(body: bytes, content_type: str, message: str) -> None:
    assert error_message(body, content_type) == message
