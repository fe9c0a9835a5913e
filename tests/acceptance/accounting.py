"""Accounting of every task: what was submitted has ended, once, by the worker that held it."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.domain import NewBatch, NewTask
from shared.errors import AitaskError, DatabaseUnavailable, HintsUnavailable
from shared.ids import new_id, new_ordered_id
from shared.live import LiveReader
from shared.store import operate
from shared.store.submit import submit as write
from tests import history
from tests.history import Call, History, Operation, Seen
from tests.proxy import FAULTS, Proxy
from tests.stand import Stand, wait_for
from tests.wire import Wire


def witness(stand: Stand) -> None:
    """Set the witness up."""
    stand.query(history.WITNESS)


def violations(stand: Stand, operations: Sequence[Operation] = (), seen: Sequence[Seen] = ()) -> list[str]:
    """What the checker finds broken in all that was written down."""
    final = {i: (status, attempt, text) for i, status, attempt, text in stand.query(_FINAL)}
    ids = {(model, prompt): i for i, model, prompt in stand.query(_CALLED)}
    calls = [
        Call(ids[said["model"], said["prompt"]], said["at"])
        for said in stand.upstream.simulator.seen
        if (said["model"], said["prompt"]) in ids
    ]
    book = History(history.read(stand.query), operations, calls, seen, final, lease_s=stand.settings.lease_s)
    return history.check(book)


_FINAL = "SELECT id::text, status, attempt, response_text FROM task"
# Of prompts that several batches share a call can't be told whose it was.
_CALLED = """
SELECT t.id::text, t.model, b.prompt FROM task t JOIN batch b ON b.id = t.batch_id
WHERE b.prompt IN (SELECT prompt FROM batch GROUP BY prompt HAVING count(*) = 1)
"""


def account(
    stand: Stand,
    submitted: set[str],
    *,
    timeout_s: float = 120.0,
    operations: Sequence[Operation] = (),
    seen: Sequence[Seen] = (),
) -> None:
    """Wait for the end of every task, and check that nothing is lost, doubled, stale or left in Redis."""

    def open_tasks() -> bool:
        return stand.query("SELECT count(*) FROM task WHERE status IN (0, 3)") == [(0,)]

    wait_for(open_tasks, timeout_s=timeout_s, what="the end of every task")
    known = {row[0] for row in stand.query("SELECT id::text FROM task")}
    assert submitted - known == set(), "lost"
    assert stand.query("SELECT count(*) FROM task WHERE status = 2 AND error_kind IS NULL") == [(0,)]
    broken = violations(stand, operations, seen)
    assert not broken, broken
    with stand.streams() as streams:
        for family in ("gemini", "qwen", "deepseek"):
            name = streams.keys.tasks(family)

            def empty(name: str = name) -> bool:
                with streams.at(name) as client:
                    groups = client.xinfo_groups(name) if client.exists(name) else []
                    return not client.xlen(name) and all(group["pending"] == 0 for group in groups)

            wait_for(empty, timeout_s=timeout_s, what=f"an empty stream {name}")


# After a fault of Redis its clients find it again, and what was published meanwhile is not there to be watched.
_SETTLED_S = 2.0


class Watcher:
    """Reads running answers as a person's command does, and keeps what it was shown.

    Live output is best effort: what Redis loses a watcher does not see. An answer that ran while Redis was in trouble
    is known up to then only.
    """

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._stop = threading.Event()
        self._troubled_until = 0.0
        self._torn: set[tuple[str, int]] = set()
        self._shown: dict[tuple[str, int], str] = {}
        self._thread = threading.Thread(target=self._run, name="watcher")
        self._thread.start()

    def trouble(self) -> None:
        """Redis is in trouble, or comes out of it."""
        self._troubled_until = time.monotonic() + _SETTLED_S

    def stop(self) -> list[Seen]:
        """End, and say what was shown."""
        self._stop.set()
        self._thread.join()
        return [Seen(task_id, attempt, text) for (task_id, attempt), text in self._shown.items()]

    def _run(self) -> None:
        reader = LiveReader(self._stand.settings.redis_dsn, namespace=self._stand.namespace)
        while not self._stop.wait(0.05):
            running: list[tuple[str, int]] = []
            with contextlib.suppress(Exception):  # PostgreSQL may be down by a fault
                running = [(i, attempt) for i, attempt in self._stand.query(_RUNNING)]
            pieces = reader.read(running[:100], block_s=0.05) if running else []
            if pieces is None:
                self.trouble()
            if time.monotonic() < self._troubled_until:
                self._torn.update(running)
            for piece in pieces or []:
                of = piece.task_id, piece.attempt
                if of not in self._torn and not piece.reasoning and not piece.end:
                    self._shown[of] = self._shown.get(of, "") + piece.text
        reader.close()


_RUNNING = "SELECT id::text, attempt FROM task WHERE status = 3"


@dataclass
class Chaos:
    """Two workers, a submitter, and faults by a seed.

    With `wired` every process has a fault proxy of its own before each server; `inside` is a command for the second
    worker, as one with faults inside; `old` is a running worker of the release before, which is not started again.
    """

    stand: Stand
    seed: int
    tasks: int
    seconds: float
    slots: int = 16
    wired: bool = False
    inside: tuple[str, ...] = ()
    old: subprocess.Popen[bytes] | None = None
    submitted: set[str] = field(default_factory=set)
    operations: list[Operation] = field(default_factory=list)
    allowed_repeats: int = 0
    done: list[str] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    seen: list[Seen] = field(default_factory=list)
    watcher: Watcher | None = None
    _timers: list[threading.Timer] = field(default_factory=list)

    def run(self) -> None:
        """Let it all happen, then let the dust settle."""
        print(f"seed {self.seed}")
        chance = random.Random(self.seed)
        self.wires = [Wire(self.stand) for _ in range(3)] if self.wired else []
        self.watcher = Watcher(self.stand)
        self.workers = [self._worker(place) for place in range(2)]
        if self.old is not None:
            self.workers.append(self.old)
        submitter = threading.Thread(target=self._submit, args=(random.Random(self.seed + 1),))
        submitter.start()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            fault = chance.choice(self.faults())
            fault(chance)
            self.done.append(fault.__name__)
            time.sleep(chance.uniform(0.2, 1.0))
            self.restart()
        submitter.join()
        self._no_more_timers()
        for proxy in self._proxies():
            proxy.heal()
            self.met += proxy.met
        self.seen = self.watcher.stop()
        print(f"watched {len(self.seen)} answers; on the wire: {dict(sorted(self.met.items()))}")
        print(f"faults: { {name: self.done.count(name) for name in sorted(set(self.done))} }")

    def faults(self) -> list[Callable[[random.Random], None]]:
        wire = [self.wire] * 4 if self.wired else []
        return [
            self.kill, self.freeze, self.terminate, self.flush, self.kill_valkey, self.stop_postgres, self.malformed,
            self.unhinted, self.cancel, self.retry, *wire,
        ]  # fmt: skip

    def restart(self) -> None:
        """Start again what has ended."""
        self.workers = [
            w if w.poll() is None else self._worker(place) for place, w in enumerate(self.workers) if w is not self.old
        ] + [w for w in self.workers if w is self.old and w.poll() is None]

    def close(self) -> None:
        """End the workers, then what they spoke through."""
        self._no_more_timers()
        if self.watcher is not None:
            self.watcher.stop()
        self.stand.close()
        for wire in self.wires:
            wire.stop()

    def _no_more_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()

    def _proxies(self) -> list[Proxy]:
        return [proxy for wire in self.wires for proxy in wire.both]

    def _worker(self, place: int) -> subprocess.Popen[bytes]:
        more: dict[str, Any] = {"command": self.inside} if self.inside and place == 1 else {}
        wire = self.wires[place].variables if self.wires else {}
        return self.stand.start_worker("-c", str(self.slots), ready=False, **more, **wire)

    @property
    def _client(self) -> Stand:
        """The stand as the submitter reaches it."""
        return replace(self.stand, more={**self.stand.more, **self.wires[2].variables}) if self.wires else self.stand

    def _submit(self, chance: random.Random) -> None:
        for number in range(self.tasks // 3):
            model = f"+latency={chance.choice(['0', '0.05', '0.5'])}+{chance.choice(['tokens=5', 'tokens=60+tps=60'])}"
            names = [("qwen", f"qwen{model}"), ("gemini", f"gemini{model}"), ("deepseek", f"deepseek{model}")]
            # As one who is not sure does: the same again under the same key, which makes one batch.
            key = f"k{number}" if chance.random() < 0.3 else None
            for _ in range(2 if key else 1):
                if not self._submitted(f"p{number}", names, key=key):
                    time.sleep(0.2)
            time.sleep(self.seconds / self.tasks)

    def _submitted(
        self, prompt: str, names: Sequence[tuple[str, str]], *, hinted: bool = True, key: str | None = None
    ) -> bool:
        """Submit as the command does, and write down what was told, also when it can't be known."""
        tasks = tuple(NewTask(new_ordered_id(), model, family) for family, model in names)
        batch = NewBatch(id=new_id(), prompt=prompt, tasks=tasks, idempotency_key=key, request_hash=key)
        ids = tuple(task.id for task in tasks)
        try:
            with self._client.db() as db:
                written = write(db, batch, conversation_id=new_id())
        except DatabaseUnavailable as error:
            self._note("submit", "unknown" if error.unknown else "fail", ids, key=key)
            return False
        self._note("submit", "ok", written.task_ids, key=key, batch_id=written.batch_id)
        self.submitted.update(written.task_ids)
        if not written.new:
            return True
        with contextlib.suppress(HintsUnavailable), self._client.streams() as streams:
            streams.send([(task.family, task.id) for task in tasks] if hinted else [])
        return True

    def _note(self, what: str, told: str, ids: tuple[str, ...], *, key: str | None = None, batch_id: str = "") -> None:
        self.operations.append(Operation(what, told, ids, at=time.monotonic(), key=key, batch_id=batch_id))

    def wire(self, chance: random.Random) -> None:
        """What networks do, to one process' connections to one server, for a while."""
        proxy, fault = chance.choice(self._proxies()), chance.choice(FAULTS)
        self.allowed_repeats += self.slots
        redis = any(proxy is wire.redis for wire in self.wires)
        if redis:
            self._trouble()
        proxy.strike(fault, share=chance.choice([0.5, 1.0]), seed=chance.randrange(1 << 30))

        def over() -> None:
            proxy.heal()
            if redis:
                self._trouble()

        timer = threading.Timer(chance.uniform(0.2, 4.0), over)
        self._timers.append(timer)
        timer.start()

    def _trouble(self) -> None:
        if self.watcher is not None:
            self.watcher.trouble()

    def retry(self, chance: random.Random) -> None:
        """Open something anew that has failed, as by hand."""
        try:
            failed = sorted(i for (i,) in self.stand.query("SELECT id::text FROM task WHERE status = 2"))
        except Exception as error:  # PostgreSQL may be down by another fault
            print(f"no retry: {error}")
            return
        chosen = [chance.choice(failed)] if failed else []
        try:
            with self._client.db() as db:
                opened = [task_id for _, task_id in operate.retry(db, chosen)]
        except AitaskError:
            self._note("retry", "unknown", tuple(chosen))
        else:
            self._note("retry", "ok", tuple(opened))

    def cancel(self, chance: random.Random) -> None:
        """Cancel something, finished or not."""
        with contextlib.suppress(AitaskError), self.stand.db() as db:
            chosen = chance.choice(sorted(self.submitted) or [""])
            ended = operate.cancel(db, [chosen]) if chosen else []
            self._note("cancel", "ok", tuple(ended))

    def _some_worker(self, chance: random.Random) -> subprocess.Popen[bytes]:
        self.allowed_repeats += self.slots
        return chance.choice(self.workers)

    def kill(self, chance: random.Random) -> None:
        self._some_worker(chance).kill()

    def freeze(self, chance: random.Random) -> None:
        """Longer than the lease, so that another takes over before it wakes."""
        worker = self._some_worker(chance)
        worker.send_signal(signal.SIGSTOP)
        threading.Timer(float(self.stand.settings.lease_s) * 2, worker.send_signal, (signal.SIGCONT,)).start()

    def terminate(self, chance: random.Random) -> None:
        self._some_worker(chance).terminate()

    def flush(self, chance: random.Random) -> None:
        self._trouble()
        try:
            with self.stand.streams() as streams:
                streams.client.flushall()
        except Exception as error:  # Valkey may be down by another fault
            print(f"no flush: {error}")

    def kill_valkey(self, chance: random.Random) -> None:
        """kill -9, what it held gone for good, back after a moment."""
        self._trouble()
        self.stand.servers.kill_valkey()
        time.sleep(chance.uniform(0, 1.5))
        self.stand.servers.valkey.start()
        self._trouble()

    def stop_postgres(self, chance: random.Random) -> None:
        self.stand.servers.stop_postgres_at_once()
        time.sleep(chance.uniform(0, 1.5))
        self.stand.servers.postgres.start()

    def malformed(self, chance: random.Random) -> None:
        try:
            with self.stand.streams() as streams:
                for _ in range(20):
                    name = f"{self.stand.namespace}:tasks:{chance.choice(['qwen', 'gemini'])}"
                    streams.client.xadd(name, {chance.choice(["task", "x"]): chance.randbytes(8)})
        except Exception as error:  # Valkey may be down by another fault
            print(f"no malformed entries: {error}")

    def unhinted(self, chance: random.Random) -> None:
        """A submitter that dies between its commit and its XADD."""
        self._submitted(f"x{chance.random()}", [("qwen", "qwen")], hinted=False)
