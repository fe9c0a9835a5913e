"""What an upstream's error means: every shape, every vendor's words, and the waits that it names."""

# One row a line: the tables are read down.
# ruff: noqa: E501

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from shared.domain import TaskStatus
from shared.errors import UpstreamError
from workers.answer import Collector
from workers.attempt import endpoint_down
from workers.retry import decide
from workers.status import error_object, from_body
from workers.waits import in_sentence, named_wait, span_s

NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.timezone.utc)


def inside(said: Any) -> UpstreamError:
    found = error_object(said, NOW)
    assert found is not None
    return found


def refused(status: int, said: Any, **headers: str) -> UpstreamError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = said if isinstance(said, str) else json.dumps(said)
    return from_body(status, body.encode(), "application/json", named, NOW)


# an error inside a 200 -> a part of its sentence, its kind, whether it is retried
SHAPES: list[tuple[Any, str, str, bool]] = [
    ({"error": {"message": "engine died", "code": 500}}, "engine died", "http_500", True),
    ({"error": "plain words"}, "plain words", "error_object", True),
    ({"error": True, "message": "broken"}, "broken", "error_object", True),
    ({"errors": [{"message": "broken", "code": 503}]}, "broken", "http_503", True),
    ({"object": "error", "message": "engine died", "type": "InternalServerError", "code": 500}, "engine", "http_500", True),
    ({"type": "error", "message": "provider timed out", "status": 504}, "timed out", "http_504", True),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "Overloaded", "error_object", True),
    ([{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}], "overloaded", "http_503", True),
    ({"code": 50505, "message": "Model service overloaded.", "data": None}, "overloaded", "http_503", True),
    ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, "qps", "rate_limited", True),
    ({"error_code": 336104, "error_msg": "content"}, "content", "content_policy", False),
    ({"detail": "Model is still loading"}, "still loading", "error_object", True),
    ({"detail": [{"loc": ["body", "temperature"], "msg": "too high"}]}, "temperature: too high", "error_object", True),
    ({"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded"}, "rate limit", "rate_limited", True),
    ({"code": "InvalidApiKey", "message": "no such key"}, "no such key", "error_object", False),
    ({"code": "DataInspectionFailed", "message": "x"}, "x", "content_policy", False),
    ({"success": False, "message": "not today"}, "not today", "error_object", True),
    ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate limit", "rate_limited", True),
    ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "balance", "quota_exhausted", False),
    ({"status": "503 Service Unavailable", "message": "gone"}, "gone", "http_503", True),
    ({"error": {"message": '{"error": {"code": 429, "message": "inner words"}}', "code": 500}}, "inner", "http_429", True),
    ({"error": {"message": "litellm.BadRequestError: {\"error\": {\"message\": \"inner\", \"code\": 400}}"}}, "inner",
     "http_400", False),
    ({"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "upstream is down"}}}, "is down",
     "http_502", True),
    ({"choices": [{"error": {"code": 502, "message": "Provider disconnected"}, "finish_reason": "error"}]},
     "disconnected", "http_502", True),
    ({"error": {"code": "server_error", "message": "Please generate again"}}, "generate", "error_object", True),
    ({"error": {"type": "invalid_request_error", "message": "generate, rate, timeout"}}, "generate", "error_object", False),
    ({"error": {"type": "insufficient_quota", "message": "check your plan"}}, "plan", "quota_exhausted", False),
    ({"error": {"code": 7, "message": {"odd": 1}}}, "7", "error_object", True),
]  # fmt: skip


@pytest.mark.parametrize(("said", "words", "kind", "retryable"), SHAPES)
def test_an_error_inside_a_200_is_that_error_with_its_sentence(
    said: Any, words: str, kind: str, retryable: bool
) -> None:
    with pytest.raises(UpstreamError) as caught:
        Collector().event(json.dumps(said))
    assert words in caught.value.message
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)


def test_a_fine_answer_with_a_code_and_a_message_is_no_error() -> None:
    fine = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "code": 0, "message": "success"}
    for more in ({}, {"error": None}, {"base_resp": {"status_code": 0}}, {"code": 200}, {"success": True}):
        collector = Collector()
        collector.object({**fine, **more})
        assert collector.answer().text == "yes"
    assert error_object({"id": "x", "choices": [], "usage": {}}) is None


CONTEXTS = [
    "This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens.",
    "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "the request exceeds the available context size, try increasing it",
    "request (19185 tokens) exceeds the available context size (16384 tokens), try increasing it",
    "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length"
    " of only 4096 tokens, which is not enough. The context overflows",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000",
    "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
    "Input is too long for requested model.",
    "Range of input length should be [1, 30720]",
    "Invalid request: Your request exceeded model token limit: 8192",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "The prompt is too long: 5000, model maximum context length: 4096",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096."
    " Make sure that the context window fits",
    "Requested token count exceeds the model's maximum context length of 4096 tokens.",
    "输入超过模型最大上下文长度",
]


@pytest.mark.parametrize("sentence", CONTEXTS)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_context_that_is_too_long_is_known_in_every_vendor_s_words(sentence: str, status: int) -> None:
    found = refused(status, {"error": {"message": sentence}})
    assert (found.kind, found.retryable) == ("context_too_long", False)
    assert inside({"error": {"message": sentence}}).kind == "context_too_long"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "max_tokens is too large: 99999. This model supports at most 4096 completion tokens"),
        (400, "Invalid 'user': string too long. Expected a string with maximum length 64"),
        (429, "Rate limit reached on tokens per minute (TPM): Limit 30000, Used 29000, Requested 5000"),
        (500, "The server had an error while processing your request"),
        (400, "Unsupported parameter: 'max_tokens' is not supported with this model"),
    ],
)
def test_other_refusals_are_not_taken_for_a_long_context(status: int, sentence: str) -> None:
    assert refused(status, {"error": {"message": sentence}}).kind == f"http_{status}"


GOOGLE = "type.googleapis.com/google.rpc."


def google(*quota_ids: str, delay: str | None = None, message: str = "You exceeded your current quota") -> Any:
    details: list[Any] = [{"@type": GOOGLE + "QuotaFailure", "violations": [{"quotaId": name} for name in quota_ids]}]
    if delay:
        details.append({"@type": GOOGLE + "RetryInfo", "retryDelay": delay})
    return [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message, "details": details}}]


MINUTE, DAY = (
    "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
    "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
)
# a 429's body -> kind, retryable, wait, until a reset
RATES: list[tuple[Any, str, bool, float | None, bool]] = [
    ({"error": {"code": "insufficient_quota", "message": "exceeded your current quota"}}, "quota_exhausted", False, None, False),
    ({"error": {"type": "exceeded_current_quota_error", "message": "x"}}, "quota_exhausted", False, None, False),
    (google(MINUTE, message="Quota exceeded for metric: free_tier_requests, limit: 0, model: g"), "quota_exhausted", False,
     None, False),
    ({"error": {"code": "rate_limit_exceeded", "type": "tokens", "message": "Request too large for model `m`: Limit 6000, "
      "Requested 9000"}}, "too_large", False, None, False),
    (google(MINUTE, delay="45.6s"), "http_429", True, 45.6, False),
    (google(MINUTE, message="x, limit: 10\nPlease retry in 45.578s."), "http_429", True, 45.578, False),
    # 12:00 UTC is 04:00 in California, so 20 hours are left of the day.
    (google(MINUTE, DAY, delay="47s"), "http_429", True, 20 * 3600.0, True),
    ({"error": {"message": "Rate limit reached on tokens per day (TPD): Limit 1. Please try again in 21m32.5s."}},
     "http_429", True, 1292.5, True),
    ({"error": {"message": "Rate limit reached. Please try again in 350ms."}}, "http_429", True, 0.35, False),
    ({"error": {"message": "slow down"}}, "http_429", True, None, False),
    ({"error": {"message": "x", "retry_after": 7}}, "http_429", True, 7.0, False),
    ({"error": {"code": 429, "message": "x", "metadata": {"headers": {"X-RateLimit-Reset": "1767268860000"}}}}, "http_429",
     True, 60.0, False),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind", "retryable", "wait", "reset"), RATES)
def test_a_429_is_judged_by_its_code_first_and_then_by_the_wait_it_names(
    said: Any, kind: str, retryable: bool, wait: float | None, reset: bool
) -> None:
    found = refused(429, said)
    assert (found.kind, found.retryable, found.until_reset) == (kind, retryable, reset)
    assert found.retry_after_s == (wait if wait is None else pytest.approx(wait))
    assert found.names_no_wait == (retryable and wait is None)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "5s"}, 5.0),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "1767268830"}, 30.0),
        ({"retry-after": "1e400"}, None),
        ({"x-ratelimit-reset-requests": "1m2.5s"}, 62.5),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset": "1767268830"}, 30.0),
        ({"x-ratelimit-reset": "1767268830000"}, 30.0),
        ({"ratelimit-reset": "17"}, 17.0),
        ({"anthropic-ratelimit-requests-reset": "2026-01-01T12:00:30Z"}, 30.0),
        (
            {"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "9",
             "x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"},
            360.0,
        ),
        ({"retry-after": "3", "x-ratelimit-reset-tokens": "6m0s"}, 3.0),
        ({"x-ratelimit-reset-tokens": "soon"}, None),
    ],
)  # fmt: skip
def test_a_wait_is_read_from_headers_in_every_form(headers: dict[str, str], wait: float | None) -> None:
    assert named_wait(headers, None, NOW) == (wait if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("sentence", "wait"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 1m2s. Visit", 62.0),
        ("Please retry after 33 seconds.", 33.0),
        ("try again in 1 minute and 5 seconds", 65.0),
        ("Please wait 10 seconds before retrying", 10.0),
        ("retry in 45.578569677s.", 45.578569677),
        ("try again later", None),
        ("limit 30000, requested 5", None),
    ],
)
def test_a_wait_is_read_from_a_sentence(sentence: str, wait: float | None) -> None:
    assert in_sentence(sentence) == (wait if wait is None else pytest.approx(wait))


def test_a_span_may_be_an_object_and_never_more_than_two_days() -> None:
    assert span_s({"seconds": "45", "nanos": 600_000_000}, NOW) == pytest.approx(45.6)
    assert span_s("99999h", NOW) == 2 * 86400.0


def test_a_named_wait_has_a_floor_that_grows_while_it_is_repeated_and_costs_nothing() -> None:
    error = refused(429, {"error": {"message": "slow down"}}, retry_after="0")
    found = [decide(error, failures=4, bad_answers=0, max_failures=5, chance=0.5, waits=n) for n in range(8)]
    assert [one.run_in_s for one in found] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not any(one.counts_failure for one in found)


def test_a_429_that_names_nothing_backs_off_at_no_cost_and_an_ask_waits_for_15_minutes_at_most() -> None:
    error = refused(429, {"error": {"message": "slow down"}})
    found = decide(error, failures=4, bad_answers=0, max_failures=5, chance=1.0, waits=2)
    assert (found.status, found.run_in_s, found.cool_s, found.counts_failure) == (TaskStatus.PENDING, 32, 32, False)
    ends = {
        (waiting_s, interactive): decide(
            error, failures=0, bad_answers=0, max_failures=5, chance=1.0, waits=9, waiting_s=waiting_s,
            interactive=interactive,
        ).status
        for waiting_s in (899.0, 900.0) for interactive in (True, False)
    }  # fmt: skip
    assert [key for key, status in ends.items() if status is TaskStatus.FAILED] == [(900.0, True)]


def test_a_daily_quota_s_wait_is_not_shortened() -> None:
    found = decide(refused(429, google(DAY)), failures=0, bad_answers=0, max_failures=5, chance=1.0)
    assert (found.run_in_s, found.counts_failure) == (20 * 3600.0, False)


def test_the_breaker_counts_what_shows_an_endpoint_in_trouble_and_nothing_else() -> None:
    def one(kind: str, status: int | None = 200, *, retryable: bool = True) -> UpstreamError:
        return UpstreamError("x", kind=kind, retryable=retryable, http_status=status)

    for kind in ("incomplete_stream", "bad_json", "empty_answer", "reset", "interrupted"):
        assert endpoint_down(one(kind))
    assert endpoint_down(refused(500, "x"))
    for said in (
        refused(429, "x"),
        refused(500, {"error": {"message": CONTEXTS[4]}}),
        one("no_answer"),
        one("refused"),
    ):
        assert not endpoint_down(said)


class Named(str):
    """An event with a name, as the decoder hands it on."""

    name = "error"


@pytest.mark.parametrize("data", ['{"message": "it broke", "code": 500}', "it broke", '"it broke"'])
def test_an_event_named_error_is_an_error_whatever_it_says(data: str) -> None:
    with pytest.raises(UpstreamError, match="it broke"):
        Collector().event(Named(data))
