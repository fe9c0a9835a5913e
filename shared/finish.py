"""How upstreams say that an answer ended: every vendor's finish reasons, and what each means. Pure.

A reason that is not here is kept and shown by its name (`docs/upstreams.md`).
"""

from __future__ import annotations

from enum import Enum


class Finish(Enum):
    """What a finish reason means."""

    WHOLE = "whole"
    CUT = "cut"
    FILTERED = "filtered"
    REFUSED = "refused"
    TOOL = "tool"
    BROKEN = "broken"
    UNKNOWN = "unknown"


_REASONS: dict[Finish, tuple[str, ...]] = {
    Finish.WHOLE: (
        "stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "complete", "completed", "finished",
        "finish", "done", "normal", "end", "endoftext", "end_of_text", "natural", "success",
    ),
    Finish.CUT: (
        "length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length",
        "model_length", "token_limit", "model_context_window_exceeded", "context_length_exceeded", "truncated",
        "truncation", "repetition_truncation", "repetition", "time_limit", "incomplete",
    ),
    Finish.FILTERED: (
        "content_filter", "content_filtered", "contentfilter", "safety", "recitation", "prohibited_content",
        "blocklist", "spii", "sensitive", "image_safety", "image_prohibited_content", "image_recitation", "image_other",
        "language", "model_armor", "guardrail_intervened", "moderation", "blocked", "block",
        "content_policy", "violation", "risk",
        "jailbreak",
    ),
    Finish.REFUSED: ("refusal", "refused"),
    Finish.TOOL: (
        "tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call", "unexpected_tool_call",
        "too_many_tool_calls", "malformed_tool_call", "pause_turn",
    ),
    Finish.BROKEN: (
        "error", "abort", "aborted", "network_error", "insufficient_system_resource", "other", "unknown", "cancelled",
        "canceled", "cancel", "timeout", "time_out", "failed", "failure", "server_error", "internal_error",
        "overloaded", "finish_reason_unspecified", "unspecified", "malformed_response",
        "missing_thought_signature", "preempted", "no_image", "disconnected",
    ),
}  # fmt: skip
_MEANS = {reason: meaning for meaning, reasons in _REASONS.items() for reason in reasons}
# What some servers write where they mean that there is none yet.
_NONE = {"", "null", "none", "nil", "undefined"}


def named(reason: object) -> str | None:
    """Return a finish reason as it came, or None for what is none: null, "", "null", anything but text."""
    if not isinstance(reason, str) or reason.strip().lower() in _NONE:
        return None
    return reason.strip()[:200]


def meaning(reason: str | None) -> Finish | None:
    """Tell what a finish reason means, in whatever spelling (`MAX_TOKENS`, `content_filter: RECITATION`)."""
    if reason is None:
        return None
    # Nearly always this one.
    if reason == "stop":
        return Finish.WHOLE
    word = reason.strip().lower().removeprefix("finishreason.").replace("-", "_").replace(" ", "_")
    head = word.partition(":")[0]
    return _MEANS.get(word) or _MEANS.get(head) or _MEANS.get(head.removeprefix("finish_reason_"), Finish.UNKNOWN)


def is_cut(reason: str | None) -> bool:
    """Tell whether an answer with this finish reason is not whole."""
    return meaning(reason) is Finish.CUT
