"""What a family does to text and takes of options is data, also for one that settings add."""

from __future__ import annotations

import json

import pytest

from shared.errors import UpstreamError
from shared.settings import settings_from
from tests.integration.test_upstream import task
from workers.answer import Answer
from workers.families.generic import Behaviour


def behaviour(**more: str) -> Behaviour:
    found = settings_from(
        {"AITASK_FAMILIES": "bridge", "BRIDGE_SERVICE_URL": "http://localhost:1"}
        | {f"BRIDGE_{name}": value for name, value in more.items()}
    )
    family = found.family("bridge")
    assert family is not None
    return Behaviour(family, found)


def asked(made: Behaviour, *texts: str, model: str = "m") -> tuple[str, Answer]:
    """What was shown as the answer, and the answer."""
    collector, shown = made.collector(model), []
    for text in texts:
        shown += collector.event(json.dumps({"choices": [{"delta": {"content": text}}]}))
    collector.event('{"choices": [{"delta": {}, "finish_reason": "stop"}]}')
    shown += collector.finish()
    answer = collector.answer()
    made.check(answer)
    return "".join(piece.text for piece in shown if not piece.reasoning), answer


@pytest.mark.parametrize(
    ("settings", "texts", "text", "reasoning"),
    [
        ({}, ("<thi", "nk>a</think>", "b"), "b", "a"),
        ({"THINK": "none"}, ("<think>a</think>", "b"), "<think>a</think>b", None),
        ({"THINK": "open"}, ("a\n</th", "ink>\n\nb"), "b", "a"),
        ({"PREFIXES": "Gemini said:|Bot:"}, ("Gemini", " said: ", "b"), "b", None),
        ({"PREFIXES": "Bot:"}, ("Both", " of them"), "Both of them", None),
        ({"PREFIXES": "Bot:"}, ("Bot:<think>a</think>", "b"), "b", "a"),
    ],
)
def test_a_family_of_settings_says_what_is_done_to_its_text_live_and_stored_alike(
    settings: dict[str, str], texts: tuple[str, ...], text: str, reasoning: str | None
) -> None:
    shown, answer = asked(behaviour(**settings), *texts)
    assert shown == answer.text == text
    assert answer.reasoning == reasoning


def test_a_model_whose_template_opens_its_reasoning_is_known_by_its_name() -> None:
    for model in ("deepseek-r1:8b", "qwq-32b", "Qwen/Qwen3-4B-Thinking-2507", "MiniMaxAI/MiniMax-M2"):
        shown, answer = asked(behaviour(), "a\n", "</think>\n", "b", model=model)
        assert (shown, answer.text, answer.reasoning) == ("b", "b", "a")


def test_a_family_of_settings_has_refusals_of_its_own() -> None:
    made = behaviour(REFUSALS="no way|nein")
    with pytest.raises(UpstreamError) as caught:
        asked(made, "Sorry, no way.")
    assert (caught.value.kind, caught.value.retryable) == ("refused", False)
    assert asked(behaviour(), "Sorry, no way.")[1].text == "Sorry, no way."


def test_only_the_options_that_a_family_takes_are_sent() -> None:
    given = task("m", "bridge", options={"temperature": 0.5, "seed": 7})
    assert behaviour(TAKES="seed").payload(given).keys() == {"model", "messages", "seed"}
    assert behaviour().payload(given)["temperature"] == 0.5


@pytest.mark.parametrize(
    ("settings", "model", "given", "sent"),
    [
        ({"SERVICE_URL": "https://api.openai.com"}, "gpt-5-mini", {"max_tokens": 7}, {"max_completion_tokens": 7}),
        ({"SERVICE_URL": "https://api.openai.com"}, "gpt-4o", {"max_tokens": 7}, {"max_tokens": 7}),
        ({"SERVICE_URL": "https://api.deepseek.com"}, "deepseek-x", {"max_completion_tokens": 7}, {"max_tokens": 7}),
        ({}, "m", {"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
        ({}, "m", {"max_tokens": 7, "top_k": 4}, {"max_tokens": 7, "top_k": 4}),
        ({"TAKES": "max_completion_tokens,seed"}, "m", {"max_tokens": 7}, {"max_completion_tokens": 7}),
        ({"TAKES": "max_tokens,top_k"}, "m", {"max_completion_tokens": 7, "seed": 1}, {"max_tokens": 7}),
        ({"TAKES": "seed"}, "m", {"max_tokens": 7, "seed": 1}, {"seed": 1}),
        ({}, "m", {"reasoning_effort": "max", "chat_template_kwargs": {"a": [1]}},
         {"reasoning_effort": "max", "chat_template_kwargs": {"a": [1]}}),
    ],
)  # fmt: skip
def test_options_go_out_by_the_names_that_the_model_takes(
    settings: dict[str, str], model: str, given: dict[str, object], sent: dict[str, object]
) -> None:
    payload = behaviour(**settings).payload(task(model, "bridge", options=given))
    assert {name: payload[name] for name in payload if name not in ("model", "messages")} == sent
