"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.over_http import Gateway, running
from tests.stand import Stand


@pytest.fixture
def gateway(stand: Stand) -> Iterator[Gateway]:
    stand.start_worker()
    with running(stand) as made:
        yield made
