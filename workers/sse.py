"""Server-sent events, decoded as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Every byte is looked at a bounded number of times, however the stream is cut and whether or not an event ends.
"""

from __future__ import annotations

import codecs
import re

_BLANK_LINES = re.compile("\n{3,}")


class NamedEvent(str):
    """The data of an event that came with a name (`event: error`), or of a field `error:` of its own."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, data: str, name: str) -> NamedEvent:
        made = super().__new__(cls, data)
        made.name = name
        return made


class EventDecoder:
    """Turns chunks of bytes into the data of whole events; those that have a name come as `NamedEvent`.

    Comments, other fields and events without data are dropped. `waits` counts the lines that carry nothing: comments
    and blank lines, by which a server says that it is still there.
    """

    def __init__(self, charset: str | None = None) -> None:
        """Args:
        charset: what bytes are that prove not to be UTF-8; the standard knows none but UTF-8.
        """
        self._bytes: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
        self._otherwise = charset or "utf-8"
        # The pieces of a line that has no end yet: joined once, when it ends.
        self._line: list[str] = []
        self._data: list[str] = []
        self._name = ""
        self._after_cr = False
        self._begun = False
        self.waits = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of the events that this chunk completes."""
        text = self._decoded(chunk)
        if self._after_cr or "\r" in text:
            text = self._plain_ends(text)
        if "\n\n\n" in text:
            # A blank line behind a blank line says nothing; there may be 64,000 of them in a chunk.
            self.waits += 1
            text = _BLANK_LINES.sub("\n\n", text)
        if "\n" not in text:
            self._line.append(text)
            return []
        if self._line:
            text = "".join(self._line) + text
            self._line.clear()
        return self._lines(text) if self._data or self._name else self._blocks(text)

    def finish(self) -> list[str]:
        """Return the data of a last event that no blank line ended: some servers leave it out."""
        last = self._decoded(b"", final=True)
        return self.feed_text(f"{last}\n\n")

    def feed_text(self, text: str) -> list[str]:
        """The same for text that has been decoded already."""
        return self._lines("".join([*self._line, self._plain_ends(text)]))

    def _decoded(self, chunk: bytes, *, final: bool = False) -> str:
        try:
            text = self._bytes.decode(chunk, final)
        except UnicodeDecodeError:
            # Bad bytes inside an answer become U+FFFD: a broken character is no reason to lose a text.
            held = self._bytes.getstate()[0]
            self._bytes = codecs.getincrementaldecoder(self._otherwise)("replace")
            text = self._bytes.decode(held + chunk, final)
        if not self._begun and text:
            self._begun = True
            text = text.removeprefix("\ufeff")
        return text

    def _plain_ends(self, text: str) -> str:
        """Make every line's end one LF, also where a CRLF is cut in two."""
        if self._after_cr:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _blocks(self, text: str) -> list[str]:
        """What nearly every server sends: one `data: ` line and one blank line for each event."""
        blocks = text.split("\n\n")
        rest = blocks.pop()
        events: list[str] = []
        for block in blocks:
            if block.startswith("data: ") and "\n" not in block and len(block) > 6:
                events.append(block[6:])
            elif block:
                events += self._lines(f"{block}\n\n")
            else:
                self.waits += 1
        # Whole lines of an event that has no end yet are taken in now, and never looked at again.
        return events + self._lines(rest) if rest else events

    def _lines(self, text: str) -> list[str]:
        events: list[str] = []
        lines = text.split("\n")
        last = lines.pop()
        for line in lines:
            if not line:
                self._end(events)
            elif line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            else:
                self._field(line)
        # `feed_text` gives the line's beginning along, and it must not come twice.
        self._line[:] = [last] if last else []
        return events

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "event":
            self._name = value.strip()
        elif name == "error":
            # Not of the standard: llama.cpp's server says so what went wrong.
            self._name = "error"
            self._data.append(value.removeprefix(" "))
        elif name == "data":
            self._data.append("")
        elif not name:
            self.waits += 1

    def _end(self, events: list[str]) -> None:
        data, name = "\n".join(self._data), self._name
        self._data.clear()
        self._name = ""
        if data:
            events.append(NamedEvent(data, name) if name else data)
        else:
            self.waits += 1
