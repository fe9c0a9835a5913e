"""On the local default a task is called with the settings of whoever asked: two directories side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aitask_cli.simulator.script import Script
from tests.acceptance.test_local import Local
from tests.stand import Result, RunningSimulator, aitask, wait_for


class Directory:
    """A directory with a `.env` of its own, whose endpoint remembers what it was asked with which key."""

    def __init__(self, place: Path, local: Local, name: str) -> None:
        self.place = place / name
        self.place.mkdir()
        self.local = local
        self.name = name
        self.upstream = RunningSimulator(Script(latency_s=0.02, tokens_per_s=0, tokens=5))
        self.set_key(f"key-of-{name}")

    def set_key(self, key: str, **more: str) -> None:
        lines = {"LLM_SERVICE_URL": self.upstream.url, "LLM_API_KEY": key, **more}
        (self.place / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in lines.items()))

    def aitask(self, *arguments: str) -> Result:
        return aitask(*arguments, env=self.local.env, cwd=self.place)

    def ask(self, prompt: str, *more: str, model: str = "qwen") -> Result:
        return self.aitask("ask", f"{self.name}: {prompt}", "-m", model, *more)

    @property
    def seen(self) -> list[tuple[str, str]]:
        """Every call's prompt and key, in order."""
        return [(one["prompt"], one["headers"]["authorization"]) for one in self.upstream.simulator.seen]


@pytest.fixture
def local(data_dir: Path) -> Iterator[Local]:
    made = Local(data_dir)
    yield made
    made.aitask("down")
    assert made.processes() == []


@pytest.fixture
def two(local: Local, tmp_path: Path) -> Iterator[tuple[Directory, Directory]]:
    made = Directory(tmp_path, local, "a"), Directory(tmp_path, local, "b")
    yield made
    for one in made:
        one.upstream.stop()


def test_two_directories_ask_in_turn_and_at_once_and_each_endpoint_sees_its_own_alone(
    two: tuple[Directory, Directory],
) -> None:
    turns = [one.ask(f"turn {n}") for n in range(3) for one in two]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda n: two[n % 2].ask(f"at once {n}"), range(14)))
    assert [one.code for one in (*turns, *at_once)] == [0] * 20, [one.err for one in (*turns, *at_once) if one.code]
    for one in two:
        prompts = [prompt for prompt, _ in one.seen]
        # Calls = tasks: nothing was thrown away or asked twice.
        assert len(prompts) == len(set(prompts)) == 10
        assert all(prompt.startswith(f"{one.name}: ") for prompt in prompts)
        assert {key for _, key in one.seen} == {f"Bearer key-of-{one.name}"}


def test_a_corrected_key_is_used_by_the_next_ask_and_a_running_call_ends_in_peace(
    two: tuple[Directory, Directory],
) -> None:
    a, _ = two
    a.set_key("wrong")
    assert a.ask("first").code == 0
    slow = a.ask("slow", "-d", model="qwen+latency=3").out.strip()
    wait_for(lambda: len(a.seen) == 2, what="the slow call")
    a.set_key("right", AITASK_SLOTS="7", AITASK_LOG_LEVEL="warning")
    assert a.ask("second").code == 0
    assert a.aitask("watch", slow).code == 0
    assert a.seen == [
        ("a: first", "Bearer wrong"), ("a: slow", "Bearer wrong"), ("a: second", "Bearer right"),
    ]  # fmt: skip
    workers = json.loads(a.aitask("ps", "--json").out)["workers"]
    assert [worker["slots"] for worker in workers if worker["families"]] == [7]


def test_a_task_whose_origin_has_no_worker_is_named_and_retry_from_elsewhere_takes_it_over(
    two: tuple[Directory, Directory],
) -> None:
    a, b = two
    batch = a.ask("hello", "-d", model="qwen+500").out.strip()
    wait_for(lambda: len(a.seen) >= 1, what="the first try")
    a.local.aitask("down")
    assert b.ask("hello").code == 0
    listed, explained = b.aitask("ls"), b.aitask("explain", batch)
    assert f"{batch[:8]} was asked under {a.place}/.env, which has no worker" in listed.err
    assert f"aitask retry {batch[:8]}" in listed.err
    assert f"{a.place}/.env, which has no worker" in explained.out
    tries = len(a.seen)
    taken = b.aitask("retry", batch)
    assert (taken.code, "1 were asked under other settings" in taken.err) == (0, True), taken.err
    wait_for(lambda: ("a: hello", "Bearer key-of-b") in b.seen, what="the call with b's settings")
    assert len(a.seen) == tries


def test_watch_from_its_origin_starts_the_worker_of_a_task_again(two: tuple[Directory, Directory]) -> None:
    a, b = two
    batch = a.ask("hello", "-d", model="qwen+500x1").out.strip()
    wait_for(lambda: len(a.seen) >= 1, what="the first try")
    a.local.aitask("down")
    assert b.ask("hello").code == 0
    found = a.aitask("watch", batch, "--wait", "60")
    assert found.code == 0, found.err
    assert {prompt for prompt, _ in b.seen} == {"b: hello"}
