"""Accounting of every task: what was submitted has ended, once, by the worker that held it."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.domain import NewBatch, NewTask
from shared.errors import AitaskError
from shared.ids import new_id, new_ordered_id
from shared.store.submit import submit as write
from tests.stand import Stand, wait_for

# A test-only witness: what the invariants forbid is written down by the database itself.
WITNESS = """
CREATE TABLE violation (id uuid, what text, was smallint, now smallint);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN (1, 2) AND NEW.status <> OLD.status THEN
        INSERT INTO violation VALUES (OLD.id, 'a terminal task changed', OLD.status, NEW.status);
    END IF;
    IF OLD.status IN (1, 2) AND NEW.response_text IS DISTINCT FROM OLD.response_text THEN
        INSERT INTO violation VALUES (OLD.id, 'a terminal text changed', OLD.status, NEW.status);
    END IF;
    IF NEW.status = 1 AND OLD.status <> 3 THEN
        INSERT INTO violation VALUES (OLD.id, 'answered without being held', OLD.status, NEW.status);
    END IF;
    IF NEW.status = 1 AND OLD.worker <> current_setting('application_name') THEN
        INSERT INTO violation VALUES (OLD.id, 'a stale worker''s result', OLD.status, NEW.status);
    END IF;
    IF NEW.attempt < OLD.attempt THEN
        INSERT INTO violation VALUES (OLD.id, 'the fence went back', OLD.status, NEW.status);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON task FOR EACH ROW EXECUTE FUNCTION witness();
"""


def witness(stand: Stand) -> None:
    """Set the witness up."""
    stand.query(WITNESS)


def violations(stand: Stand) -> list[tuple[object, ...]]:
    """What the witness saw."""
    return stand.query("SELECT what, count(*) FROM violation GROUP BY what")


def account(stand: Stand, submitted: set[str], *, timeout_s: float = 120.0) -> None:
    """Wait for the end of every task, and check that nothing is lost, doubled, stale or left in Redis."""

    def open_tasks() -> bool:
        return stand.query("SELECT count(*) FROM task WHERE status IN (0, 3)") == [(0,)]

    wait_for(open_tasks, timeout_s=timeout_s, what="the end of every task")
    known = {row[0] for row in stand.query("SELECT id::text FROM task")}
    assert submitted - known == set(), "lost"
    assert stand.query("SELECT count(*) FROM task WHERE status = 2 AND error_kind IS NULL") == [(0,)]
    assert violations(stand) == []
    with stand.streams() as streams:
        for family in ("gemini", "qwen", "deepseek"):
            name = f"{stand.namespace}:tasks:{family}"

            def empty(name: str = name) -> bool:
                if not streams.client.exists(name):
                    return True
                groups = streams.client.xinfo_groups(name)
                return streams.client.xlen(name) == 0 and all(group["pending"] == 0 for group in groups)

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
            self.unhinted,
        ]  # fmt: skip

    def _worker(self) -> subprocess.Popen[bytes]:
        return self.stand.start_worker("-c", str(self.slots), ready=False)

    def _submit(self, chance: random.Random) -> None:
        for number in range(self.tasks // 3):
            model = f"+latency={chance.choice(['0', '0.05', '0.5'])}"
            try:
                made = self.stand.submit(f"p{number}", f"qwen{model}", f"gemini{model}", f"deepseek{model}")
                self.submitted.update(made.task_ids)
            except AitaskError:
                # PostgreSQL was away: refused as a whole, or stored without our knowing; both are accounted for.
                time.sleep(0.2)
            time.sleep(self.seconds / self.tasks)

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
        batch = NewBatch(id=new_id(), prompt="x", tasks=(NewTask(new_ordered_id(), "qwen", "qwen"),))
        try:
            with self.stand.db() as db:
                write(db, batch, conversation_id=new_id())
            self.submitted.add(batch.tasks[0].id)
        except AitaskError as error:
            print(f"nothing submitted: {error}")
