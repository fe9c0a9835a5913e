"""One maker of servers: nothing else turns settings into clients, and what it leaves out it says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from shared import servers
from shared.settings import settings_from

ROOT = Path(__file__).parents[2]
CLIENTS = {"Database", "Streams", "HintReader", "LivePublisher", "LiveReader", "LiveTail"}


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node.func.id if isinstance(node.func, ast.Name) else node.func.attr


def test_clients_of_servers_are_made_in_one_place_alone() -> None:
    sources = [path for part in ("aitask_cli", "workers", "benchmarks") for path in (ROOT / part).rglob("*.py")]
    assert len(sources) > 100
    assert {str(path.relative_to(ROOT)) for path in sources if CLIENTS & set(calls(path))} == set()
    assert set(calls(ROOT / "shared" / "servers.py")) >= CLIENTS


def test_parameters_that_mean_nothing_here_are_known_by_their_setting() -> None:
    pasted = {"DATABASE_URL": "postgresql://u@h/d?schema=public&connection_limit=5", "REDIS_URL": "redis://h"}
    assert servers.ignored_parameters(settings_from(pasted)) == {"DATABASE_URL": ("schema", "connection_limit")}
    assert servers.ignored_parameters(settings_from({})) == {}
