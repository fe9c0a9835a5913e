"""Server-sent events, decoded as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import codecs
import re

_LINE_END = re.compile("\r\n|\n|\r")


class EventDecoder:
    """Turns chunks of bytes into the data of whole events. Comments and other fields are dropped."""

    def __init__(self) -> None:
        # Bad bytes inside an answer become U+FFFD: a broken character is no reason to lose a text.
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of the events that this chunk completes."""
        self._rest += self._bytes.decode(chunk)
        if "\r" not in self._rest and not self._data:
            return self._plain_events()
        # A CR at the very end may be half of a CRLF.
        held = "\r" if self._rest.endswith("\r") else ""
        lines = _LINE_END.split(self._rest[: len(self._rest) - len(held)])
        self._rest = lines.pop() + held
        return self._events(lines)

    def _plain_events(self) -> list[str]:
        """The same for what nearly every server sends: one `data: ` line and one blank line for each event."""
        blocks = self._rest.split("\n\n")
        self._rest = blocks.pop()
        events = []
        for block in blocks:
            if block.startswith("data: ") and "\n" not in block:
                events.append(block[6:])
            else:
                events += self._events([*block.split("\n"), ""])
        return events

    def finish(self) -> list[str]:
        """Return the data of a last event that no blank line ended: some servers leave it out."""
        rest, self._rest = self._rest + self._bytes.decode(b"", final=True), ""
        return self._events([*_LINE_END.split(rest.rstrip("\r")), ""])

    def _events(self, lines: list[str]) -> list[str]:
        events = []
        for line in lines:
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data.clear()
        return events
