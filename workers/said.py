"""What an upstream says when something is wrong: found in every shape of error object. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SENTENCES = (
    "message", "msg", "error_msg", "error_message", "errorMessage", "err_msg", "detail", "details", "status_msg",
    "description", "error_description", "reason", "title",
)  # fmt: skip
_CODES = (
    "code",
    "type",
    "status",
    "error_code",
    "errorCode",
    "err_code",
    "status_code",
    "http_code",
    "reason",
    "error_type",
)
_FINE = {"", "0", "200", "20000", "ok", "success", "none", "null", "false", "true", "normal", "completed", "stop"}
_NUMBER = re.compile(r"\s*(?:http\s*|error\s*(?:code\s*)?:?\s*)?([45]\d\d)\b", re.I)
_CHARS = 2000
# How deep an error is looked for inside another: gateways wrap what their upstream said, as JSON in a sentence.
_DEEP = 5


@dataclass(frozen=True, slots=True)
class Said:
    """An error as its sender words it.

    Attributes:
        message: its sentence; the innermost one where gateways wrap another's.
        codes: its types and codes, lower case, the outermost first; vendors' bare numbers as `vendor:number`.
        number: the HTTP status that it names, or None.
        parts: every object of it, for those who look for waits and quotas.
    """

    message: str
    codes: tuple[str, ...] = ()
    number: int | None = None
    parts: tuple[Mapping[str, Any], ...] = ()


def error_in(said: Any) -> Said | None:
    """Return the error that a JSON value of an answer is, or None: it is none."""
    if isinstance(said, list):
        return next((one for part in said[:8] if isinstance(part, dict) and (one := error_in(part))), None)
    if not isinstance(said, dict):
        return None
    found = said.get("error") or said.get("errors")
    if found is True and not any(said.get(name) for name in _SENTENCES):
        found = None
    if found or _base(said) or _in_choice(said):
        return said_of(said)
    named = (said.get("object"), said.get("type"))
    if "error" in named or said.get("success") is False or said.get("ok") is False:
        return said_of(said)
    return said_of(said) if not said.get("choices") and _complains(said) else None


def said_of(value: Any) -> Said:
    """Put together what an error, in whatever shape, says."""
    parts: list[Mapping[str, Any]] = []
    sentences: list[str] = []
    _walk(value, parts, sentences, 0)
    codes: list[str] = []
    numbers: list[int] = []
    for part in parts:
        for code, number in _codes(part):
            codes.append(code)
            numbers += [number] if number else []
    message = next((text for text in reversed(sentences) if text.strip()), "")
    if not message:
        message = next((code for code in codes if code not in ("error", "true")), "an error without a message")
    return Said(" ".join(message[:_CHARS].split()), tuple(codes), numbers[-1] if numbers else None, tuple(parts))


def _base(said: Mapping[str, Any]) -> bool:
    """MiniMax says how it went in an object of its own, also beside an answer."""
    base = said.get("base_resp")
    return isinstance(base, dict) and str(base.get("status_code", 0)) not in ("0", "", "None")


def _in_choice(said: Mapping[str, Any]) -> bool:
    """OpenRouter puts a provider's error into the choice."""
    choices = said.get("choices")
    return isinstance(choices, list) and any(
        isinstance(c, dict) and isinstance(c.get("error"), dict) for c in choices[:1]
    )


def _complains(said: Mapping[str, Any]) -> bool:
    """Whether an object without choices is an error: a code that isn't fine, or a sentence in the answer's place."""
    code = next((said[name] for name in _CODES if name in said and name not in ("type", "reason")), None)
    sentence = any(isinstance(said.get(name), (str, list)) and said[name] for name in _SENTENCES)
    if code is not None and not isinstance(code, (dict, list)) and str(code).lower() not in _FINE:
        return sentence or "error_code" in said or _NUMBER.fullmatch(str(code)) is not None
    return sentence and code is None and said.get("object") is None


def _walk(value: Any, parts: list[Mapping[str, Any]], sentences: list[str], depth: int) -> None:
    if depth > _DEEP or len(parts) > 32:
        return
    if isinstance(value, str):
        inner = _json_inside(value)
        if inner is None:
            sentences.append(value)
        else:
            _walk(inner, parts, sentences, depth + 1)
    elif isinstance(value, list):
        located = [_located(part) for part in value if isinstance(part, dict) and "loc" in part]
        if located:
            sentences.append("; ".join(located[:5]))
        else:
            for part in value[:8]:
                _walk(part, parts, sentences, depth + 1)
    elif isinstance(value, Mapping):
        _walk_object(value, parts, sentences, depth)


def _walk_object(value: Mapping[str, Any], parts: list[Mapping[str, Any]], sentences: list[str], depth: int) -> None:
    parts.append(value)
    sentence = next((value[name] for name in _SENTENCES if isinstance(value.get(name), str) and value[name]), None)
    listed = next((value[name] for name in ("detail", "message", "errors") if isinstance(value.get(name), list)), None)
    if sentence is not None:
        _walk(sentence, parts, sentences, depth + 1)
    elif listed:
        _walk(listed, parts, sentences, depth + 1)
    for name in ("error", "base_resp", "detail", "message", "innererror"):
        inner = value.get(name)
        if (isinstance(inner, (dict, list)) and inner is not listed) or (name == "error" and isinstance(inner, str)):
            _walk(inner, parts, sentences, depth + 1)
    for part in value.get("details") or () if isinstance(value.get("details"), list) else ():
        if isinstance(part, dict):
            parts.append(part)
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and choices[0].get("error"):
        _walk(choices[0]["error"], parts, sentences, depth + 1)
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        parts.append(metadata)
        # OpenRouter: "Provider returned error", and in `raw` what it was.
        if isinstance(metadata.get("raw"), (str, dict)) and metadata["raw"]:
            _walk(metadata["raw"], parts, sentences, depth + 1)


def _located(part: Mapping[str, Any]) -> str:
    """FastAPI's validation errors: where, and what."""
    loc = part.get("loc")
    where = ".".join(str(step) for step in loc if step != "body") if isinstance(loc, list) else ""
    return f"{where}: {part.get('msg') or part.get('type') or 'refused'}".removeprefix(": ")


def _json_inside(text: str) -> Any:
    """The JSON object that a sentence is, or ends with, if it is an error's; None otherwise."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end <= begin:
        return None
    try:
        inner = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        return None
    known = isinstance(inner, dict) and any(isinstance(inner.get(n), (str, dict)) for n in ("error", *_SENTENCES))
    return inner if known else None


def _codes(part: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    for name in _CODES:
        value = part.get(name)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or str(value).lower() in _FINE:
            continue
        text = str(value).strip().lower()
        if (name == "reason" and " " in text) or len(text) > 100:
            continue
        if "status_msg" in part and name == "status_code":
            yield f"minimax:{text}", None
        elif name == "error_code":
            yield f"baidu:{text}", _number(text)
        else:
            yield text, _number(text)


def _number(code: str) -> int | None:
    """The HTTP status that a code is, or begins with (`503 Service Unavailable`; SiliconFlow's 50505)."""
    match = _NUMBER.match(code)
    if match:
        return int(match[1])
    if len(code) == 5 and code.isdecimal() and code[:2] in ("40", "42", "50"):
        return {"4040": 404, "4010": 401, "4290": 429}.get(code[:4], 400 if code[0] == "4" else 503)
    return None
