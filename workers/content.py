"""What the bytes of an answer are, judged by themselves and not by their label. Pure."""

from __future__ import annotations

import codecs
from enum import Enum

# Charsets by name. Python knows others, some of which take minutes for a megabyte (punycode) or are none of text.
_CHARSETS = {
    "ascii", "us-ascii", "latin1", "latin-1", "utf-16", "utf-16le", "utf-16be", "utf-16-le", "utf-16-be", "utf-32",
    "gbk", "gb2312", "gb18030", "big5", "big5-hkscs", "shift_jis", "shift-jis", "sjis",
    "euc-jp", "euc-kr", "ks_c_5601-1987",    "iso-2022-jp", "koi8-r", "koi8-u", "tis-620",
    *(f"iso-8859-{n}" for n in (*range(1, 12), *range(13, 17))), *(f"windows-125{n}" for n in range(9)),
}  # fmt: skip
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:")
_SPACE = b" \t\r\n"
_BOM = codecs.BOM_UTF8


class Kind(Enum):
    """What a body turns out to be."""

    EVENTS = "events"
    JSON = "json"
    HTML = "html"
    TEXT = "text"


def begins_as(head: bytes, *, final: bool = False) -> Kind | None:
    """Tell by its first bytes what a body is; None while they leave it open.

    Args:
        final: there are no more.
    """
    if not final and len(head) < len(_BOM) and _BOM.startswith(head):
        return None
    start = head.removeprefix(_BOM).lstrip(_SPACE)
    if not start:
        return Kind.TEXT if final else None
    if start[:1] in (b"{", b"[", b"\0", b"\xff", b"\xfe"):
        return Kind.JSON
    if start[:1] == b"<":
        return Kind.HTML
    if start[:1] == b":" or start.startswith(_FIELDS):
        return Kind.EVENTS
    if not final and any(field.startswith(start) for field in _FIELDS):
        return None
    return Kind.TEXT


def charset_of(content_type: str) -> str | None:
    """Return the charset that a content type names, if it is one that is read."""
    named = content_type.partition("charset=")[2].split(";")[0].strip(" \"'").lower()
    return named if named in _CHARSETS else None


def decoded(body: bytes, content_type: str) -> str:
    """Return a body's text. JSON is UTF-8 (RFC 8259), so what is valid UTF-8 is that, whatever its label says."""
    unicode = _wide(body)
    if unicode is not None:
        return body.decode(unicode, "replace")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode(charset_of(content_type) or "utf-8-sig", "replace")


def _wide(body: bytes) -> str | None:
    """Tell UTF-16 and UTF-32 by their mark, or by where the zeros of a first ASCII character are (RFC 4627, 3)."""
    head = body[:4]
    if head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    zeros = "".join("0" if byte == 0 else "x" for byte in head)
    return {
        "000x": "utf-32-be",
        "x000": "utf-32-le",
        "0x0x": "utf-16-be",
        "x0x0": "utf-16-le",
    }.get(zeros)
