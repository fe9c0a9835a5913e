"""The group of commands and the one error boundary. A command's module is imported only when it is used."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from types import FrameType

# A new command is one module and one line here.
COMMANDS = {
    "ask": ("aitask_cli.commands.ask", "Ask several models the same question."),
    "bulk": ("aitask_cli.commands.bulk", "Submit many prompts from a file."),
    "watch": ("aitask_cli.commands.watch", "Watch a batch until it has finished."),
    "show": ("aitask_cli.commands.show", "Show a batch as it stands."),
    "conv": ("aitask_cli.commands.conv", "List and show conversations."),
    "ls": ("aitask_cli.commands.ls", "List batches, newest first."),
    "ps": ("aitask_cli.commands.ps", "List workers, and what holds their families."),
    "queue": ("aitask_cli.commands.queue", "Show what waits, per family; pause and resume."),
    "pending": ("aitask_cli.commands.pending", "List entries that were read and not finished."),
    "explain": ("aitask_cli.commands.explain", "Say why a task isn't moving."),
    "retry": ("aitask_cli.commands.retry", "Try failed tasks anew."),
    "cancel": ("aitask_cli.commands.cancel", "End tasks that have not ended."),
    "dlq": ("aitask_cli.commands.dlq", "List, retry and remove dead letters."),
    "models": ("aitask_cli.commands.models", "List families, endpoints and their models."),
    "logs": ("aitask_cli.commands.logs", "Print the system log."),
    "worker": ("aitask_cli.commands.worker", "Run a worker for one or more families."),
    "gateway": ("aitask_cli.commands.gateway", "Serve HTTP: the REST API, and OpenAI's chat completions."),
    "simulator": ("aitask_cli.commands.simulator", "Run an upstream that stands in for models."),
    "trust": ("aitask_cli.commands.trust", "Let this directory's .env say where data lie and who may come in."),
    "db": ("aitask_cli.commands.db", "Set the database up."),
    "doctor": ("aitask_cli.commands.doctor", "Say what would stop an ask, and how to mend it."),
    "down": ("aitask_cli.commands.down", "Stop the local servers and the background worker."),
}


class ReaderGone(Exception):
    """Nobody reads standard output any more. Not an OSError: Click would make an exit 1 of it."""


class Terminated(BaseException):
    """SIGTERM came. Not an Exception: nothing but the boundary may stop it."""


class LazyGroup(click.Group):
    """Lists commands from the table and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from aitask_cli.version import version

        click.echo(f"aitask {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def group() -> None:
    """Ask several AI models the same question at once, durably.

    A batch goes on when you press Ctrl-C or close the terminal; `aitask watch` shows it again.

    \b
    Try it without any model or server:
      aitask ask --demo "How do I read a CSV file in Python?" -m gemini,qwen,deepseek
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    _fill_closed_descriptors()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def _fill_closed_descriptors() -> None:
    """Open /dev/null where the caller closed a standard descriptor: the next socket would get its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
        print("aitask: standard output is closed; what goes there is lost", file=sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def run(argv: Sequence[str]) -> int:
    """Run one command. Returns its exit code; a bug keeps its traceback."""
    try:
        code = group.main(args=list(argv), prog_name="aitask", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Terminated:
        return 143
    except ReaderGone:
        # What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # the boundary: expected errors get one line, bugs their traceback
        return _reported(error)
    return code if isinstance(code, int) else 0


def _reported(error: Exception) -> int:
    from aitask_cli.exit_codes import for_error
    from shared.errors import AitaskError

    if not isinstance(error, AitaskError):
        raise error
    from aitask_cli.views.terminal import say

    say(str(error))
    return for_error(error)
