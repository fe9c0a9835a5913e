"""Text on its way to the database and to a terminal."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aitask_cli.views.markdown import cleaned_markdown
from shared.text import is_storable, json_escaped, one_line, printable, storable, tail_line

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
UNSEEN = BIDI + "\u200b\u2028\u2029\ufeff\U000e0041"


def obeyed(text: str) -> set[str]:
    """The characters of a text that a terminal would obey, or that would turn or hide what is around them."""
    return {c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F or c in UNSEEN}


@given(st.text(st.characters(), max_size=200))
def test_storable_text_has_no_nul_and_encodes(text: str) -> None:
    assert is_storable(storable(text))
    storable(text).encode()
    assert "\x00" not in storable(text)


@given(st.text(st.characters(), max_size=200))
def test_printable_text_has_no_control_codes(text: str) -> None:
    assert obeyed(printable(text)) == set()


HOSTILE = st.sampled_from(
    [
        *UNSEEN, "\x1b[31m", "\x9b", "\r", "\x0c", "&#x202E;", "&#8238;", "&rlm;", "&lrm;", "&zwj;", "&#27;", "&#x9b;",
        "&#12;", "&#13;", "&#xE0041;", "[", "](http://x/", ")", "![", "`", "```", "\n", "\n\n", "# ", "- ", "*",
        "<b>", ">",
        "| a | b |\n|---|---|\n",
    ]
)  # fmt: skip


def drawn(text: str, width: int = 60) -> str:
    screen = Console(file=io.StringIO(), width=width)
    screen.print(cleaned_markdown(text))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@given(st.lists(st.one_of(HOSTILE, st.text(st.characters(), max_size=8)), max_size=25).map("".join))
def test_markdown_that_is_drawn_has_no_control_codes_whatever_its_entities_mean(text: str) -> None:
    assert obeyed(drawn(text)) == set()


def test_an_entity_for_a_bidirectional_control_is_shown_as_an_escape_within_the_width() -> None:
    shown = drawn("pay &#x202E;elpoep&#x202C; " * 8)
    assert shown.count("\\u202e") == 8
    assert all(len(line) <= 60 for line in shown.splitlines())


@given(st.text(st.characters(), max_size=200))
def test_json_has_escapes_for_controls_and_says_the_same(text: str) -> None:
    shown = json_escaped(json.dumps(storable(text), ensure_ascii=False))
    assert obeyed(shown) == set()
    assert json.loads(shown) == storable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x9b31mb", "ab"),
        ("over\rwritten", "overwritten"),
        ("right\u202eleft", "right\\u202eleft"),
        ("zero\u200bwidth, tag \U000e0041", "zero\\u200bwidth, tag \\U000e0041"),
        ("line\u2028next", "line\\u2028next"),
        ("family \U0001f469\u200d\U0001f467", "family \U0001f469\u200d\U0001f467"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\u0d28\u0d4d\u200d end", "\u0d28\u0d4d\u200d end"),
        ("pass\u200dword", "pass\\u200dword"),
        ("runs \U0001f469\u200d\u200d\U0001f467", "runs \U0001f469\\u200d\\u200d\U0001f467"),
        ("[bold]kept[/]", "[bold]kept[/]"),
        ("tab\tline\r\nnext", "tab\tline\nnext"),
        ("half \x1b", "half "),
        ("before \x1b]0;never ended, and the answer", "before 0;never ended, and the answer"),
    ],
)
def test_terminal_codes_are_taken_out_whole(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(), max_size=300), st.integers(2, 40))
def test_one_line_is_one_line_of_at_most_its_width(text: str, width: int) -> None:
    for shown in (one_line(text, width), tail_line(text, width)):
        assert "\n" not in shown
        assert len(shown) <= width


def test_a_megabyte_without_a_newline_is_cut_without_being_read_whole() -> None:
    assert one_line("x" * 1_000_000, 20) == "x" * 19 + "…"
    assert tail_line("x" * 1_000_000, 20) == "…" + "x" * 19
