"""The upstream client against the simulator: every fault, every family, its expected kind."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from shared.domain import Claimed
from shared.errors import UpstreamError
from shared.settings import Settings, settings_from
from tests.stand import RunningSimulator
from workers.answer import Answer, Piece
from workers.families import deepseek, gemini, qwen
from workers.transport import Transport
from workers.upstream import UpstreamClient

BEHAVIOURS = {"gemini": gemini.behaviour, "qwen": qwen.behaviour, "deepseek": deepseek.behaviour}


PREFIXES = ("GEMINI", "LLM", "DEEPSEEK")


def settings(upstream: RunningSimulator, **more: str) -> Settings:
    urls = {f"{name}_SERVICE_URL": upstream.url for name in PREFIXES}
    keys = {f"{name}_API_KEY": "sk-secret" for name in PREFIXES}
    limits = {f"{name}_TIMEOUT_S": "30" for name in PREFIXES} | {f"{name}_IDLE_TIMEOUT_S": "1.5" for name in PREFIXES}
    limits |= {f"{name}_QUEUE_S": "1" for name in PREFIXES}
    return settings_from({**urls, **keys, **limits, **more})


def task(model: str, family: str, **more: Any) -> Claimed:
    values: dict[str, Any] = {
        "id": "t", "batch_id": "b", "conversation_id": "c-1", "model": model, "family": family, "attempt": 1,
        "failures": 0, "rescues": 0, "bad_answers": 0, "prompt": "hello", "system": None, "options": {}, "context": (),
    }  # fmt: skip
    return Claimed(**{**values, **more})


def call(
    found: Settings, *models: str, family: str = "qwen", pieces: list[Piece] | None = None, **more: Any
) -> list[Answer | UpstreamError]:
    """Make calls one after another on one client."""

    async def run() -> list[Answer | UpstreamError]:
        client = UpstreamClient(Transport(8), max_answer_bytes=found.max_answer_bytes)
        shape = found.family(family)
        assert shape is not None
        behaviour = BEHAVIOURS[family](shape, found)
        results: list[Answer | UpstreamError] = []
        for model in models:
            try:
                collect = (pieces if pieces is not None else []).append
                results.append(await client.complete(task(model, family, **more), behaviour, collect))
            except UpstreamError as error:
                results.append(error)
        await client.close()
        return results

    return asyncio.run(run())


# fault -> (kind or None for an answer, retryable, HTTP status)
MATRIX: dict[str, tuple[str | None, bool, int | None]] = {
    "429": ("http_429", True, 429),
    "500": ("http_500", True, 500),
    "503": ("http_503", True, 503),
    "400": ("http_400", False, 400),
    "401": ("http_401", False, 401),
    "context": ("context_too_long", False, 400),
    "html": ("bad_json", True, 200),
    "hang": ("idle_timeout", True, None),
    "close": ("reset", True, None),
    "truncated": ("reset", True, None),
    "keepalive": ("idle_timeout", True, None),
    "badjson": ("bad_json", True, 200),
    "huge": ("too_large", False, 200),
    "empty": ("empty_answer", True, 200),
    "error200": ("error_object", True, 200),
    "nochoices": ("no_answer", True, 200),
    "tools": ("tool_call", False, 200),
    "redirect": ("redirect", False, 307),
    "nostream": (None, False, None),
    "utf16": (None, False, None),
    "think": (None, False, None),
    "reasoning": (None, False, None),
    "unclosed": ("no_answer", True, 200),
    "nasty": (None, False, None),
}


@pytest.mark.parametrize("family", BEHAVIOURS)
@pytest.mark.parametrize("fault", MATRIX)
def test_each_fault_ends_as_its_kind(upstream: RunningSimulator, fault: str, family: str) -> None:
    kind, retryable, status = MATRIX[fault]
    # Where silence is not what is tested, a machine that stalls must not make any.
    patience = {} if kind == "idle_timeout" else {f"{name}_IDLE_TIMEOUT_S": "20" for name in PREFIXES}
    [found] = call(settings(upstream, **patience), f"{family}+{fault}", family=family)
    if kind is None:
        assert isinstance(found, Answer)
        return
    assert isinstance(found, UpstreamError)
    assert (found.kind, found.retryable, found.http_status) == (kind, retryable, status)
    assert found.message
    assert "sk-secret" not in str(found)


def test_a_refusal_fails_for_gemini_and_is_an_answer_elsewhere(upstream: RunningSimulator) -> None:
    [refused] = call(settings(upstream), "gemini+refusal", family="gemini")
    [answer] = call(settings(upstream), "qwen+refusal", family="qwen")
    assert isinstance(refused, UpstreamError)
    assert (refused.kind, refused.retryable) == ("refused", False)
    assert isinstance(answer, Answer)


def test_an_answer_is_streamed_in_pieces_that_add_up_to_it(upstream: RunningSimulator) -> None:
    pieces: list[Piece] = []
    [answer] = call(settings(upstream), "qwen+tps=200", pieces=pieces)
    assert isinstance(answer, Answer)
    assert "".join(piece.text for piece in pieces) == answer.text
    assert len(pieces) > 10
    assert answer.prompt_tokens == 7
    assert answer.completion_tokens == 40
    assert answer.finish_reason == "stop"
    assert answer.model == "qwen+tps=200"
    assert answer.first_token_s is not None
    assert answer.first_token_s < answer.cost_time_s


@pytest.mark.parametrize("fault", ["think", "reasoning"])
def test_deepseek_s_reasoning_is_apart_in_either_shape(upstream: RunningSimulator, fault: str) -> None:
    pieces: list[Piece] = []
    [answer] = call(settings(upstream), f"deepseek+{fault}", family="deepseek", pieces=pieces)
    assert isinstance(answer, Answer)
    assert "Simulated thinking" in (answer.reasoning or "")
    assert answer.text.startswith("**Simulated answer**")
    assert "".join(p.text for p in pieces if not p.reasoning) == answer.text
    assert "Simulated thinking" in "".join(p.text for p in pieces if p.reasoning)


def test_an_unclosed_thought_is_no_answer(upstream: RunningSimulator) -> None:
    [found] = call(settings(upstream), "deepseek+unclosed", family="deepseek")
    assert isinstance(found, UpstreamError)
    assert (found.kind, found.max_tries) == ("no_answer", 2)


def test_an_endpoint_that_cannot_stream_is_asked_plainly_and_remembered(upstream: RunningSimulator) -> None:
    found = call(settings(upstream), "qwen+nostream", "qwen+nostream", "qwen+nostream")
    assert all(isinstance(one, Answer) for one in found)
    asked = [seen["body"]["stream"] for seen in upstream.simulator.seen]
    assert asked == [True, False, False, False], (
        "a refusal of `stream` itself: at once the plain way, and so from then on"
    )


def test_what_is_sent_is_the_conversation_the_options_and_the_key(upstream: RunningSimulator) -> None:
    context = ({"role": "user", "content": "before"}, {"role": "assistant", "content": "said"})
    call(settings(upstream), "deepseek-r1", family="deepseek", system="brief", context=context, options={"seed": 7})
    [seen] = upstream.simulator.seen
    roles = [(m["role"], m["content"]) for m in seen["body"]["messages"]]
    assert roles == [("system", "brief"), ("user", "before"), ("assistant", "said"), ("user", "hello")]
    assert (seen["body"]["temperature"], seen["body"]["seed"]) == (0.6, 7)
    assert seen["headers"]["authorization"] == "Bearer sk-secret"


def test_gemini_s_calls_carry_the_conversation_s_affinity(upstream: RunningSimulator) -> None:
    call(settings(upstream), "gemini", family="gemini")
    call(settings(upstream), "qwen", family="qwen")
    assert [seen["headers"].get("x-conversation-id") for seen in upstream.simulator.seen] == ["c-1", None]


def test_a_retry_after_is_carried_with_the_error(upstream: RunningSimulator) -> None:
    [found] = call(settings(upstream), "qwen+429+retry-after=7")
    assert isinstance(found, UpstreamError)
    assert found.retry_after_s == 7


def test_an_endpoint_that_is_not_there_is_a_connect_error(upstream: RunningSimulator) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        [found] = call(settings(upstream, LLM_SERVICE_URL=url), "qwen")
    assert isinstance(found, UpstreamError)
    assert (found.kind, found.retryable) == ("connect", True)


def test_a_slow_stream_that_keeps_coming_is_not_idle(upstream: RunningSimulator) -> None:
    [found] = call(settings(upstream), "qwen+tps=20+tokens=30")
    assert isinstance(found, Answer)
    assert found.cost_time_s > 1


def test_the_whole_call_is_bounded(upstream: RunningSimulator) -> None:
    [found] = call(settings(upstream, LLM_TIMEOUT_S="0.6"), "qwen+tps=20+tokens=100")
    assert isinstance(found, UpstreamError)
    assert (found.kind, found.retryable) == ("timeout", True)
