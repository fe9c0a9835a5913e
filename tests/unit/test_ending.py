"""How an answer ends, row by row; and JSON of any shape, which must never be an answer without text."""

# One row a line: the tables are read down.
# ruff: noqa: E501

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import UpstreamError
from shared.finish import is_cut, named
from workers.answer import Answer, Collector
from workers.ending import End, judged
from workers.thinking import Pipeline, ThinkSplitter

FILTERED = [
    "content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "IMAGE_SAFETY", "LANGUAGE",
    "sensitive", "content_filter: PROHIBITED_CONTENT", "guardrail_intervened", "FinishReason.SAFETY",
]  # fmt: skip
BROKEN = [
    "error", "abort", "network_error", "insufficient_system_resource", "OTHER", "cancelled", "FINISH_REASON_UNSPECIFIED",
    "finish_reason_other",
]  # fmt: skip
WHOLE = ["stop", "STOP", "end_turn", "eos_token", "stop_sequence", "eos", "FinishReason.STOP"]
CUT = ["length", "MAX_TOKENS", "max_tokens", "model_length", "max_output_tokens", "repetition_truncation"]
TOOL = ["tool_calls", "function_call", "tool_use", "MALFORMED_FUNCTION_CALL"]

# finish reasons, text, reasoning, refusal, tools -> kind (None: an answer), retryable, most tries
ROWS: list[tuple[list[str | None], bool, bool, str, bool, str | None, bool, int | None]] = [
    ([*WHOLE, *CUT, None, "a_new_one"], True, False, "", False, None, False, None),
    (["stop"], True, True, "", True, None, False, None),
    ([*FILTERED], True, True, "", False, "content_policy", False, None),
    ([*FILTERED], False, False, "", False, "content_policy", False, None),
    ([*BROKEN], True, True, "", False, "interrupted", True, None),
    ([*BROKEN], False, False, "", False, "interrupted", True, None),
    ([*WHOLE, None], False, False, "I can't", False, "refused", False, None),
    (["refusal"], True, False, "", False, "refused", False, None),
    ([*TOOL], True, False, "", True, "tool_call", False, None),
    ([*TOOL, "stop", None], False, True, "", True, "tool_call", False, None),
    ([*WHOLE, None, "a_new_one"], False, False, "", False, "no_answer", True, 2),
    ([*WHOLE, None], False, True, "", False, "no_answer", True, 2),
    ([*CUT], False, True, "", False, "no_answer", False, None),
]


@pytest.mark.parametrize(
    ("reason", "text", "reasoning", "refusal", "tools", "kind", "retryable", "tries"),
    [(reason, *rest) for reasons, *rest in ROWS for reason in reasons],
)
def test_an_answer_ends_as_the_table_says(
    reason: str | None, text: bool, reasoning: bool, refusal: str, tools: bool,
    kind: str | None, retryable: bool, tries: int | None,
) -> None:  # fmt: skip
    found = judged(End(finish_reason=reason, text=text, reasoning=reasoning, refusal=refusal, tools=tools))
    if kind is None:
        assert found is None
    else:
        assert found is not None
        assert (found.kind, found.retryable, found.max_tries) == (kind, retryable, tries)


@pytest.mark.parametrize("reason", ["", "null", "None", None, 7, True, [], {}])
def test_what_is_no_finish_reason_ends_nothing(reason: object) -> None:
    assert named(reason) is None
    collector = Collector()
    collector.object({"choices": [{"delta": {"content": "half"}, "finish_reason": reason}]})
    assert not collector.complete


@pytest.mark.parametrize("reason", CUT)
def test_an_answer_cut_by_a_limit_is_known_as_cut(reason: str) -> None:
    assert is_cut(reason)
    assert not any(is_cut(whole) for whole in [*WHOLE, None, "a_new_one"])


def answered(*events: Any) -> Answer:
    collector = Collector(Pipeline([ThinkSplitter()]), late=True)
    for event in events:
        collector.event(json.dumps(event))
    return collector.answer()


def word(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": None}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
MESSAGE = {"role": "assistant", "content": "Hello world"}


@pytest.mark.parametrize(
    "last",
    [
        {"object": "chat.completion", "choices": [{"finish_reason": "stop", "message": MESSAGE}]},
        {"choices": [{"finish_reason": "stop", "delta": {}, "message": MESSAGE}]},
        {"choices": [{"finish_reason": "stop", "delta": None, "message": MESSAGE}]},
        {"choices": [{"finish_reason": "stop", "delta": {"content": ""}, "message": MESSAGE}]},
    ],
)
def test_a_last_frame_with_the_whole_message_does_not_double_it(last: dict[str, Any]) -> None:
    assert answered(word("Hello "), word("world"), last).text == "Hello world"
    assert answered({"choices": [{"finish_reason": "stop", "message": MESSAGE}]}).text == "Hello world"


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}, (7, 3)),
        ({"x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}}, (7, 3)),
        ({"usage": {"prompt_tokens": 7.0, "completion_tokens": "3"}}, (7, 3)),
        ({"usage": {"input_tokens": 7, "output_tokens": 3}}, (7, 3)),
        ({"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 5}}, (7, 8)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 15}}, (7, 8)),
        (
            {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 15,
                       "completion_tokens_details": {"reasoning_tokens": 5}}},
            (7, 8),
        ),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15,
                    "completion_tokens_details": {"reasoning_tokens": 5}}}, (7, 8)),
        ({"timings": {"prompt_n": 7, "predicted_n": 3}}, (7, 3)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, (None, None)),
    ],
)  # fmt: skip
def test_tokens_are_read_from_every_known_place(more: dict[str, Any], tokens: tuple[int | None, int | None]) -> None:
    found = answered(word("x"), {**END, **more})
    assert (found.prompt_tokens, found.completion_tokens) == tokens


def test_cumulative_usage_counts_once_and_an_empty_last_one_takes_nothing_back() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 1}
    found = answered(
        {**word("a"), "usage": usage}, {**word("b"), "usage": {**usage, "completion_tokens": 2}}, END,
        {"choices": [], "usage": {}},
    )  # fmt: skip
    assert (found.prompt_tokens, found.completion_tokens) == (7, 2)


THOUGHTS: list[dict[str, Any]] = [
    {"reasoning_content": "hm"},
    {"reasoning": "hm"},
    {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
    {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}, {"type": "reasoning.text", "text": "hm"}]},
    {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    {"content": [{"type": "thinking", "thinking": "hm"}]},
    {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]},
    {"content": "<think>\nhm\n</think>\n\n"},
    {"content": "<thought>hm</thought>"},
    {"content": "[THINK]hm[/THINK]"},
    {"content": "\nhm\n</think>\n\n"},
]


@pytest.mark.parametrize("delta", THOUGHTS)
def test_reasoning_is_kept_apart_in_every_shape(delta: dict[str, Any]) -> None:
    first = {"choices": [{"delta": {"role": "assistant", **delta}}]}
    found = answered(first, word("Hello "), word("world"), END)
    assert (found.text, found.reasoning) == ("Hello world", "hm")


def test_a_template_that_opens_the_reasoning_is_split_live_as_it_is_stored() -> None:
    collector = Collector(Pipeline([ThinkSplitter(opened=True)]))
    shown = [*collector.object(word("I am ")), *collector.object(word("greeting.\n</thi"))]
    assert shown == []
    shown += [*collector.object(word("nk>\n\nHello")), *collector.object(word(" world")), *collector.finish()]
    assert "".join(piece.text for piece in shown if not piece.reasoning) == collector.answer().text == "Hello world"
    plain = Collector(Pipeline([ThinkSplitter(opened=True)]))
    plain.object(word("no thoughts"))
    assert [piece.text for piece in plain.finish()] == ["no thoughts"]


def test_a_closing_mark_that_is_part_of_the_text_splits_nothing() -> None:
    for text in ("use `</think>` to end it", "```\n</think>\n```"):
        assert answered(word(text), END).text == text


def test_text_parts_of_a_whole_message_are_paragraphs_and_those_of_a_stream_are_not() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert answered({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}).text == "one\ntwo"
    assert answered({"choices": [{"delta": {"content": parts}}]}, END).text == "onetwo"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**20) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["stop", "error", "text", "thinking", "</think>", "<think>", "429", "chat.completion"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "choices", "delta", "message", "content", "finish_reason", "usage", "error", "code", "type", "text", "model",
            "reasoning", "reasoning_details", "refusal", "tool_calls", "detail", "details", "loc", "metadata", "status",
            "base_resp", "status_code", "violations", "retryDelay", "x_groq", "object", "success", "errors", "headers",
        ]),
        inner, max_size=4,
    ),
    max_leaves=14,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(ANYTHING, min_size=1, max_size=4))
def test_json_of_any_shape_is_an_answer_with_text_or_a_readable_error(events: list[Any]) -> None:
    found = outcome(events)
    if isinstance(found, Answer):
        assert found.text.strip()
    else:
        assert found.message.strip()
        by_its_own_word = found.kind in ("interrupted", "rate_limited") or found.kind.startswith("http_")
        assert not found.retryable or found.max_tries == 2 or found.limited or by_its_own_word


def outcome(events: list[Any]) -> Answer | UpstreamError:
    collector = Collector(Pipeline([ThinkSplitter()]), late=True)
    try:
        for event in events:
            collector.event(json.dumps(event))
        return collector.answer()
    except UpstreamError as error:
        return error
