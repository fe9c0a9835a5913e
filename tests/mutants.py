"""`python -m tests.mutants [NAME ...]`: wrong lines, one at a time in a scratch copy, each to be killed by tests.

A mutant names the tests that must kill it. It is survived when they pass, and the run fails loudly when its text is no
longer in the code, when its tests fail without it, or when they can't be run with it.
"""

from __future__ import annotations

import re
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("aitask_cli", "workers", "shared", "tests", "setup.cfg", "pyproject.toml", "README.md", ".env.example")
AT_ONCE = 2
LIMIT_S = 300.0
GUARDS, STORE = "tests/integration/test_guards.py", "tests/integration/test_store.py"
RECORDER, INTAKE, RECONCILER = (f"tests/unit/test_{name}.py" for name in ("recorder", "intake", "reconciler"))
CLAIMS, WORK, RECOVERY = (f"shared/store/{name}.py" for name in ("claims", "work", "recovery"))


@dataclass(frozen=True)
class Mutant:
    """A wrong line, what it stands for, and the tests that must notice it.

    Attributes:
        changes: (text, what is put in its place); each text is in the file exactly once. More than one where the code
            guards twice: each guard alone is then redundant, and a mutant of one of them would change nothing.
    """

    name: str
    path: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the changes made.

        Raises:
            ValueError: a text is not there, or more than once.
        """
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"mutant {self.name!r}: its text is {text.count(old)} times in {self.path}: {old!r}")
            text = text.replace(old, new)
        return text


MUTANTS = (
    # Both joins with the fence: the rows are locked by one and written by the other.
    Mutant(
        "fence off", WORK,
        (
            ("SELECT t.id FROM task t JOIN result r ON t.id = r.id AND t.attempt = r.attempt\n",
             "SELECT t.id FROM task t JOIN result r ON t.id = r.id\n"),
            ("t.id = r.id AND t.attempt = r.attempt AND t.status + 0 = 3\n", "t.id = r.id AND t.status + 0 = 3\n"),
        ),
        (f"{STORE}::test_a_stale_worker_s_result_is_refused",),
    ),
    Mutant(
        "a result recorded whatever the state", WORK,
        (
            ("AND t.attempt = r.attempt\n    WHERE t.status + 0 = 3 ORDER BY", "AND t.attempt = r.attempt ORDER BY"),
            ("t.id = r.id AND t.attempt = r.attempt AND t.status + 0 = 3\n", "t.id = r.id AND t.attempt = r.attempt\n"),
        ),
        (f"{GUARDS}::test_a_result_after_the_lease_s_end_is_refused",),
    ),
    Mutant(
        "acknowledged before the commit", "workers/recorder.py",
        (("            await self._write(self._in_hand)\n",
          "            await self._hints.discard([h.hint for h in self._holdings.snapshot() if h.hint])\n"
          "            await self._write(self._in_hand)\n"),),
        (f"{RECORDER}::test_nothing_is_acknowledged_before_it_is_written",),
    ),
    Mutant(
        "XAUTOCLAIM at 0-0 each pass", "workers/intake.py",
        (("self._cursors[family] = cursor\n", 'self._cursors[family] = "0-0"\n'),),
        (f"{INTAKE}::test_the_cursor_is_carried_on_from_pass_to_pass",),
    ),
    Mutant(
        "lease by the client's clock", CLAIMS,
        (
            ("lease_until = now() + make_interval(secs => :lease_s),", "lease_until = to_timestamp(:lease_s),"),
            ('"lease_s": self.lease_s,', '"lease_s": __import__("time").time() + self.lease_s,'),
        ),
        (f"{GUARDS}::test_leases_go_by_the_database_s_clock_whatever_the_worker_s_says",),
    ),
    Mutant(
        "group at $", "shared/streams/reader.py",
        (('self.namespace, id="0", mkstream=True', 'self.namespace, id="$", mkstream=True'),),
        ("tests/integration/test_streams.py::test_hints_sent_before_the_group_exists_are_read",),
    ),
    # The rows are locked by the look before; the state is guarded again in the deed. Either alone is enough.
    Mutant(
        "rescue without the state guard", RECOVERY,
        (
            ("ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED\n\"\"\")\n\n# `status + 0`",
             "ORDER BY id LIMIT :most\n\"\"\")\n\n# `status + 0`"),
            ("AND t.status + 0 = 3 AND t.lease_until < now()\n    RETURNING", "\n    RETURNING"),
        ),
        (f"{GUARDS}::test_a_result_that_comes_between_a_rescue_s_look_and_its_deed_is_not_overwritten",),
    ),
    Mutant(
        "a cancel keeps the attempt", "shared/store/operate.py",
        (("status = 2, attempt = t.attempt + 1, finished_at", "status = 2, finished_at"),),
        (f"{GUARDS}::test_who_ends_a_running_task_raises_its_fence_and_a_retry_does_not_let_the_old_call_in",),
    ),
    Mutant(
        "a deadline keeps the attempt", RECOVERY,
        (("status = 2, attempt = t.attempt + 1, finished_at", "status = 2, finished_at"),),
        (f"{GUARDS}::test_who_ends_a_running_task_raises_its_fence_and_a_retry_does_not_let_the_old_call_in",),
    ),
    Mutant(
        "a retry by hand begins the attempts anew", "shared/store/operate.py",
        (("status = 0, run_at = now(), enqueued_at = NULL, finished_at = NULL,",
          "status = 0, attempt = 0, run_at = now(), enqueued_at = NULL, finished_at = NULL,"),),
        (f"{GUARDS}::test_who_ends_a_running_task_raises_its_fence_and_a_retry_does_not_let_the_old_call_in",),
    ),
    Mutant(
        "MAXLEN 1,000 on task streams", "shared/streams/sender.py",
        (('("XADD", name, "*", FIELD, task_id)', '("XADD", name, "MAXLEN", "1000", "*", FIELD, task_id)'),),
        (f"{GUARDS}::test_a_long_backlog_of_hints_is_never_trimmed",),
    ),
    Mutant(
        "a consumer's name used again", "workers/worker.py",
        (('{os.getpid()}:{token_hex(3)}"', '{os.getpid()}"'),),
        (f"{RECONCILER}::test_no_two_starts_of_a_worker_have_the_same_name",),
    ),
    Mutant(
        "a heartbeat that never extends", WORK,
        (("UPDATE task t SET lease_until = now() + make_interval(secs => :lease_s)\nFROM held",
          "UPDATE task t SET lease_until = t.lease_until + make_interval(secs => 0 * :lease_s)\nFROM held"),),
        (f"{STORE}::test_a_heartbeat_extends_what_is_held_and_names_what_is_not",),
    ),
    Mutant(
        "a lost lease's call goes on", "workers/heartbeat.py",
        (("        if lost:\n            self._lost(lost)\n", ""),),
        (f"{GUARDS}::test_a_beat_names_the_lease_that_is_lost",),
    ),
    Mutant(
        "Retry-After ignored", "workers/retry.py",
        (("    if error.retry_after_s is None or not (", "    if error.retry_after_s is not None or not ("),),
        ("tests/unit/test_retry.py",),
    ),
    Mutant(
        "a result dropped in 200", "workers/recorder.py",
        (("            results.append(result)\n",
          "            if len(results) != 199:\n                results.append(result)\n"),
         ("        while len(results) < MOST_ROWS and not", "        while len(results) < 199 and not")),
        (f"{RECORDER}::test_every_one_of_a_flood_is_written_once_and_acknowledged",),
    ),
    Mutant(
        "an answer dropped while PostgreSQL is away", "workers/recorder.py",
        (("                tries += 1\n", "                return\n"),),
        (f"{RECORDER}::test_an_answer_waits_for_a_database_that_is_away",),
    ),
    Mutant(
        "a claim ignores run_at", CLAIMS,
        (("WHERE t.status + 0 = 0 AND t.run_at <= now() AND", "WHERE t.status + 0 = 0 AND"),),
        (f"{GUARDS}::test_a_task_is_not_claimed_before_its_time_by_any_way",),
    ),
    Mutant(
        "the watermark sends all again", "workers/reconciler.py",
        (("return min(safe_until, redis_now) - offset - dt.timedelta(seconds=grace_s)", "return database_now"),),
        (f"{GUARDS}::test_a_healthy_backlog_is_not_sent_again",),
    ),
    Mutant(
        "a lost hint is not sent again", "workers/reconciler.py",
        (("self._streams.of(origin).send([(family, task_id) for task_id in ids])", "pass"),),
        (f"{GUARDS}::test_a_lost_hint_is_sent_again_by_a_tick_and_only_once",),
    ),
    Mutant(
        "no grace after an outage", "workers/reconciler.py",
        (("                if self._outage.over():\n                    self._grace.outage_seen()\n",
          "                self._outage.over()\n"),),
        (f"{RECONCILER}::test_after_an_outage_workers_get_a_lease_to_beat_again",),
    ),
    Mutant(
        "no grace for a promoted server", "workers/grace.py",
        (("self._primary_since[server_started], now - up_s)", "now - up_s)"),),
        ("tests/unit/test_grace.py",),
    ),
    Mutant(
        "a stale result's hint stays", "workers/recorder.py",
        (('extra={"task_id": result.id, "attempt": result.attempt})\n',
          'extra={"task_id": result.id, "attempt": result.attempt})\n                continue\n'),),
        (f"{RECORDER}::test_a_stale_result_s_hint_is_acknowledged",),
    ),
    Mutant(
        "a cooled model's task claimed", CLAIMS,
        (("LEFT JOIN model_cooldown c ON c.family = f.family AND c.model = f.model AND c.until > now()",
          "LEFT JOIN model_cooldown c ON false"),),
        (f"{STORE}::test_a_cooled_model_s_tasks_are_passed_over_at_no_cost_and_another_s_are_claimed",),
    ),
    Mutant(
        "a locked row not set aside", "workers/intake.py",
        (("                self._set_aside(named)\n", ""),),
        (f"{INTAKE}::test_a_locked_row_is_set_aside_and_claimed_once_it_is_free",),
    ),
    Mutant(
        "a suspect claimed by its hint", CLAIMS,
        (("WHERE t.status + 0 = 0 AND t.run_at <= now() AND t.rescues < :suspect AND",
          "WHERE t.status + 0 = 0 AND t.run_at <= now() AND 0 < :suspect AND"),),
        (f"{STORE}::test_an_expired_lease_brings_the_task_back_and_the_third_ends_it",),
    ),
    Mutant(
        "poison never ends", RECOVERY,
        (("status = CASE WHEN t.rescues + 1 >= :max_rescues THEN 2 ELSE 0 END", "status = 0"),),
        (f"{STORE}::test_an_expired_lease_brings_the_task_back_and_the_third_ends_it",),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How a mutant fared: who killed it, or why that is not known."""

    mutant: Mutant
    killers: tuple[str, ...]
    trouble: str
    took_s: float


class Scratch:
    """A copy of the tree with an environment of its own: tests in it run the copy, the installed command too."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="aitask-m-"))
        self.tree = self.base / "tree"
        self.tree.mkdir()
        for name in COPIED:
            _copy(ROOT / name, self.tree / name)
        self.python = environment(self.base / "venv", self.tree)

    def run(self, tests: Iterable[str]) -> tuple[int, str]:
        """Run tests, up to the first that fails. Returns pytest's exit code and what it said."""
        try:
            done = subprocess.run(
                [self.python, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--tb=line", *tests],
                cwd=self.tree, capture_output=True, text=True, timeout=LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1, f"not over after {LIMIT_S:g} s"
        return done.returncode, done.stdout + done.stderr

    def remove(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)


def environment(home: Path, tree: Path) -> Path:
    """Make a virtual environment in which `aitask` and tests run this tree, with what is installed here beside it.

    Returns its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    (packages,) = home.glob("lib/python*/site-packages")
    # Paths added by a .pth run no .pth of theirs: an editable install's finder stays behind.
    (packages / "tree.pth").write_text("\n".join([str(tree), *site.getsitepackages()]) + "\n")
    command = home / "bin" / "aitask"
    command.write_text(f"#!{python}\nimport sys\nfrom aitask_cli.main import main\nsys.exit(main())\n")
    command.chmod(0o755)
    return python


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy2(source, target)


def tried(mutant: Mutant) -> Verdict:
    """Apply a mutant to a scratch copy and run its tests."""
    began = time.monotonic()
    scratch = Scratch()
    try:
        path = scratch.tree / mutant.path
        path.write_text(mutant.applied(path.read_text()))
        code, said = scratch.run(mutant.tests)
    finally:
        scratch.remove()
    killers = tuple(re.findall(r"^FAILED \S+?::(\w+)", said, re.MULTILINE)) if code == 1 else ()
    trouble = "" if code in (0, 1) and (code == 0 or killers) else f"its tests could not be run ({code}): {said[-800:]}"
    return Verdict(mutant, killers, trouble, time.monotonic() - began)


def sound(mutants: Sequence[Mutant]) -> str:
    """Run the tests on the copy as it is. Returns what they said where they fail: they would prove nothing."""
    scratch = Scratch()
    try:
        code, said = scratch.run(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    finally:
        scratch.remove()
    return "" if code == 0 else f"the tests fail without any mutant: {said[-2000:]}"


def main(names: Sequence[str]) -> int:
    """Try the mutants that are named, or all. Returns 1 when one survived, 2 when the run proves nothing."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if not chosen:
        print("no such mutant; there are:", *(repr(mutant.name) for mutant in MUTANTS))
        return 2
    for mutant in chosen:
        mutant.applied((ROOT / mutant.path).read_text())
    if trouble := sound(chosen):
        print(trouble)
        return 2
    verdicts = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for verdict in pool.map(tried, chosen):
            said = (
                verdict.trouble or f"killed by {', '.join(verdict.killers)}" if not _survived(verdict) else "SURVIVED"
            )
            print(f"{verdict.mutant.name:45} {verdict.took_s:5.1f} s  {said}", flush=True)
            verdicts.append(verdict)
    survived = sum(_survived(verdict) for verdict in verdicts)
    troubled = sum(bool(verdict.trouble) for verdict in verdicts)
    print(
        f"{len(verdicts)} mutants: {len(verdicts) - survived - troubled} killed, "
        f"{survived} survived, {troubled} not run"
    )
    return 2 if troubled else int(bool(survived))


def _survived(verdict: Verdict) -> bool:
    return not verdict.killers and not verdict.trouble


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
