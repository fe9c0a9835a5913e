"""Model options: which there are, and what each may be. The names are the chat completions API's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from shared.errors import UsageFault


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        number = float(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def _stops(value: str) -> list[str]:
    stops = json.loads(value) if value.startswith("[") else [value]
    if not isinstance(stops, list) or not 1 <= len(stops) <= 4 or not all(isinstance(s, str) and s for s in stops):
        raise ValueError
    return stops


def _effort(value: str) -> str:
    if value not in ("none", "minimal", "low", "medium", "high"):
        raise ValueError
    return value


# https://platform.openai.com/docs/api-reference/chat/create gives the bounds.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (_number(0, 2), "a number from 0 to 2"),
    "top_p": (_number(0, 1), "a number from 0 to 1"),
    "max_tokens": (_whole(1, 10_000_000), "a whole number from 1"),
    "seed": (_whole(-(2**63), 2**63 - 1), "a whole number"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "stop": (_stops, 'text, or a JSON list of up to 4, such as ["END"]'),
    "reasoning_effort": (_effort, "none, minimal, low, medium or high"),
}


def parse_options(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return checked options from (name, text) pairs.

    Raises:
        UsageFault: an unknown name, or a value out of its bounds.
    """
    options = {}
    for name, value in pairs:
        if name not in OPTIONS:
            raise UsageFault(f"there is no model option {name!r}", remedy=f"there are: {', '.join(OPTIONS)}")
        parse, expected = OPTIONS[name]
        try:
            options[name] = parse(value)
        except (ValueError, OverflowError, RecursionError):
            raise UsageFault(f"the option {name} can't be {value[:60]!r}", remedy=f"give {expected}") from None
    return options
