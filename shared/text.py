"""What text must look like before it is stored, and before it meets a terminal."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# ESC sequences whole (CSI, OSC and the two-byte ones), so that no half of one is left as litter.
_ESCAPE = re.compile(
    # Only one that ends is taken out whole: an unfinished one must not swallow the answer behind it.
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]?|\x9b[0-?]*[ -/]*[@-~]"
)
# C0 but tab and newline, DEL, C1, and the bidirectional overrides that make text read other than it is.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]")


def storable(text: str) -> str:
    """Return text that PostgreSQL's UTF-8 accepts: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def is_storable(text: str) -> bool:
    """Tell whether `storable` would leave the text as it is."""
    return _UNSTORABLE.search(text) is None


def printable(text: str) -> str:
    """Return text without control codes, safe to write to a terminal; newlines and tabs stay."""
    text = text.replace("\r\n", "\n")
    return _CONTROL.sub("", _ESCAPE.sub("", storable(text)))


def one_line(text: str, width: int) -> str:
    """Return the text on one line of at most `width` characters, its tail cut with an ellipsis."""
    # The head is enough: a megabyte need not be cleaned to show eighty characters.
    flat = " ".join(printable(text[: width * 8 + 64]).split())
    return flat if len(flat) <= width else flat[: max(0, width - 1)] + "…"


def tail_line(text: str, width: int) -> str:
    """Return the last `width` characters of the text on one line, what came before shown as an ellipsis."""
    flat = " ".join(printable(text[-(width * 8 + 64) :]).split())
    return flat if len(flat) <= width else "…" + flat[-max(0, width - 1) :]
