"""Kinds of error and of outcome: one enum each, stored and served as their words."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    """A member is its word, wherever it is written: in SQL, JSON, a log line or a sentence."""

    # Before Python 3.12 and since, a mixed-in enum formats itself in different ways.
    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]


class ErrorKind(_Word):
    """Why a call, or a task, failed. A bare HTTP status has no member: it is `http_kind(status)`."""

    # the way there
    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    CERTIFICATE = "certificate"
    PROXY = "proxy"
    RESET = "reset"
    BAD_URL = "bad_url"
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    # what came
    BAD_JSON = "bad_json"
    BAD_ENCODING = "bad_encoding"
    BAD_ANSWER = "bad_answer"
    EMPTY_ANSWER = "empty_answer"
    NO_ANSWER = "no_answer"
    INCOMPLETE_STREAM = "incomplete_stream"
    TOO_LARGE = "too_large"
    # what the upstream said
    ERROR_OBJECT = "error_object"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_POLICY = "content_policy"
    REFUSED = "refused"
    TOOL_CALL = "tool_call"
    INTERRUPTED = "interrupted"
    MODEL_RETIRED = "model_retired"
    UNKNOWN_MODEL = "unknown_model"
    OPTION_REFUSED = "option_refused"
    SIGNED_OUT = "signed_out"
    # what happened here
    INTERNAL = "internal"
    UNSTORABLE = "unstorable"
    LEASE_EXPIRED = "lease_expired"
    POISON = "poison"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    OPERATOR = "operator"


class Outcome(_Word):
    """How one attempt ended."""

    ANSWERED = "answered"
    RETRY = "retry"
    FAILED = "failed"
    HANDED_BACK = "handed_back"
    UNSTORABLE = "unstorable"
    SIGNED_OUT = "signed_out"
    LEASE_EXPIRED = "lease_expired"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    OPERATOR = "operator"


def http_kind(status: int) -> str:
    """The kind of an error that is nothing but an HTTP status."""
    return f"http_{status}"
