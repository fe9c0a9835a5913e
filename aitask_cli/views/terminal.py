"""Writing: notices on stderr, data on stdout, never a control code that came from elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from aitask_cli.main import ReaderGone
from shared.text import printable

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
    """Write JSON to stdout. DEL and C1 are escaped: JSON itself escapes only C0, and a terminal obeys them all."""
    _write("".join(f"\\u{ord(c):04x}" if "\x7f" <= c <= "\x9f" else c for c in text) + "\n")


def _write(text: str) -> None:
    # Whatever the locale says, models answer in every script.
    data = text.encode("utf-8", "replace")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def interactive() -> bool:
    """Tell whether there is a terminal to draw on."""
    import os

    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "")


def console() -> Console:
    """A console on stdout; NO_COLOR is honoured by Rich itself."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
