"""Writing: notices on stderr, data on stdout, never a control code that came from elsewhere."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from aitask_cli.main import ReaderGone
from shared.errors import AitaskError
from shared.text import json_escaped, printable

if TYPE_CHECKING:
    from rich.console import Console


def say(message: str) -> None:
    """Write one notice to stderr. A stderr that is gone stops nothing."""
    try:
        print(f"aitask: {printable(message)}", file=sys.stderr, flush=True)
    except OSError:
        pass


def out(text: str) -> None:
    """Write text to stdout, made safe for a terminal: a pipe may end in one."""
    _write(printable(text) + "\n")


def out_json(text: str) -> None:
    """Write JSON to stdout, with escapes for what a terminal would obey or not show."""
    _write(json_escaped(text) + "\n")


def _write(text: str) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode(_encoding(), "replace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        # What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise AitaskError(f"can't write to standard output: {error.strerror}") from None


def _encoding() -> str:
    """The terminal's own. Programs and files get UTF-8, whatever the locale says: models answer in every script."""
    return sys.stdout.encoding if sys.stdout.isatty() else "utf-8"


def interactive() -> bool:
    """Tell whether there is a terminal to draw on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "")


def console() -> Console:
    """A console on stdout; NO_COLOR is honoured by Rich itself."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that is not UTF-8 can't show every script; it must not end the command.
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
