"""The same name at two families is two models, from the plan to the screen."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from shared.errors import Conflict
from shared.store import conversations
from tests.stand import RunningSimulator, Servers, Stand, new_stand

MODELS = "one/gpt,two/gpt"


@pytest.fixture
def two(servers: Servers, upstream: RunningSimulator, tmp_path: Any) -> Any:
    more = {"AITASK_FAMILIES": "one,two", "ONE_SERVICE_URL": upstream.url, "TWO_SERVICE_URL": upstream.url}
    stand = new_stand(servers, upstream, tmp_path / "home", **more)
    yield stand
    stand.close()
    servers.admin(f"DROP DATABASE {stand.database} WITH (FORCE)")


def test_both_are_asked_and_told_apart_wherever_they_are_shown(two: Stand) -> None:
    two.start_worker()
    asked = two.aitask("ask", "hello", "-m", MODELS, "--json")
    tasks = json.loads(asked.out)["batch"]["tasks"]
    assert [(task["family"], task["model"], task["name"]) for task in tasks] == [
        ("one", "gpt", "one/gpt"), ("two", "gpt", "two/gpt"),
    ]  # fmt: skip
    shown = two.aitask("show", "last").out
    assert "## one/gpt" in shown
    assert "## two/gpt" in shown
    assert "one/gpt" in two.aitask("ls").out
    assert two.aitask("explain", "last/two/gpt").code == 0
    alone = json.loads(two.aitask("ask", "hello", "-m", "one/gpt", "--json").out)["batch"]["tasks"]
    assert alone[0]["name"] == "gpt", "where the bare name is clear it is enough"


def test_each_keeps_its_own_side_of_a_conversation(two: Stand) -> None:
    two.start_worker()
    two.aitask("ask", "first", "-m", "one/gpt,two/gpt+tokens=7")
    two.aitask("ask", "-c", "second", "-m", MODELS)
    with two.db() as db:
        turns = conversations.turns(db, conversations.find(db, "last"))
    assert [sorted(turn.answers) for turn in turns] == [
        [("one", "gpt"), ("two", "gpt+tokens=7")],
        [("one", "gpt"), ("two", "gpt")],
    ]
    told = {said["prompt"]: said["body"]["messages"] for said in two.upstream.simulator.seen}
    assert len(told["second"]) in (1, 3)
    lengths = sorted(
        len(said["body"]["messages"]) for said in two.upstream.simulator.seen if said["prompt"] == "second"
    )
    assert lengths == [1, 3], "what one answered is not told to the other of the same name"


def test_a_key_used_for_one_does_not_return_the_other_s_answer(two: Stand) -> None:
    two.submit("hello", "one/gpt", idempotency_key="k")
    with pytest.raises(Conflict):
        two.submit("hello", "two/gpt", idempotency_key="k")


def test_a_key_of_the_release_before_finds_its_batch_and_no_other_s(two: Stand) -> None:
    made = two.submit("hello", "one/gpt", idempotency_key="k")
    two.query("UPDATE batch SET request_hash = %s", hashed_before("gpt"))
    assert two.submit("hello", "one/gpt", idempotency_key="k").batch_id == made.batch_id
    with pytest.raises(Conflict):
        two.submit("hello", "two/gpt", idempotency_key="k")
    with pytest.raises(Conflict):
        two.submit("bye", "one/gpt", idempotency_key="k")


@pytest.mark.parametrize(
    ("asked", "named"),
    [("gemini", "gemini-2.5-flash"), ("deepseek", "deepseek-reasoner"), ("qwen", "qwen2.5"), ("llama3", "llama3")],
)
def test_a_bare_name_s_key_finds_its_batch_although_the_default_has_changed(two: Stand, asked: str, named: str) -> None:
    made = two.submit("hello", asked, idempotency_key="k")
    assert two.submit("hello", asked, idempotency_key="k").batch_id == made.batch_id
    two.query("UPDATE batch SET request_hash = %s", hashed_before(named))
    assert two.submit("hello", asked, idempotency_key="k").batch_id == made.batch_id


def test_the_release_before_asked_a_name_once_and_its_batch_is_found_by_both(two: Stand) -> None:
    made = two.submit("hello", "one/gpt", idempotency_key="k")
    two.query("UPDATE batch SET request_hash = %s", hashed_before("gpt"))
    assert two.submit("hello", "one/gpt", "two/gpt", idempotency_key="k").batch_id == made.batch_id


def hashed_before(*models: str) -> str:
    """The first release's own recipe, written out: it must not change with ours."""
    said = ["hello", None, {}, list(models), None]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
