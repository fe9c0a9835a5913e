"""A batch's answers: rendered on a terminal, plain anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aitask_cli.views.terminal import console, interactive, out, say
from aitask_cli.views.words import duration, flaws, reason, state
from shared.domain import BatchView, TaskStatus, TaskView
from shared.text import printable

if TYPE_CHECKING:
    from rich.console import Console

# Markdown of more than this takes longer to lay out than anybody waits.
_MARKDOWN_CHARS = 200_000


def print_answers(batch: BatchView, *, raw: bool, reasoning: bool, max_failures: int) -> None:
    """Print what there is of a batch's answers, in the order asked."""
    if interactive():
        _rendered(console(), batch, raw=raw, reasoning=reasoning, max_failures=max_failures)
    else:
        out(plain(batch, reasoning=reasoning, max_failures=max_failures))
        _say_flaws(batch)


def _say_flaws(batch: BatchView) -> None:
    """A lone answer in a pipe is the answer alone; that it is not whole is said beside it."""
    if len(batch.tasks) == 1 and (found := flaws(batch.tasks[0])):
        say(f"{batch.tasks[0].name}: {'; '.join(found)}")


def print_conversation(batches: Sequence[BatchView], *, raw: bool, max_failures: int) -> None:
    """Print a conversation: each prompt, then its answers."""
    for batch in batches:
        quoted = "\n".join(f"> {line}" for line in batch.prompt.splitlines())
        if interactive():
            from rich.text import Text

            console().print(Text(printable(quoted), style="bold"))
        else:
            out(quoted + "\n")
        print_answers(batch, raw=raw, reasoning=False, max_failures=max_failures)
        if not interactive():
            out("")


def plain(batch: BatchView, *, reasoning: bool, max_failures: int) -> str:
    """The answers as plain text: alone when there is one model, each under its model's name otherwise."""
    parts = []
    for task in batch.tasks:
        body = _body(task, reasoning=reasoning, max_failures=max_failures)
        found = flaws(task)
        head = f"## {task.name}" + (f" ({'; '.join(found)})" if found else "")
        parts.append(body if len(batch.tasks) == 1 else f"{head}\n\n{body}")
    return "\n\n".join(parts)


def _body(task: TaskView, *, reasoning: bool, max_failures: int) -> str:
    thought = f"<think>\n{task.reasoning_text}\n</think>\n\n" if reasoning and task.reasoning_text else ""
    if task.status is TaskStatus.SUCCESS:
        return thought + (task.response_text or "").strip("\n")
    if task.status is TaskStatus.FAILED:
        return f"[failed: {reason(task)}]"
    return f"[{state(task, max_failures=max_failures)}]"


def _rendered(screen: Console, batch: BatchView, *, raw: bool, reasoning: bool, max_failures: int) -> None:
    from rich.rule import Rule
    from rich.text import Text

    from aitask_cli.views.markdown import cleaned_markdown

    for task in batch.tasks:
        screen.print(Rule(Text(_heading(task, max_failures=max_failures)), align="left", style="cyan"))
        if reasoning and task.reasoning_text:
            screen.print(Text(printable(task.reasoning_text).strip() + "\n", style="dim"))
        elif task.reasoning_text:
            screen.print(Text(f"(reasoning of {len(task.reasoning_text):,} characters: --reasoning)", style="dim"))
        if task.status is not TaskStatus.SUCCESS:
            style = "red" if task.status is TaskStatus.FAILED else "yellow"
            screen.print(Text(_body(task, reasoning=False, max_failures=max_failures), style=style))
            continue
        text = printable(task.response_text or "")
        if raw or len(text) > _MARKDOWN_CHARS:
            screen.print(Text(text), soft_wrap=True)
        else:
            screen.print(cleaned_markdown(text))
        screen.print()


def _heading(task: TaskView, *, max_failures: int) -> str:
    facts = [printable(task.name)]
    if task.status is TaskStatus.SUCCESS and task.cost_time_s is not None:
        facts.append(duration(task.cost_time_s))
        if task.completion_tokens is not None:
            facts.append(f"{task.completion_tokens:,} tokens")
        facts += flaws(task)
    else:
        facts.append(state(task, max_failures=max_failures))
    return " · ".join(facts)
