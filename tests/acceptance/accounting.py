"""Accounting of every task: what was submitted has ended, once, by the worker that held it."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.domain import NewBatch, NewTask
from shared.errors import AitaskError, DatabaseUnavailable, HintsUnavailable
from shared.ids import new_id, new_ordered_id
from shared.store import operate
from shared.store.submit import submit as write
from tests import history
from tests.history import Call, History, Operation, Seen
from tests.stand import Stand, wait_for


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


@dataclass
class Chaos:
    """Two workers, a submitter, and faults by a seed."""

    stand: Stand
    seed: int
    tasks: int
    seconds: float
    slots: int = 16
    submitted: set[str] = field(default_factory=set)
    operations: list[Operation] = field(default_factory=list)
    allowed_repeats: int = 0
    done: list[str] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self) -> None:
        """Let it all happen, then let the dust settle."""
        print(f"seed {self.seed}")
        chance = random.Random(self.seed)
        self.workers = [self._worker() for _ in range(2)]
        submitter = threading.Thread(target=self._submit, args=(random.Random(self.seed + 1),))
        submitter.start()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            fault = chance.choice(self.faults())
            fault(chance)
            self.done.append(fault.__name__)
            time.sleep(chance.uniform(0.2, 1.0))
            self.workers = [w if w.poll() is None else self._worker() for w in self.workers]
        submitter.join()
        print(f"faults: { {name: self.done.count(name) for name in sorted(set(self.done))} }")

    def faults(self) -> list[Callable[[random.Random], None]]:
        return [
            self.kill, self.freeze, self.terminate, self.flush, self.kill_valkey, self.stop_postgres, self.malformed,
            self.unhinted, self.cancel,
        ]  # fmt: skip

    def _worker(self) -> subprocess.Popen[bytes]:
        return self.stand.start_worker("-c", str(self.slots), ready=False)

    def _submit(self, chance: random.Random) -> None:
        for number in range(self.tasks // 3):
            model = f"+latency={chance.choice(['0', '0.05', '0.5'])}"
            names = [("qwen", f"qwen{model}"), ("gemini", f"gemini{model}"), ("deepseek", f"deepseek{model}")]
            if not self._submitted(f"p{number}", names):
                time.sleep(0.2)
            time.sleep(self.seconds / self.tasks)

    def _submitted(self, prompt: str, names: Sequence[tuple[str, str]], *, hinted: bool = True) -> bool:
        """Submit as the command does, and write down what was told, also when it can't be known."""
        tasks = tuple(NewTask(new_ordered_id(), model, family) for family, model in names)
        batch = NewBatch(id=new_id(), prompt=prompt, tasks=tasks)
        ids = tuple(task.id for task in tasks)
        try:
            with self.stand.db() as db:
                write(db, batch, conversation_id=new_id())
        except DatabaseUnavailable as error:
            self._note("submit", "unknown" if error.unknown else "fail", ids)
            return False
        self._note("submit", "ok", ids)
        self.submitted.update(ids)
        with contextlib.suppress(HintsUnavailable), self.stand.streams() as streams:
            streams.send([(task.family, task.id) for task in tasks] if hinted else [])
        return True

    def _note(self, what: str, told: str, ids: tuple[str, ...]) -> None:
        self.operations.append(Operation(what, told, ids, at=time.monotonic()))

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
        try:
            with self.stand.streams() as streams:
                streams.client.flushall()
        except Exception as error:  # Valkey may be down by another fault
            print(f"no flush: {error}")

    def kill_valkey(self, chance: random.Random) -> None:
        """kill -9, what it held gone for good, back after a moment."""
        self.stand.servers.kill_valkey()
        time.sleep(chance.uniform(0, 1.5))
        self.stand.servers.valkey.start()

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
