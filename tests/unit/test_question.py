"""Whether a model saw the whole question."""

from __future__ import annotations

from typing import Any

import pytest

from workers.question import in_running, in_shown, is_cut

KB = 1024


@pytest.mark.parametrize(
    ("size", "tokens", "context", "cut"),
    [
        (100 * KB, 4096, None, True),  # one token for 25 bytes
        (100 * KB, 25_000, None, False),
        (8 * KB, 10, None, False),  # short, whatever is counted
        (8 * KB + 17, 512, None, True),
        (8 * KB + 17, 514, None, False),
        (100 * KB, None, None, False),  # nothing is known
        (100 * KB, 0, None, False),
        (16 * KB, 4096, 4096, True),  # the context is full
        (16 * KB, 4000, 4096, False),
        (20 * KB, 2048, 4096, True),  # ten bytes a token are not to be believed
        (12 * KB, 1500, 4096, False),
        (20 * KB, None, 4096, True),
        (16 * KB, None, 4096, False),
        (20 * KB, 5000, 32_768, False),
    ],
)
def test_a_question_is_cut_when_tokens_are_missing_or_the_context_is_too_small(
    size: int, tokens: int | None, context: int | None, cut: bool
) -> None:
    assert is_cut(size, tokens, context) is cut


def test_the_context_of_a_running_model_is_found_by_its_name() -> None:
    said = {
        "models": [{"name": "other:latest", "context_length": 1}, {"name": "Qwen2.5:latest", "context_length": 4096}]
    }
    assert in_running(said, "qwen2.5") == 4096
    assert in_running(said, "qwen2.5:latest") == 4096
    assert in_running(said, "qwen2.5:7b") is None


@pytest.mark.parametrize(
    "said", [{"models": [None, 3, {"name": 5}, {"name": "m", "context_length": "x"}]}, {"models": []}]
)
def test_a_list_of_running_models_of_any_shape_is_no_error(said: Any) -> None:
    assert in_running(said, "m") is None


@pytest.mark.parametrize(
    ("said", "context"),
    [
        (
            {"parameters": 'stop "x"\nnum_ctx                        8192', "model_info": {"q.context_length": 32768}},
            8192,
        ),
        ({"model_info": {"general.name": "q", "qwen2.context_length": 32768}}, 32768),
        ({"model_info": {"q.context_length": True}}, None),
        ({"model_info": []}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_context_of_a_model_at_most(said: Any, context: int | None) -> None:
    assert in_shown(said) == context
