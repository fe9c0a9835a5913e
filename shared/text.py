"""What text must look like before it is stored, and before it meets a terminal."""

from __future__ import annotations

import json
import re
import unicodedata

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# ESC sequences whole (CSI, OSC and the two-byte ones), so that no half of one is left as litter.
_ESCAPE = re.compile(
    # Only one that ends is taken out whole: an unfinished one must not swallow the answer behind it.
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]?|\x9b[0-?]*[ -/]*[@-~]"
)
# C0 but tab and newline, DEL, C1.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What makes text read other than it is, or hides text in it: bidirectional controls and marks, zero-width characters,
# separators that only some programs break a line at, interlinear marks, tags (Unicode Technical Reports 36 and 55).
_UNSEEN = re.compile(
    "[\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d"
_VIRAMA = 9


def storable(text: str) -> str:
    """Return text that PostgreSQL's UTF-8 accepts: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def is_storable(text: str) -> bool:
    """Tell whether `storable` would leave the text as it is."""
    return _UNSTORABLE.search(text) is None


def printable(text: str) -> str:
    """Return text that is safe to write to a terminal; newlines and tabs stay.

    Control codes are taken out. Characters that would not be seen or would turn text around are shown as escapes
    such as `\\u202e`: taken out, they would hide that they were there.
    """
    text = text.replace("\r\n", "\n")
    return _UNSEEN.sub(_shown, _CONTROL.sub("", _ESCAPE.sub("", storable(text))))


def json_escaped(text: str) -> str:
    """Return JSON text whose controls and unseen characters are JSON escapes: it says the same and shows nothing."""
    return _CONTROL.sub(_as_json, _UNSEEN.sub(_as_json, text))


def _shown(match: re.Match[str]) -> str:
    char = match[0]
    if char in _JOINERS and _joins(match.string, match.start()):
        return char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def _as_json(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if ord(match[0]) > 0x7F else f"\\u{ord(match[0]):04x}"


def _joins(text: str, at: int) -> bool:
    """Whether the joiner there does what joiners are for: within an emoji, or between letters of a joining script."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if before and unicodedata.combining(before) == _VIRAMA:
        return True
    return _joinable(before) and _joinable(after)


def _joinable(char: str) -> bool:
    return bool(char) and not char.isascii() and unicodedata.category(char)[0] in "LMS"


def one_line(text: str, width: int) -> str:
    """Return the text on one line of at most `width` characters, its tail cut with an ellipsis."""
    # The head is enough: a megabyte need not be cleaned to show eighty characters.
    flat = " ".join(printable(text[: width * 8 + 64]).split())
    return flat if len(flat) <= width else flat[: max(0, width - 1)] + "…"


def tail_line(text: str, width: int) -> str:
    """Return the last `width` characters of the text on one line, what came before shown as an ellipsis."""
    flat = " ".join(printable(text[-(width * 8 + 64) :]).split())
    return flat if len(flat) <= width else "…" + flat[-max(0, width - 1) :]
