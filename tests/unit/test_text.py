"""Text on its way to the database and to a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text import is_storable, one_line, printable, storable, tail_line


@given(st.text(st.characters(), max_size=200))
def test_storable_text_has_no_nul_and_encodes(text: str) -> None:
    assert is_storable(storable(text))
    storable(text).encode()
    assert "\x00" not in storable(text)


@given(st.text(st.characters(), max_size=200))
def test_printable_text_has_no_control_codes(text: str) -> None:
    shown = printable(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F for c in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x9b31mb", "ab"),
        ("over\rwritten", "overwritten"),
        ("right\u202eleft", "rightleft"),
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
