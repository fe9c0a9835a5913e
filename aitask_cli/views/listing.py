"""Listings: a Rich table on a terminal, tab-separated lines anywhere else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aitask_cli.views.terminal import console, interactive, out, say
from aitask_cli.views.words import ago, duration, kind_in_words, short_id
from shared.domain import AttemptView, BatchLine, BatchView, Cooldown, Pause, WorkerView
from shared.families import Family
from shared.redaction import masked_url
from shared.text import one_line

if TYPE_CHECKING:
    from aitask_cli.pending import PendingView
    from aitask_cli.probe import Probe
    from aitask_cli.queues import QueueView
    from shared.store.conversations import ConversationLine
    from shared.store.syslog import LogLine
    from shared.streams import DeadLetter


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], *, wide: int) -> None:
    """Print rows; the column `wide` takes what room there is, the others what they need."""
    if not interactive():
        for row in rows:
            out("\t".join(one_line(cell, 100_000) for cell in row))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1 if number == wide else None)
    for row in rows:
        table.add_row(*(Text(one_line(cell, 500)) for cell in row))
    console().print(table)


def print_batches(lines: Sequence[BatchLine]) -> None:
    """Print a listing of batches."""
    if not lines:
        say('there is no batch yet; ask something: aitask ask "…" -m gemini,qwen')
        return
    now = dt.datetime.now(dt.timezone.utc)
    rows = [
        (
            short_id(line.id),
            line.status.value.lower(),
            ago(line.created_at, now),
            ",".join(line.models),
            line.prompt_head,
        )
        for line in lines
    ]
    print_rows(("batch", "status", "asked", "models", "prompt"), rows, wide=4)


def print_attempts(batch: BatchView, tried: Mapping[str, Sequence[AttemptView]]) -> None:
    """Print every ended attempt of a batch's tasks."""
    rows = [
        (
            task.name,
            str(one.number),
            one.outcome,
            kind_in_words(one.error_kind) if one.error_kind else "",
            str(one.http_status or ""),
            duration((one.ended_at - one.started_at).total_seconds()) if one.started_at else "",
            one.worker or "",
            one.error_msg or "",
        )
        for task in batch.tasks
        for one in tried[task.id]
    ]
    print_rows(("model", "attempt", "outcome", "error", "http", "took", "worker", "message"), rows, wide=7)


def print_conversations(lines: Sequence[ConversationLine]) -> None:
    """Print a listing of conversations."""
    now = dt.datetime.now(dt.timezone.utc)
    rows = [(short_id(line.id), ago(line.last_at, now), str(line.batches), line.title) for line in lines]
    print_rows(("conversation", "last", "turns", "begins with"), rows, wide=3)


def print_workers(workers: Sequence[WorkerView], pauses: Sequence[Pause], cooldowns: Sequence[Cooldown]) -> None:
    """Print the workers, and below them what is paused."""
    now = dt.datetime.now(dt.timezone.utc)
    rows = [
        (
            view.id,
            ",".join(view.families),
            f"{view.in_flight}/{view.slots}",
            f"{duration(view.heartbeat_age_s)} ago",
            ago(view.started_at, now),
            "; ".join(held_in_words(name, state) for name, state in view.state.items() if held_in_words(name, state)),
        )
        for view in workers
    ]
    if not rows:
        say("no worker lives; start one: aitask worker")
    print_rows(("worker", "families", "calls", "heartbeat", "started", "held"), rows, wide=5)
    for pause in pauses:
        left = f" for {duration(pause.left_s)} more" if pause.left_s is not None else ""
        say(f"{pause.family} is paused{left}: {pause.reason}")
    for cooled in cooldowns:
        why = f": {cooled.reason}" if cooled.reason else ""
        say(f"{cooled.family}/{cooled.model} is left alone for {duration(cooled.left_s)} more{why}")


def held_in_words(family: str, state: Mapping[str, Any]) -> str:
    """What holds one family in one worker, or nothing; of a part that stays down, that."""
    if "part" in state:
        return f"stays down: {state['part']}: {state.get('said', '')}"
    said = []
    if "paused" in state:
        said.append(f"paused: {state['paused']}")
    if "breaker" in state:
        breaker = state["breaker"]
        said.append(f"endpoint down, next try in {duration(breaker['probe_in_s'])}: {breaker['error']}")
    for model, pace in state.get("models", {}).items():
        said.append(f"{model} slowed to {pace['limit']} at once by 429")
    return f"{family}: {', '.join(said)}" if said else ""


def print_families(found: Sequence[tuple[Family, Probe]], endings: Mapping[str, str]) -> None:
    """Print the families with their endpoints and models, and below them which defaults end."""
    rows = []
    for family, probe in found:
        error = f"{probe.error}; {probe.remedy}" if probe.error and probe.remedy else probe.error
        state = family.missing or error or "answers"
        models = ", ".join(probe.models) if probe.models else ""
        rows.append((family.name, masked_url(family.endpoint), state, family.default_model, models))
    print_rows(("family", "endpoint", "state", "default", "models"), rows, wide=4)
    for said in endings.values():
        say(said)


def print_logs(lines: Sequence[LogLine], *, traces: bool) -> None:
    """Print records of the system log."""
    for line in lines:
        fields = " ".join(f"{key}={one_line(str(value), 2000)}" for key, value in line.fields.items())
        out(f"{line.at.isoformat(timespec='seconds')} {line.level} {one_line(line.message, 2000)}  {fields}")
        if traces and line.trace:
            out(line.trace.rstrip())


def print_pending(views: Sequence[PendingView], *, content: bool) -> None:
    """Print pending entries with their tasks."""
    if not views:
        say("no entry is pending")
    rows = [
        (
            view.entry.family,
            view.entry.entry_id,
            view.state.value,
            view.row.model if view.row else "?",
            short_id(view.row.batch_id) if view.row else "",
            duration(view.entry.idle_s),
            str(view.entry.deliveries),
            duration(view.row.lease_left_s) if view.row and view.row.lease_left_s is not None else "",
            view.entry.consumer,
            *((view.prompt or "",) if content else ()),
        )
        for view in views
    ]
    headings = ("family", "entry", "state", "model", "batch", "idle", "read", "lease left", "consumer")
    print_rows((*headings, *(("prompt",) if content else ())), rows, wide=9 if content else 8)


def print_queues(views: Sequence[QueueView]) -> None:
    """Print what waits and runs, per family."""
    rows = [
        (
            view.counts.family,
            str(view.counts.waiting),
            str(view.counts.running),
            str(view.counts.delayed),
            "?" if view.lag is None else str(view.lag),
            duration(view.counts.oldest_s) if view.counts.oldest_s is not None else "",
            str(view.workers),
            f"paused: {view.paused}" if view.paused else "",
        )
        for view in views
    ]
    print_rows(("family", "waiting", "running", "delayed", "lag", "oldest", "workers", "held"), rows, wide=7)


def print_dead_letters(letters: Sequence[DeadLetter]) -> None:
    """Print dead letters."""
    if not letters:
        say("there is no dead letter")
    rows = [(letter.id, letter.stream, letter.reason, str(dict(letter.fields))) for letter in letters]
    print_rows(("letter", "stream", "reason", "fields"), rows, wide=3)
