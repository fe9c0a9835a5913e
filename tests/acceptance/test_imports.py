"""What one-shot commands don't import: each import is waited for by a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stand import Stand, altered

SAYS = """
import atexit
heavy = ("sqlalchemy", "alembic", "aiohttp", "uvloop")
atexit.register(lambda: print("IMPORTED", *(name for name in heavy if name in sys.modules), file=sys.stderr))
"""


@pytest.mark.parametrize(
    "argv",
    [("ls",), ("show", "last"), ("ps",), ("pending",), ("cancel", "last"), ("ask", "-d", "hi", "-m", "qwen")],
    ids=lambda argv: argv[0],
)
def test_a_one_shot_command_imports_no_sqlalchemy(stand: Stand, tmp_path: Path, argv: tuple[str, ...]) -> None:
    stand.submit("hello", "qwen")
    done = stand.aitask(*argv, command=altered(tmp_path, SAYS))
    assert done.code in (0, 8), done.err
    assert done.err.splitlines()[-1].strip() == "IMPORTED"
