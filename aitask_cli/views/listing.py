"""Listings: a Rich table on a terminal, tab-separated lines anywhere else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from aitask_cli.views.terminal import console, interactive, out, say
from aitask_cli.views.words import ago, duration, kind_in_words, short_id
from shared.domain import AttemptView, BatchLine, BatchView
from shared.text import one_line


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
            task.model,
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
