"""Token counts from every place where upstreams put them (`docs/upstreams.md`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokenCount", "prompt_eval_count", "prompt_n")
_COMPLETION = (
    "completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokenCount", "eval_count", "predicted_n",
)  # fmt: skip
_TOTAL = ("total_tokens", "totalTokenCount")
_REASONING = ("reasoning_tokens", "thoughtsTokenCount")
_PLACES = ("usage", "x_groq", "usageMetadata", "usage_metadata", "amazon-bedrock-invocationMetrics", "timings")


def usage_in(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the usage in an event or an answer, or None. Usage that counts nothing is none."""
    usage = said.get("usage")
    if isinstance(usage, dict) and type(usage.get("prompt_tokens")) is int and usage["prompt_tokens"] > 0:
        return usage
    choices = said.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    for place in (said, first):
        for name in _PLACES:
            found = place.get(name)
            if name == "x_groq" and isinstance(found, dict):
                found = found.get("usage")
            if isinstance(found, dict) and any(count(found.get(key)) for key in (*_PROMPT, *_COMPLETION)):
                return found
    return None


def counted(usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return (prompt tokens, completion tokens, thoughts included).

    xAI's and Gemini's completion tokens leave the thoughts out, which shows in the total.
    """
    prompt, completion, total = (_first(usage, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if total is None and completion is not None and count(usage.get("thoughtsTokenCount")):
        # Gemini's own names, where candidates never hold the thoughts.
        return prompt, completion + (count(usage.get("thoughtsTokenCount")) or 0)
    if prompt is None or total is None or total <= prompt + (completion or 0):
        return prompt, completion
    left_out = total - prompt - (completion or 0)
    thought = _thought(usage)
    return prompt, (completion or 0) + (left_out if thought is None else min(left_out, thought))


def _thought(usage: Mapping[str, Any]) -> int | None:
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    places = [usage, details] if isinstance(details, dict) else [usage]
    return next((found for place in places if (found := _first(place, _REASONING)) is not None), None)


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((found for name in names if (found := count(usage.get(name))) is not None), None)


def count(value: Any) -> int | None:
    """A token count that fits the database, also as 7.0 or "7"; or None."""
    if isinstance(value, str) and len(value) < 12 and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if good else None
