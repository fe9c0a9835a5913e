"""Watching on the screen: a live table on a terminal, a line per state change anywhere else."""

from __future__ import annotations

from collections.abc import Iterator

from aitask_cli.views.live import table, title
from aitask_cli.views.terminal import console, interactive, say
from aitask_cli.views.words import duration, reason, state
from aitask_cli.watching import Snapshot
from shared.domain import BatchView, TaskStatus, TaskView

# Five frames a second look alive; each costs the terminal and us a few ms.
FRAME_S = 0.2
PLAIN_STEP_S = 0.5


def draw(snapshots: Iterator[Snapshot], *, max_failures: int) -> BatchView | None:
    """Draw snapshots as they come. Returns the batch as last seen."""
    if interactive():
        return _draw_live(snapshots, max_failures=max_failures)
    return _draw_lines(snapshots, max_failures=max_failures)


def step_s() -> float:
    """How often a snapshot is wanted, in seconds."""
    return FRAME_S if interactive() else PLAIN_STEP_S


def _draw_live(snapshots: Iterator[Snapshot], *, max_failures: int) -> BatchView | None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    screen = console()
    last = None
    # Transient: what stays on the screen are the answers.
    with Live(console=screen, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        for snapshot in snapshots:
            last = snapshot.batch
            drawn = table(snapshot, width=screen.width, height=screen.height, max_failures=max_failures)
            head = Text(title(snapshot), style="bold", no_wrap=True, overflow="ellipsis")
            live.update(Group(head, drawn), refresh=True)
    return last


def _draw_lines(snapshots: Iterator[Snapshot], *, max_failures: int) -> BatchView | None:
    said: dict[str, tuple[object, ...]] = {}
    last = None
    for snapshot in snapshots:
        last = snapshot.batch
        for task in snapshot.batch.tasks:
            now = (task.status, task.attempt, task.error_kind)
            if said.get(task.id) != now:
                said[task.id] = now
                say(_line(task, max_failures=max_failures))
    return last


def _line(task: TaskView, *, max_failures: int) -> str:
    text = f"{task.name}: {state(task, max_failures=max_failures)}"
    if task.status is TaskStatus.FAILED:
        return f"{task.name}: failed: {reason(task)}"
    if task.status is TaskStatus.SUCCESS and task.cost_time_s is not None:
        text += f" in {duration(task.cost_time_s)}"
    return text
