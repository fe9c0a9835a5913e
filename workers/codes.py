"""What vendors' error types and codes mean, as a table; and the few sentences that come without a code. Pure.

Sources stand in `docs/upstreams.md`.
"""

from __future__ import annotations

import re
from enum import Enum

from workers.said import Said


class Means(Enum):
    """What an error means."""

    CONTEXT = "the question is too long"
    POLICY = "a filter stopped it"
    QUOTA = "the quota or the money is gone"
    DAILY = "the day's quota is used up"
    TOO_LARGE = "one request is larger than the limit of rate"
    RATE = "too many requests"
    BUSY = "the upstream can't just now"
    PERMANENT = "the same request fails again"
    MODEL = "there is no such model"


_CODES: dict[Means, tuple[str, ...]] = {
    Means.CONTEXT: (
        "context_length_exceeded", "context_window_exceeded", "exceed_context_size_error", "context_too_long",
        "model_context_window_exceeded", "string_above_max_length_context", "contextwindowexceedederror",
        "max_tokens_exceeded", "input_too_long", "prompt_too_long", "1261", "minimax:1039", "10907", "baidu:336007",
        "baidu:336103", "contextlengthexceeded", "context_length_error", "token_limit_exceeded",
    ),
    Means.POLICY: (
        "content_filter", "content_policy_violation", "responsibleaipolicyviolation", "content_policy",
        "datainspectionfailed", "data_inspection_failed", "1301", "minimax:1026", "minimax:1027", "10013", "10014",
        "prohibited_content", "safety", "moderation_error", "moderation", "baidu:336104", "content_moderation",
        "content_filter_error", "sensitive", "invalid_prompt", "cyber_policy",
    ),
    Means.QUOTA: (
        "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error",
        "arrearage", "insufficient_balance", "insufficient_credits", "1113", "minimax:1008", "account_deactivated",
        "quota_exhausted", "quota_exceeded_permanently", "30001", "11200", "accountoverdueerror",
        "allocationquota.freetieronly", "freetieronly", "billing_error", "payment_required", "access_terminated",
        "baidu:19", "insufficient_funds", "credit_balance_too_low", "minimax:2056",
    ),
    Means.DAILY: ("baidu:17", "free-models-per-day", "daily_limit_exceeded", "rpd_limit_exceeded", "1304", "11201"),
    Means.TOO_LARGE: ("request_too_large", "request_entity_too_large", "payload_too_large"),
    Means.RATE: (
        "rate_limit_exceeded", "rate_limit_error", "rate_limit", "ratelimit", "rate_limited",
        "rate_limit_reached_error", "too_many_requests", "toomanyrequests", "resource_exhausted", "throttling",
        "throttlingexception", "requests", "ratelimiterror", "tokens", "1302", "1303", "1305", "minimax:1002",
        "minimax:1041", "minimax:2045", "baidu:18", "baidu:336501", "baidu:336502", "11202", "11203", "limit_requests",
        "limit_burst_rate", "quota_exceeded", "rate_limit_reached", "ratelimitexceeded", "serverlimitexceeded",
    ),
    Means.BUSY: (
        "server_error", "internal_error", "internal_server_error", "internalservererror", "api_error",
        "overloaded_error", "overloaded", "engine_overloaded_error", "engine_overloaded", "unavailable",
        "service_unavailable", "service_unavailable_error", "serviceunavailable", "unavailable_error", "internal",
        "deadline_exceeded", "aborted", "unknown_error", "timeout", "timeout_error", "gateway_timeout",
        "gatewaytimeout", "bad_gateway", "request_timeout", "requesttimeout", "internalerror", "systemerror",
        "system_error", "modelunavailable", "model_overloaded", "network_error", "1230", "1234", "1312", "500",
        "minimax:1000", "minimax:1001", "minimax:1013", "minimax:1024", "minimax:1033", "baidu:4", "baidu:336000",
        "baidu:336100", "modelnotreadyexception", "serviceunavailableexception", "internalserverexception",
        "apiconnectionerror", "enginedeaderror", "no_capacity", "data_loss", "server_overloaded", "upstream_error",
        "provider_error", "stream_error", "temporarily_unavailable", "proxy_error", "busy", "server_busy", "cancelled",
        "connection_error", "loading", "modelstreamerrorexception", "1120", "timeouterror", "try_again",
    ),
    Means.MODEL: (
        "model_not_found", "modelnotfound", "model_not_found_error", "resource_not_found_error", "1211", "20012",
        "no_such_model", "model_not_exist", "model_does_not_exist", "deploymentnotfound", "model_decommissioned",
        "model_deprecated", "minimax:2013model", "invalid_model", "unknown_model",
    ),
    Means.PERMANENT: (
        "invalid_request_error", "invalid_request", "bad_request", "badrequesterror", "badrequest", "invalid_argument",
        "failed_precondition", "out_of_range", "unimplemented", "authentication_error", "invalid_api_key",
        "invalidapikey", "unauthenticated", "unauthorized", "permission_error", "permission_denied", "forbidden",
        "access_denied", "accessdenied", "not_found", "not_found_error", "notfounderror",
        "invalid_authentication_error", "unsupported_parameter", "unsupported_value", "validation_error",
        "validationexception", "accessdeniedexception", "resourcenotfoundexception", "invalidparameter",
        "incorrect_api_key", "authenticationerror", "1000", "1001", "1002", "1003", "1004", "1210", "1214",
        "minimax:1004", "minimax:2013", "minimax:2049", "20015", "10163", "unprocessableentityerror",
        "unprocessable_entity", "baidu:1", "baidu:2", "baidu:3", "baidu:6", "baidu:13", "baidu:14", "baidu:100",
        "baidu:110", "baidu:111", "baidu:336001", "baidu:336002", "baidu:336003", "missing_required_parameter",
        "unknown_parameter", "not_supported_error",
    ),
}  # fmt: skip
_MEANS = {code: meaning for meaning, codes in _CODES.items() for code in codes}
# The one that holds when several are named: "invalid_request_error" stands beside nearly everything.
_ORDER = tuple(_CODES)

# A context that is too long, in the words of those who give no code for it.
_CONTEXT = re.compile(
    "|".join(
        (
            # OpenAI, Azure, Mistral, Together, OpenRouter, vLLM, DeepSeek, Groq
            r"maximum context length",
            r"context[ _](?:length|window|size|limit)\b.{0,80}\b(?:exceed|reach|long|larger|full|over|limit)",
            # llama.cpp, LM Studio, TensorRT, SGLang, Bedrock
            r"(?:exceed|longer|larger|greater|over|beyond|too long|not fit|doesn't fit)\w*\b.{0,100}\bcontext\b",
            # Anthropic, Bedrock, DashScope, Zhipu
            r"(?:input|prompt|messages?) (?:is )?too (?:long|large) ?(?:for|:|\.|$)",
            r"prompt is too long|input is too long|too many (?:input |prompt )?tokens\b",
            r"(?:input|prompt)[\w ()]{0,40} exceeds? the (?:maximum|max\b|limit|configured|model|allowed)",
            r"input tokens exceed the configured limit|reduce the length of the (?:messages|prompt|input)",
            # Gemini
            r"exceeds? the maximum number of (?:input )?tokens",
            # Cerebras, Fireworks, SageMaker
            r"current length is.{0,40}while limit is|maximum input length is.{0,60}token",
            r"exceed(?:s|ed)? (?:the )?(?:model'?s? )?max(?:imum)?[_ ](?:input |prompt |seq\w* |model )?(?:token|len)",
            # TGI
            r"`?inputs`? tokens \+ `?max_new_tokens`? must be|`?inputs`? must have less than",
            # DashScope, SiliconFlow, Moonshot, Baidu
            r"range of input length should be|exceeded model token limit|total tokens? .{0,40}exceed",
            r"prompt contains.{0,60}tokens.{0,60}(?:limit|maximum)",
            r"超过.{0,12}(?:上下文|最大.{0,4}长度|token)|上下文.{0,6}(?:超|过长)|(?:输入|prompt).{0,6}(?:超长|过长)",
        )
    ),
    re.I | re.S,
)
# These speak of a parameter of ours, or of the rate, and not of the question.
_NOT_CONTEXT = re.compile(
    r"string_above_max_length|invalid 'user'|tokens per (?:min|day)|\bTPM\b|\bTPD\b|rate limit", re.I
)
_POLICY = re.compile(
    r"content[ _](?:policy|filter|management policy)|responsible ai|safety|flagged|moderation"
    r"|inappropriate content|sensitive (?:content|words?)|prohibited content|敏感|违规|不合规",
    re.I,
)
_GONE = re.compile(
    r"\blimit:\s*0(?!\.?\d)|insufficient[ _](?:balance|quota|credit|funds)|credit balance is too low|billing hard limit"
    r"|out of credits|not enough credits|requires more credits|余额不足|欠费",
    re.I,
)
_DAY = re.compile(
    r"per[ _-]?day|\b[RT]PD\b|daily (?:quota|limit|request|token|free)|free-models-per-day|every day|每日|当天|今日",
    re.I,
)
_LARGE = re.compile(r"request too large|too large for (?:the )?model|input or output tokens must be reduced", re.I)
_NO_MODEL = re.compile(
    r"models?\b.{0,120}\b(?:not found|doesn't exist|not exist|decommissioned|has been (?:deprecated|retired|shut down)"
    r"|no longer (?:available|supported))|no such model|unknown model|"
    r"invalid model name|not a valid model|(?:unsupported|not supported) model\b|模型不存在",
    re.I | re.S,
)  # fmt: skip


def means(said: Said, status: int | None) -> Means | None:
    """Return what an error means beyond its status, or None: nothing that its status doesn't say.

    A code or a type says it; words do only where vendors give none: a context that is too long, a filter, quotas.

    Args:
        status: the HTTP status, or the one the error names inside a 200; None: there is none.
    """
    by_code = _by_code(said)
    refusable = status in (None, 400, 404, 413, 422) or (status or 0) >= 500
    if refusable and (
        by_code is Means.CONTEXT or (_CONTEXT.search(said.message) and not _NOT_CONTEXT.search(said.message))
    ):
        return Means.CONTEXT
    if by_code is Means.POLICY or (status in (400, 403, 422, 451) and _POLICY.search(said.message)):
        return Means.POLICY
    if status in (429, 402, 403, 413) or by_code in (Means.RATE, Means.QUOTA, Means.DAILY):
        return _of_rate(said, status, by_code)
    if by_code is Means.MODEL or (status in (400, 404, 410, 422) and _NO_MODEL.search(said.message)):
        return Means.MODEL
    return by_code


def _of_rate(said: Said, status: int | None, by_code: Means | None) -> Means | None:
    if by_code is Means.QUOTA or _GONE.search(said.message):
        return Means.QUOTA
    if status == 403 and by_code is not Means.RATE:
        return by_code
    if by_code is Means.TOO_LARGE or _LARGE.search(said.message):
        return Means.TOO_LARGE
    if status in (402, 413):
        return Means.QUOTA if status == 402 else by_code
    if by_code is Means.DAILY or _DAY.search(said.message) or any(_DAY.search(quota) for quota in quotas(said)):
        return Means.DAILY
    return Means.RATE


def _by_code(said: Said) -> Means | None:
    found = {meaning for code in said.codes if (meaning := _of_code(code)) is not None}
    return next((meaning for meaning in _ORDER if meaning in found), None)


def _of_code(code: str) -> Means | None:
    # DashScope's have their kind in front: Throttling.RateQuota, InternalError.Algo.
    word = code.replace("-", "_").replace(" ", "_")
    head = word.partition(".")[0]
    return _MEANS.get(code) or _MEANS.get(word) or _MEANS.get(head)


def quotas(said: Said) -> list[str]:
    """The ids of the quotas that Google's `QuotaFailure` names."""
    listed = [part["violations"] for part in said.parts if isinstance(part.get("violations"), list)]
    named = [one for violations in listed for one in violations if isinstance(one, dict)]
    return [str(one.get("quotaId") or one.get("quotaMetric") or "") for one in named]
