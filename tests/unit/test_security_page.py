"""SECURITY.md names a test for every attack, and the tests are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_attack_has_a_test_that_is_there() -> None:
    rows = re.findall(r"^\| (?!attack|---)(.*) \| .* \| (.*) \|$", (ROOT / "SECURITY.md").read_text(), re.M)
    assert len(rows) > 20
    for attack, tests in rows:
        file = ""
        for named in re.findall(r"`([^`]+)`", tests):
            file, _, name = named.partition("::") if not named.startswith("::") else (file, "", named[2:])
            found = list((ROOT / "tests").glob(f"*/{file}"))
            assert found, (attack, file)
            assert f"def {name.removesuffix('…')}" in found[0].read_text() or not name, (attack, name)
