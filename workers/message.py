"""Text and reasoning out of a message, in every shape that vendors send them (`docs/upstreams.md`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The first that says something holds: OpenRouter and LiteLLM send the same thoughts in two of them.
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "thinking", "thinking_blocks")
_THOUGHTS = ("thinking", "reasoning", "reasoning.text", "reasoning.summary", "summary_text", "thought")
_INNER = ("text", "thinking", "reasoning", "summary", "content")
# How deep thoughts are looked for inside one another.
_DEEP = 4


def texts_of(message: Mapping[str, Any], *, whole: bool) -> tuple[str, str, str]:
    """Return (reasoning, text, refusal) of a message or a delta.

    Args:
        whole: whether its parts are whole ones, each its own paragraph, or pieces of a stream.
    """
    reasoning = next((said for name in _REASONING if (said := _thoughts(message.get(name)))), "")
    content = message.get("content")
    if isinstance(content, str):
        text = content
    else:
        thought, text = _parts(content, whole=whole)
        reasoning = reasoning or thought
    refusal = message.get("refusal")
    return reasoning, text, refusal if isinstance(refusal, str) else ""


def _parts(content: Any, *, whole: bool) -> tuple[str, str]:
    """(reasoning, text) of a list of content parts."""
    thoughts, texts = [], []
    between = "\n" if whole else ""
    for part in [content] if isinstance(content, dict) else content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            if part.get("type") in _THOUGHTS or part.get("thought") is True:
                thoughts.append(_thoughts(part))
            elif part.get("type") == "reference":
                # Mistral's citations stand in the middle of a sentence.
                between = ""
            else:
                texts.append(_said(part))
    return between.join(filter(None, thoughts)), between.join(filter(None, texts))


def _said(part: Mapping[str, Any]) -> str:
    """A part's text. Its type is `text`, `output_text`, or none at all."""
    text = part.get("text")
    if isinstance(text, dict):
        text = text.get("value")
    if not isinstance(text, str) and part.get("type") == "refusal":
        text = None
    return text if isinstance(text, str) else ""


def _thoughts(value: Any, depth: int = 0) -> str:
    """Thoughts as text, as a list of parts, or inside an object. Encrypted ones say nothing."""
    if isinstance(value, str):
        return value
    if depth > _DEEP:
        return ""
    if isinstance(value, list):
        return "".join(_thoughts(part, depth + 1) for part in value)
    if isinstance(value, dict):
        if "encrypted" in str(value.get("type", "")) or "redacted" in str(value.get("type", "")):
            return ""
        return next((said for name in _INNER if (said := _thoughts(value.get(name), depth + 1))), "")
    return ""


def calls_a_tool(message: Mapping[str, Any]) -> bool:
    """Whether the model asks for a tool instead of answering."""
    return bool(message.get("tool_calls") or message.get("function_call"))
