"""The mutants fit the code as it is: one whose text has gone would prove nothing."""

from __future__ import annotations

import re

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_s_text_is_in_the_code_once_and_its_tests_are_there(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    changed = mutant.applied(text)
    assert changed != text
    compile(changed, mutant.path, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert not name or re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), test


def test_there_are_enough_of_them_and_no_two_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 17


def test_a_mutant_that_no_longer_fits_is_refused_loudly() -> None:
    with pytest.raises(ValueError, match="0 times"):
        Mutant("x", "y", (("nowhere", ""),), ()).applied("text")
