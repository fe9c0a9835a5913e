"""What tells two requests under one idempotency key apart: a hash with its recipe's version. Pure.

A recipe never changes: a request that was stored by an earlier release is compared by that release's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

VERSION = "2"


def request_hash(said: Sequence[Any], models: Sequence[tuple[str, str]]) -> str:
    """The present recipe: models as (family, model), for the same name at two families is two models.

    Args:
        said: what was asked, and with what.
    """
    return f"{VERSION}:{_digest([*said, [list(pair) for pair in models]])}"


def earlier_hashes(said: Sequence[Any], models: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """By the recipes of earlier releases, which knew a model by its bare name: families are to be compared besides."""
    prompt, system, options, conversation, context = said
    first = [prompt, system, options, [model for _, model in models], conversation]
    return (_digest(first + ([context] if context else [])),)


def _digest(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
