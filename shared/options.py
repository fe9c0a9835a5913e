"""Model options: which there are, and what each may be. The names are the chat completions API's own.

What a model takes besides (`top_k`, `chat_template_kwargs` …) is passed on as the JSON that it is given as.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from shared.errors import UsageFault
from shared.text import is_storable


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


# A text that ends an answer is a word or a line; whatever is longer is a mistake.
_STOP_CHARS = 1000


def _stops(value: str) -> list[str]:
    """Up to four texts. Only a JSON list is a list: `[END]` and `[/INST]` are texts."""
    stops = [value]
    if value.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            stops = json.loads(value)
    if not 1 <= len(stops) <= 4 or not all(isinstance(s, str) and s and is_storable(s) for s in stops):
        raise ValueError
    if any(len(stop) > _STOP_CHARS for stop in stops):
        raise ValueError
    return stops


# Every family's; a test holds them to be all that the data about models name.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra", "default", "auto")


def _effort(value: str) -> Any:
    """One of the known words, or any other text or number as JSON."""
    if value in EFFORTS:
        return value
    said = _json(value)
    if isinstance(said, bool) or not isinstance(said, (str, int)) or said == "":
        raise ValueError
    return said


_DEEPEST = 16


def _json(value: str) -> Any:
    """Any JSON that can be stored.

    Raises:
        ValueError: it is none, or has a number, a text or a depth that PostgreSQL does not take.
    """
    said = json.loads(value, parse_float=_finite, parse_constant=_refused)
    if not _sound(said, _DEEPEST):
        raise ValueError
    return said


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _refused(text: str) -> None:
    raise ValueError


def _sound(said: Any, deep: int) -> bool:
    if isinstance(said, str):
        return is_storable(said)
    if isinstance(said, int):
        return abs(said) < 2**63
    if isinstance(said, (dict, list)):
        parts = [*said, *said.values()] if isinstance(said, dict) else said
        return deep > 0 and all(_sound(part, deep - 1) for part in parts)
    return True


# https://platform.openai.com/docs/api-reference/chat/create gives the bounds.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (_number(0, 2), "a number from 0 to 2"),
    "top_p": (_number(0, 1), "a number from 0 to 1"),
    "max_tokens": (_whole(1, 10_000_000), "a whole number from 1"),
    "max_completion_tokens": (_whole(1, 10_000_000), "a whole number from 1"),
    "seed": (_whole(-(2**63), 2**63 - 1), "a whole number"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "stop": (_stops, 'text of up to 1,000 characters, or a JSON list of up to 4, such as ["END"]'),
    "reasoning_effort": (_effort, f"one of {', '.join(EFFORTS)}, or another as JSON"),
}
# What makes the request itself, or an answer that could not be kept or shown.
_OURS = frozenset({
    "model", "messages", "prompt", "input", "stream", "stream_options", "n", "best_of", "echo", "tools", "tool_choice",
    "functions", "function_call", "parallel_tool_calls", "modalities", "audio", "extra_body",
})  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def parse_options(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return checked options from (name, text) pairs.

    Raises:
        UsageFault: a name that can't be one, or a value out of its bounds.
    """
    options = {}
    for name, value in pairs:
        parse, expected = OPTIONS.get(name) or _other(name)
        try:
            options[name] = parse(value)
        except (ValueError, OverflowError, RecursionError):
            raise UsageFault(f"the option {name} can't be {value[:60]!r}", remedy=f"give {expected}") from None
    return options


def _other(name: str) -> tuple[Callable[[str], Any], str]:
    """An option that isn't ours: JSON, passed on.

    Raises:
        UsageFault: it can't be one, or is one of ours, misspelt.
    """
    if name in _OURS:
        raise UsageFault(f"{name} is no model option: aitask makes the request", remedy="leave it out")
    meant = difflib.get_close_matches(name.lower(), OPTIONS, n=1, cutoff=0.85)
    if meant or not _NAME.fullmatch(name):
        remedy = f"did you mean {meant[0]}?" if meant else f"there are: {', '.join(OPTIONS)}"
        raise UsageFault(f"there is no model option {name[:60]!r}", remedy=remedy)
    return (
        _json,
        f"""JSON, such as 40, true, '"text"' or '{{"a": 1}}'; with bounds of their own: {", ".join(OPTIONS)}""",
    )
