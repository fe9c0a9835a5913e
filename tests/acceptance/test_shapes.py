"""Every shape of answer that upstreams have been seen to send, for every family, through a worker: how it must end."""

from __future__ import annotations

from dataclasses import dataclass

from aitask_cli.simulator.field import ENDINGS, SHAPES
from aitask_cli.simulator.shapes import WHOLE
from shared.domain import TaskStatus
from tests.acceptance.test_matrix import LIMITS
from tests.integration.test_upstream import BEHAVIOURS
from tests.stand import Stand


@dataclass(frozen=True)
class End:
    """How a shape must end: the error kind (None: answered), the text, the most and the fewest calls."""

    kind: str | None
    text: str | None = None
    calls: int = 1
    reasoning: str | None = None
    tokens: tuple[int, int] | None = None


def once(kind: str) -> End:
    return End(kind)


def again(kind: str) -> End:
    return End(kind, calls=2)


ANSWERED = End(None, WHOLE)
TRANSIENT_FINISHES = ("error", "abort", "network-error", "insufficient-system-resource", "other")

ENDS: dict[str, End] = {
    **{name: once("content_policy") for name in ENDINGS if name.startswith("finish-")},
    **{f"finish-{name}": again("interrupted") for name in TRANSIENT_FINISHES},
    "length": End(None, "Hello wor"),
    "max-tokens": End(None, "Hello wor"),
    "emptyfinish": again("incomplete_stream"),
    "nullfinish": again("incomplete_stream"),
    "prohibited": once("content_policy"),
    "refusalfield": once("refused"),
    "refusalwhole": once("refused"),
    "thoughtsonly": once("no_answer"),
    "blank": again("no_answer"),
    "toolcall": once("tool_call"),
    "usage-groq": End(None, WHOLE, tokens=(7, 3)),
    "usage-float": End(None, WHOLE, tokens=(7, 3)),
    "usage-names": End(None, WHOLE, tokens=(7, 3)),
    "usage-grows": End(None, WHOLE, tokens=(7, 3)),
    "parts": End(None, WHOLE, reasoning="Let me think."),
    "details": End(None, WHOLE, reasoning="Let me think."),
    "reasoningfield": End(None, WHOLE, reasoning="Let me think."),
    "wrongcharset": End(None, "Hello wörld"),
    "cutlabelled": again("incomplete_stream"),
    "ctx-llama": once("context_too_long"),
    "ctx-gemini": once("context_too_long"),
    "ctx-vllm": once("context_too_long"),
    "quota": once("quota_exhausted"),
    "toolarge": once("too_large"),
    "upstreamword": once("http_400"),
    "gone": once("unknown_model"),
    "retired": once("model_retired"),
    "signin": once("redirect"),
    "streamparam": End(None, WHOLE, calls=3),
}
# What each of these is called is the table of errors' affair; that they are errors, tried twice, is this test's.
ERRORS_IN_200 = [name for name in SHAPES if name.startswith("err-")] + ["brotli"]


def test_every_shape_ends_as_the_table_says_for_every_family(stand: Stand) -> None:
    models = [f"{family}+{name}" for name in SHAPES for family in BEHAVIOURS]
    made = [stand.submit("hello", *models[first : first + 60]) for first in range(0, len(models), 60)]
    stand.start_worker("-c", "400", AITASK_MAX_FAILURES="2", **LIMITS)
    tasks = [task for one in made for task in stand.finished(one.batch_id, timeout_s=180).tasks]
    calls = {model: number for (model, _), number in stand.upstream.simulator.calls.items()}
    wrong = []
    for task in tasks:
        name = task.model.partition("+")[2]
        said = (task.status, task.error_kind, task.response_text, task.reasoning_text, calls[task.model])
        if name in ERRORS_IN_200:
            good = task.status is TaskStatus.FAILED and calls[task.model] <= 2
        else:
            end = ENDS.get(name, ANSWERED)
            good = task.error_kind == end.kind and calls[task.model] == end.calls
            good = good and (task.status is TaskStatus.SUCCESS) == (end.kind is None)
            good = good and (end.text is None or task.response_text == end.text)
            good = good and (end.reasoning is None or task.reasoning_text == end.reasoning)
            good = good and (end.tokens is None or (task.prompt_tokens, task.completion_tokens) == end.tokens)
        if not good:
            wrong.append((task.model, *said))
    print(f"{len(SHAPES)} shapes x {len(BEHAVIOURS)} families, most calls a task {max(calls.values())}")
    assert not wrong, "\n".join(map(str, wrong))
