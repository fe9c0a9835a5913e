"""What tells two requests under one idempotency key apart: a hash with its recipe's version. Pure.

A recipe never changes: a request that was stored by an earlier release is compared by that release's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VERSION = "2"
# What a bare family name meant in the first release: its requests were hashed by the names they became.
_FIRST_DEFAULTS = {"gemini": "gemini-2.5-flash", "deepseek": "deepseek-reasoner", "qwen": "qwen2.5"}


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model of a request: its family, its name, and whether the family alone was named.

    A bare family name is the same request whatever its default model is by now.
    """

    family: str
    model: str
    bare: bool = False


@dataclass(frozen=True, slots=True)
class EarlierHash:
    """What an earlier release made of a request; it hashed no families, so those of its tasks are compared besides."""

    digest: str
    families: tuple[str, ...]


def request_hash(said: Sequence[Any], models: Sequence[AskedModel]) -> str:
    """The present recipe: models as (family, model), for the same name at two families is two models.

    Args:
        said: what was asked, and with what.
    """
    return f"{VERSION}:{_digest([*said, [[m.family, None if m.bare else m.model] for m in models]])}"


def earlier_hashes(said: Sequence[Any], models: Sequence[AskedModel]) -> tuple[EarlierHash, ...]:
    """By the recipe of the first release, which knew a model by its name alone and asked each name once."""
    prompt, system, options, conversation, context = said
    found = []
    for defaults in ({}, _FIRST_DEFAULTS):
        asked: dict[str, str] = {}
        for one in models:
            asked.setdefault(defaults.get(one.family, one.model) if one.bare else one.model, one.family)
        first = [prompt, system, options, list(asked), conversation]
        found.append(EarlierHash(_digest(first + ([context] if context else [])), tuple(asked.values())))
    return tuple(found)


def _digest(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
