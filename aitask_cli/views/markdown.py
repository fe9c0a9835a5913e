"""Markdown from a model, cleaned after it is decoded: an entity such as `&#x202E;` is a control only then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markdown import Markdown
from rich.segment import Segment

from shared.text import printable

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult


def cleaned_markdown(text: str) -> Cleaned:
    """Markdown as something to print, of which no character is a control of the terminal."""
    parsed = Markdown(printable(text), hyperlinks=False)
    _clean(parsed.parsed)
    return Cleaned(parsed)


def _clean(tokens: Iterable[Token]) -> None:
    # Before the layout: an escape is wider than what it stands for.
    for token in tokens:
        token.content = printable(token.content)
        token.info = printable(token.info)
        token.attrs = {name: printable(v) if isinstance(v, str) else v for name, v in token.attrs.items()}
        _clean(token.children or ())


class Cleaned:
    """What is drawn, cleaned once more: whatever way there may be for text around the tokens."""

    def __init__(self, inner: Markdown) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
