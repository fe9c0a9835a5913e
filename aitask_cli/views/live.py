"""The live table: a row per model, the tail of its text; as tall and wide as the terminal allows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aitask_cli.views.words import duration, short_id, state
from aitask_cli.watching import Snapshot
from shared.domain import TaskStatus, TaskView
from shared.text import one_line, tail_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_STYLES = {
    TaskStatus.PENDING: "yellow",
    TaskStatus.PROCESSING: "cyan",
    TaskStatus.SUCCESS: "green",
    TaskStatus.FAILED: "red",
}
# Title, header, its rules, and the line that counts what is not shown.
_LINES_BESIDE_ROWS = 5
_LINES_WITHOUT_HEADER = 2
_LOW = 8
_MANY_COLUMNS = 76


def table(snapshot: Snapshot, *, width: int, height: int, max_failures: int) -> Table:
    """Draw a snapshot. With more models than lines the running ones come first and the rest are counted."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= _MANY_COLUMNS
    low = height < _LOW
    most = max(1, height - (_LINES_WITHOUT_HEADER if low else _LINES_BESIDE_ROWS))
    rows, left_out = _chosen(snapshot.batch.tasks, most)
    cells = [_row(snapshot, task, wide=wide, width=width, max_failures=max_failures) for task in rows]
    drawn = Table(box=None if low else box.SIMPLE_HEAD, show_header=not low, pad_edge=False, width=width)
    # What these two need, within bounds: the text gets the rest.
    for column, (name, most) in enumerate((("model", 28 if wide else 14), ("state", 34 if wide else 20))):
        needed = max(len(name), *(row[column].cell_len for row in cells))
        drawn.add_column(name, no_wrap=True, width=min(most, needed), overflow="ellipsis")
    if wide:
        drawn.add_column("time", no_wrap=True, justify="right", width=8)
        drawn.add_column("first", no_wrap=True, justify="right", width=6)
        drawn.add_column("tokens", no_wrap=True, justify="right", width=6)
    drawn.add_column("text", no_wrap=True, ratio=1, overflow="ellipsis")
    for row in cells:
        drawn.add_row(*row)
    if left_out:
        drawn.add_row(Text(f"… {left_out} more", style="dim"))
    return drawn


def _chosen(tasks: tuple[TaskView, ...], most: int) -> tuple[list[TaskView], int]:
    if len(tasks) <= most:
        return list(tasks), 0
    by_interest = sorted(tasks, key=lambda task: (task.status.terminal, task.status is TaskStatus.PENDING))
    # The last line counts the others; one model is shown however low the terminal is.
    kept = {task.id for task in by_interest[: max(1, most - 1)]}
    return [task for task in tasks if task.id in kept], len(tasks) - len(kept)


def _row(snapshot: Snapshot, task: TaskView, *, wide: bool, width: int, max_failures: int) -> list[Text]:
    from rich.text import Text

    age_s = time.monotonic() - snapshot.at
    said = state(task, max_failures=max_failures, elapsed_s=age_s)
    cells = [Text(one_line(task.name, 60)), Text(said, style=_STYLES[task.status])]
    if wide:
        cells += [Text(_time(task, age_s)), Text(_first(snapshot, task)), Text(_tokens(snapshot, task))]
    return [*cells, Text(_text(snapshot, task, width), style="dim")]


def _time(task: TaskView, age_s: float) -> str:
    if task.status is TaskStatus.PROCESSING and task.running_s is not None:
        return duration(task.running_s + age_s)
    return duration(task.cost_time_s) if task.cost_time_s is not None and task.status.terminal else ""


def _first(snapshot: Snapshot, task: TaskView) -> str:
    partial = snapshot.partial.get(task.id)
    if task.first_token_s is not None:
        return duration(task.first_token_s)
    return duration(partial.first_s) if partial and partial.first_s is not None else ""


def _tokens(snapshot: Snapshot, task: TaskView) -> str:
    if task.completion_tokens is not None:
        return f"{task.completion_tokens:,}"
    partial = snapshot.partial.get(task.id)
    # Before the upstream has counted: about four characters to a token.
    return f"~{partial.characters // 4:,}" if partial and partial.characters and not task.status.terminal else ""


def _text(snapshot: Snapshot, task: TaskView, width: int) -> str:
    if task.status is TaskStatus.SUCCESS:
        return one_line(task.response_text or "", width)
    if task.status is TaskStatus.FAILED or (task.status is TaskStatus.PENDING and task.error_msg):
        return one_line(task.error_msg or "", width)
    partial = snapshot.partial.get(task.id)
    if partial is None:
        return ""
    # The column gets about half the line; the tail must end at its right edge.
    return tail_line(("thinking: " if partial.thinking else "") + partial.tail, max(10, width // 3))


def title(snapshot: Snapshot) -> str:
    """The line above the table."""
    done = sum(task.status.terminal for task in snapshot.batch.tasks)
    return f"batch {short_id(snapshot.batch.id)} · {done} of {len(snapshot.batch.tasks)} finished · Ctrl-C detaches"
