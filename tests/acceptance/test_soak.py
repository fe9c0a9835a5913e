"""Half an hour of moderate load with worker after worker restarted: nothing grows.

AITASK_SOAK_S sets another duration, in seconds.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.accounting import account, witness
from tests.stand import RunningSimulator, Servers, Stand, new_stand

SOAK_S = float(os.environ.get("AITASK_SOAK_S", "1800"))
SEED = int(os.environ.get("AITASK_TEST_SEED", "20261125"))
RESTARTS = 20
EVERY_S = 0.25
# What a process may gain after its first third: allocators keep what a burst once needed.
MORE_MIB, MORE_FILES, MORE_CONNECTIONS, MORE_VALKEY_MIB = 24, 8, 4, 8


@pytest.fixture
def own_stand(own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path) -> Iterator[Stand]:
    made = new_stand(own_servers(), upstream, tmp_path / "home", AITASK_LEASE_S="6")
    witness(made)
    yield made
    made.close()


@dataclass(frozen=True)
class Seen:
    """What there is of what might grow."""

    rss_mib: float
    files: int
    connections: int
    valkey_mib: float


def seen(stand: Stand, pid: int) -> Seen:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    with stand.streams() as streams:
        valkey = streams.client.info("memory")["used_memory"]
    [(connections,)] = stand.query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Seen(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, connections, valkey / 2**20)


@pytest.mark.soak
def test_nothing_grows_under_load_with_twenty_worker_restarts(own_stand: Stand) -> None:
    print(f"seed {SEED}, {SOAK_S:g} s")
    chance = random.Random(SEED)
    stays = own_stand.start_worker()
    others = [own_stand.start_worker() for _ in range(2)]
    ids: set[str] = set()
    restarts, found = 0, []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < SOAK_S:
        made = own_stand.submit(f"p{len(ids)}", "qwen+latency=0.2", "gemini+tokens=40", "deepseek+think")
        ids.update(made.task_ids)
        if passed > (restarts + 1) * SOAK_S / (RESTARTS + 1):
            place = restarts % len(others)
            others[place].send_signal(chance.choice([signal.SIGTERM, signal.SIGKILL]))
            others[place].wait(30)
            others[place] = own_stand.start_worker()
            restarts += 1
        if passed > (len(found) + 4) * SOAK_S / 12:
            found.append(seen(own_stand, stays.pid))
            print(f"{passed:.0f} s, {len(ids)} tasks, {restarts} restarts: {found[-1]}")
        time.sleep(EVERY_S)
    found.append(seen(own_stand, stays.pid))
    print(f"the end, {len(ids)} tasks, {restarts} restarts: {found[-1]}")
    assert restarts >= RESTARTS - 1
    assert stays.poll() is None
    account(own_stand, ids, timeout_s=300)
    assert own_stand.query("SELECT count(*) FROM task WHERE error_kind = 'poison'") == [(0,)]
    first, last = found[0], found[-1]
    assert last.rss_mib - first.rss_mib < MORE_MIB
    assert last.files - first.files < MORE_FILES
    assert last.connections - first.connections <= MORE_CONNECTIONS
    assert last.valkey_mib - first.valkey_mib < MORE_VALKEY_MIB
