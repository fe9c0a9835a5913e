"""States and durations in words, exit codes, the JSON shape, identifiers, the watermark."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitask_cli.exit_codes import Exit, for_status
from aitask_cli.simulator.script import Script
from aitask_cli.views import shape
from aitask_cli.views.answers import plain
from aitask_cli.views.words import duration, state
from shared.domain import BatchStatus, BatchView, TaskStatus, TaskView, batch_status
from shared.errors import UsageFault
from shared.ids import is_id, new_id, new_ordered_id, prefix_range
from shared.migrations import HEAD
from shared.options import OPTIONS, parse_options
from workers.reconciler import TICK_S, hint_is_gone_before, until_next_tick

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


def task(**more: Any) -> TaskView:
    values: dict[str, Any] = dict.fromkeys(TaskView.__slots__)
    values |= {
        "id": "t", "batch_id": "b", "position": 0, "model": "m", "name": "m", "family": "f",
        "status": TaskStatus.PENDING, "attempt": 0, "failures": 0, "rescues": 0, "created_at": NOW, "run_in_s": -1.0,
    }  # fmt: skip
    return TaskView(**{**values, **more})


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (task(), "waiting"),
        (task(status=TaskStatus.PROCESSING, attempt=1), "running"),
        (task(status=TaskStatus.PROCESSING, attempt=3), "running, attempt 3"),
        (task(status=TaskStatus.SUCCESS), "answered"),
        (task(status=TaskStatus.FAILED, error_kind="http_400"), "failed: 400"),
        (task(status=TaskStatus.SUCCESS, finish_reason="length"), "answered, cut"),
        (task(status=TaskStatus.SUCCESS, finish_reason="stop"), "answered"),
        (task(status=TaskStatus.SUCCESS, cut_question=True), "answered, cut question"),
        (task(status=TaskStatus.SUCCESS, upstream_model="m-2026-01-01"), "answered"),
        (task(status=TaskStatus.SUCCESS, upstream_model="n", finish_reason="length"), "answered by n, cut"),
        (task(error_kind="http_429", run_in_s=12.0, failures=1), "429, again in 12 s, try 2 of 5"),
        (task(error_kind="connect", run_in_s=-3.0, failures=2), "can't connect, again now, try 3 of 5"),
    ],
)
def test_a_state_says_what_a_task_waits_for(view: TaskView, words: str) -> None:
    assert state(view, max_failures=5) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0 s"), (0.84, "0.8 s"), (12.3, "12 s"), (185, "3:05 min"), (7800, "2:10 h")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("statuses", "status", "code"),
    [
        ([1, 1], BatchStatus.COMPLETED, Exit.OK),
        ([1, 2], BatchStatus.PARTIAL, Exit.PARTIAL),
        ([2, 2], BatchStatus.FAILED, Exit.NO_ANSWER),
        ([1, 0], BatchStatus.PROCESSING, Exit.RUNNING),
        ([2, 3], BatchStatus.PROCESSING, Exit.RUNNING),
    ],
)
def test_a_batch_s_status_and_exit_code_follow_from_its_tasks(
    statuses: list[int], status: BatchStatus, code: Exit
) -> None:
    found = batch_status([TaskStatus(n) for n in statuses])
    assert (found, for_status(found)) == (status, code)


def test_the_json_shape_is_the_one_the_readme_documents() -> None:
    view = BatchView("b", "c", "p", None, {}, NOW, (task(),))
    documented = (Path(__file__).parents[2] / "README.md").read_text()
    fields = [*shape.batch(view)["batch"], *shape.task(task())]
    missing = [name for name in fields if f"`{name}`" not in documented]
    assert missing == []


def test_ordered_ids_are_version_7_and_grow_with_time() -> None:
    first = new_ordered_id()
    assert uuid.UUID(first).version == 7
    assert is_id(first)
    stamp = uuid.UUID(first).int >> 80
    assert abs(stamp / 1000 - dt.datetime.now().timestamp()) < 60
    many = [new_ordered_id() for _ in range(10_000)]
    assert many == sorted(set(many))


def test_a_prefix_covers_exactly_the_ids_that_start_with_it() -> None:
    whole = new_id()
    low, high = prefix_range(whole[:10])
    assert low <= whole <= high
    assert prefix_range(whole) == (whole, whole)
    with pytest.raises(UsageFault):
        prefix_range("xyz")


def test_the_named_revision_is_the_newest_script() -> None:
    scripts = (Path(__file__).parents[2] / "shared" / "migrations" / "versions").glob("[0-9]*.py")
    found = [re.search(r'^revision = "(\w+)"', path.read_text(), re.M) for path in scripts]
    assert max(match[1] for match in found if match) == HEAD


def test_the_watermark_takes_the_clocks_difference_and_the_grace_out() -> None:
    redis_now = NOW + dt.timedelta(minutes=10)
    waiting = redis_now - dt.timedelta(seconds=60)
    times = {"redis_now": redis_now, "database_now": NOW}
    idle = hint_is_gone_before(safe_until=redis_now, grace_s=5.0, **times)
    assert idle == NOW - dt.timedelta(seconds=5)
    backlog = hint_is_gone_before(safe_until=waiting, grace_s=5.0, **times)
    assert backlog == NOW - dt.timedelta(seconds=65)
    future = hint_is_gone_before(safe_until=redis_now + dt.timedelta(days=1), grace_s=0.0, **times)
    assert future == NOW


def test_the_reconciler_is_there_when_a_lease_ends() -> None:
    assert until_next_tick(None) == TICK_S
    assert until_next_tick(20.0) == TICK_S
    assert 0.3 < until_next_tick(0.3) < 0.4
    assert until_next_tick(-5.0) == TICK_S  # it may not be ended yet: no reason to hurry


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "3"), ("temperature", "x"), ("max_tokens", "0"), ("colour", "red"), ("stop", ""),
     ("stop", "[]"), ("stop", "[1]"), ("stop", "a\0"), ("temprature", "0.2"), ("Seed", "1"), ("top-k", "4"),
     ("reasoning_effort", "hihg"), ("reasoning_effort", "true"), ("top_k", "NaN"), ("top_k", "1e999"),
     ("top_k", "forty"), ("x", "[" * 40 + "]" * 40), ("x", '"\\u0000"'), ("x", "9" * 30), ("messages", "[]"),
     ("stream", "true"), ("n", "2")],
)  # fmt: skip
def test_a_bad_model_option_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageFault, match=name):
        parse_options([(name, value)])


@given(
    st.sampled_from([*OPTIONS, "none", "top_k"]),
    st.one_of(
        st.text(),
        st.text('[]{}"0123456789.e-+,', max_size=40),
        st.sampled_from(
            [
                "[" * 100_000,
                '{"a":' * 50_000,
                "9" * 5000,
                "1e999",
                "nan",
                "-inf",
                "\x00",
                "\ud800",
                "[[]]",
                "[null]",
                "0x1",
                "１２",
            ]
        ),
    ),
)
def test_no_value_of_a_model_option_gives_a_traceback(name: str, value: str) -> None:
    with contextlib.suppress(UsageFault):
        assert list(parse_options([(name, value)])) == [name]


def test_good_model_options_get_their_types() -> None:
    given = [("temperature", "0.2"), ("max_tokens", "5"), ("stop", '["a", "b"]')]
    assert parse_options(given) == {"temperature": 0.2, "max_tokens": 5, "stop": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("stop", "[/INST]", ["[/INST]"]),
        ("stop", "[END]", ["[END]"]),
        ("stop", '["a"', ['["a"']),
        ("stop", '["a", "b"]', ["a", "b"]),
        ("max_completion_tokens", "9", 9),
        ("reasoning_effort", "xhigh", "xhigh"),
        ("reasoning_effort", "max", "max"),
        ("reasoning_effort", '"turbo"', "turbo"),
        ("reasoning_effort", "50", 50),
        ("top_k", "40", 40),
        ("min_p", "0.05", 0.05),
        ("chat_template_kwargs", '{"enable_thinking": false}', {"enable_thinking": False}),
        ("thinking", '{"type": "disabled"}', {"type": "disabled"}),
        ("verbosity", '"low"', "low"),
    ],
)
def test_what_a_model_takes_besides_is_passed_on_as_json(name: str, text: str, value: Any) -> None:
    assert parse_options([(name, text)]) == {name: value}


def test_a_model_s_suffixes_script_the_simulator() -> None:
    script = Script().with_suffixes("qwen+500x2+latency=1.5+tps=20+unknown")
    assert (script.fault, script.times, script.latency_s, script.tokens_per_s) == ("500", 2, 1.5, 20)
    assert Script().with_suffixes("qwen+429+retry-after=7").retry_after_s == 7


def test_a_cut_answer_is_marked_as_cut_in_text_and_json() -> None:
    cut = task(status=TaskStatus.SUCCESS, finish_reason="MAX_TOKENS", response_text="half an")
    assert shape.task(cut)["cut"] is True
    assert shape.task(task(status=TaskStatus.SUCCESS, finish_reason="stop"))["cut"] is False
    both = BatchView("b", "c", "p", None, {}, NOW, (cut, cut))
    assert plain(both, reasoning=False, max_failures=5).count("## m (cut") == 2
