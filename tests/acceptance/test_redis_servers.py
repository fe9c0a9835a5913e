"""Any Redis behind the workers: a shared namespace, one that is not as it should be, fail-over, Cluster, resets."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from shared.ids import new_ordered_id
from tests.acceptance.accounting import Chaos, account, witness
from tests.proxy import Proxy, Target
from tests.redis_servers import Valkeys, valkeys
from tests.stand import RunningSimulator, Servers, Stand, new_stand, wait_for

FAMILIES = ("gemini", "qwen", "deepseek")


@pytest.fixture
def redises(tmp_path: Path) -> Iterator[Valkeys]:
    with valkeys(tmp_path) as made:
        yield made


@pytest.fixture
def other(servers: Servers, upstream: RunningSimulator, stand: Stand, tmp_path: Path) -> Iterator[Stand]:
    """Another database under the same namespace of the same Redis."""
    made = new_stand(servers, upstream, tmp_path / "other")
    made.namespace = stand.namespace
    yield made
    made.close()
    servers.admin(f"DROP DATABASE {made.database} WITH (FORCE)")


def named(stand: Stand, check: str) -> str:
    """What doctor says under a name, with its remedy."""
    found = {row["name"]: row for row in json.loads(stand.aitask("doctor", "--json").out)["checks"]}
    return f"{found[check]['found']} {found[check]['remedy']}" if check in found else ""


def test_two_installations_under_one_namespace_are_told_apart(stand: Stand, other: Stand) -> None:
    stand.start_worker("qwen")
    with stand.streams() as streams:
        wait_for(lambda: streams.owners()[0], what="the owner's name")
        assert "redis namespace" not in {
            row["name"] for row in json.loads(stand.aitask("doctor", "--json").out)["checks"]
        }
        other.start_worker("qwen")
        wait_for(lambda: streams.owners()[1], what="the other's name")
        for number in range(4):
            for one in (stand, other):
                assert one.aitask("ask", f"q{number}", "-m", "qwen", "--wait", "20").code == 0
        wait_for(lambda: streams.client.xlen(streams.keys.tasks("qwen")) == 0, what="an empty stream")
        assert streams.dead_letters() == []
    for said, stranger in (
        (other.logs(), stand),
        (named(other, "redis namespace"), stand),
        (named(stand, "redis namespace"), other),
    ):
        assert stranger.database in said
        assert "another AITASK_NAMESPACE" in said


@pytest.mark.parametrize(
    ("how", "check", "remedy"),
    [
        (("--replicaof", "127.0.0.1"), "redis role", "redis+sentinel://"),
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "redis maxmemory-policy", "noeviction"),
    ],
)
def test_a_redis_that_is_not_as_it_should_be_is_named_before_anything_starts(
    stand: Stand, redises: Valkeys, how: tuple[str, ...], check: str, remedy: str
) -> None:
    port = redises.start(*how, str(redises.start())) if "--replicaof" in how else redises.start(*how)
    stand.more["REDIS_URL"] = f"redis://127.0.0.1:{port}"
    assert remedy in named(stand, check)
    stand.start_worker("qwen")
    assert stand.aitask("ask", "q", "-m", "qwen", "--wait", "60").code == 0
    assert remedy in stand.logs()


def load(stand: Stand, *, tasks: int, seconds: float, during: Callable[[], None]) -> set[str]:
    """Submit all along while something happens."""
    chaos = Chaos(stand, seed=1, tasks=tasks, seconds=seconds)
    submitter = threading.Thread(target=chaos._submit, args=(random.Random(1),))
    submitter.start()
    time.sleep(seconds / 3)
    during()
    submitter.join()
    return chaos.submitted


def fail_over(stand: Stand, redises: Valkeys, *, tasks: int, seconds: float) -> None:
    one = redises.start()
    two = redises.start("--replicaof", "127.0.0.1", str(one))
    sentinel = redises.sentinel(one)
    stand.more |= {"REDIS_URL": f"redis+sentinel://127.0.0.1:{sentinel}/main", "AITASK_LEASE_S": "3"}
    witness(stand)
    for _ in range(2):
        stand.start_worker("-c", "16")

    def promote() -> None:
        redises.kill(one)
        wait_for(lambda: redises.at(two).role()[0] == b"master", what="the promotion")
        # The old primary comes back and, until Sentinel has demoted it, takes writes.
        redises.start(port=one)
        # On a machine that is busy Sentinel trusts its own clock no more and waits for half a minute.
        wait_for(lambda: redises.at(one).role()[0] == b"slave", timeout_s=180, what="the old primary's demotion")

    account(stand, load(stand, tasks=tasks, seconds=seconds, during=promote))
    assert "poison" not in {row[0] for row in stand.query("SELECT error_kind FROM task WHERE status = 2")}


def test_a_fail_over_by_sentinel_in_mid_load_loses_nothing(stand: Stand, redises: Valkeys) -> None:
    fail_over(stand, redises, tasks=90, seconds=5.0)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(3))
def test_fail_overs_by_sentinel_under_load_lose_nothing(stand: Stand, redises: Valkeys, turn: int) -> None:
    fail_over(stand, redises, tasks=1500, seconds=30.0)


def on_cluster(stand: Stand, redises: Valkeys, *, tasks: int, seconds: float, moves: int) -> None:
    ports = redises.cluster()
    # Found out by itself: the URL is one node's.
    stand.more |= {"REDIS_URL": f"redis://127.0.0.1:{ports[0]}", "AITASK_LEASE_S": "3"}
    witness(stand)
    for _ in range(2):
        stand.start_worker("-c", "16")

    def move() -> None:
        for number in range(moves):
            with stand.streams() as streams:
                name = streams.keys.tasks(FAMILIES[number % 3])
                with streams.at(name) as client:
                    source = client.connection_pool.connection_kwargs["port"]
            target = ports[(ports.index(source) + 1) % len(ports)]
            redises.move_slot(key_slot(name.encode()), source, target)

    account(stand, load(stand, tasks=tasks, seconds=seconds, during=move))
    assert "poison" not in {row[0] for row in stand.query("SELECT error_kind FROM task WHERE status = 2")}


def test_slots_that_move_under_load_lose_nothing(stand: Stand, redises: Valkeys) -> None:
    on_cluster(stand, redises, tasks=90, seconds=4.0, moves=3)


@pytest.mark.soak
def test_many_slots_that_move_under_load_lose_nothing(stand: Stand, redises: Valkeys) -> None:
    on_cluster(stand, redises, tasks=1500, seconds=30.0, moves=60)


def test_a_worker_survives_resets_at_any_moment(stand: Stand, redises: Valkeys) -> None:
    port = redises.start()
    witness(stand)
    with Proxy(Target(port=port)) as proxy:
        stand.more |= {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}", "AITASK_LEASE_S": "3"}
        worker = stand.start_worker("-c", "16")

        def reset() -> None:
            for seed in range(10):
                proxy.strike("reset", seed=seed)
                time.sleep(0.05)
            # Between two commands too: so a transport is closed under who goes on using it.
            for _ in range(100):
                proxy.strike("refused")
                proxy.heal()
                time.sleep(0.01)

        submitted = load(stand, tasks=60, seconds=3.0, during=reset)
        account(stand, submitted)
        assert proxy.met["reset"] > 0
        assert proxy.met["refused"] > 0
        assert worker.poll() is None, stand.logs()


def test_a_backlog_behind_an_id_of_the_future_is_sent_once(stand: Stand) -> None:
    """60 tasks became 341 hints in the time that the small worker took for them."""
    with stand.streams() as streams:
        name = streams.keys.tasks("qwen")
        streams.ensure_group("qwen")
        # Never read, as nobody serves the family yet: its id is ahead of every clock.
        streams.client.xadd(name, {"task": new_ordered_id()}, id=f"{int(time.time() * 1000) + 10**9}-0")
        witness(stand)
        for number in range(60):
            stand.submit(f"q{number}", "qwen+latency=0.6")
        stand.start_worker("qwen", "-c", "4")
        wait_for(lambda: stand.query("SELECT count(*) FROM task WHERE status = 1")[0][0] >= 60, what="every answer")
        assert streams.client.xinfo_stream(name)["entries-added"] <= 61 + 2
        account(stand, set())
