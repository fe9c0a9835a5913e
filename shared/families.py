"""Families as data, and the routing of model names to them. Pure: no environment, no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from shared.errors import UnknownModel, UsageFault

MAX_MODEL_CHARS = 200
# DeepSeek keeps a call waiting for up to ten minutes before it begins (https://api-docs.deepseek.com/quick_start/rate_limit).
QUEUE_S = 660.0
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_CHAT = "/chat/completions"
_MODEL = re.compile(r"[^\s\x00-\x1f\x7f-\x9f,]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """A built-in family: one row here and one file in `workers/families/`.

    Attributes:
        prefix: what its settings start with (`LLM` gives LLM_SERVICE_URL, LLM_API_KEY …).
        patterns: shell patterns over lower-case model names, tried in order.
        endpoint: the endpoint when no setting names one.
        needs_key: whether that default endpoint is of no use without an API key.
        timeout_s: the whole call, in seconds; idle_timeout_s: between two pieces of payload.
        options: model options sent unless the user gives others.
        think: how reasoning stands in the text. `auto`: in `<think>` and its like at the start, or before a lone
            `</think>` for models whose template opens it; `open`: the template opens it for every model; `none`.
        refusals: openings of a short answer that is nothing but a refusal.
        prefixes: what an endpoint puts before every answer; taken off.
        takes: the model options that the endpoint takes; None: all.
    """

    name: str
    prefix: str
    patterns: tuple[str, ...]
    endpoint: str
    needs_key: bool
    timeout_s: float
    idle_timeout_s: float
    options: dict[str, Any] = field(default_factory=dict)
    think: str = "auto"
    refusals: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    takes: tuple[str, ...] | None = None


# Web bridges to Gemini answer with these sentences, Chinese or English, when they can't get at the model or the
# model declines as a whole.
_GEMINI_REFUSALS = (
    "我只是一个语言模型",
    "我无法提供这方面的帮助",
    "我没法提供这方面的帮助",
    "抱歉，我无法回答",
    "很抱歉，我无法协助",
    "作为一个语言模型，我无法",
    "i'm just a language model",
    "i'm a text-based ai and can't assist with that",
    "i can't assist you with that, as i'm only a language model",
    "i'm not able to help with that, as i'm only a language model",
    "i am unable to help you with that",
    "i can't help with that",
)

BUILT_IN = (
    FamilyRow(
        name="gemini",
        prefix="GEMINI",
        patterns=("gemini*", "models/gemini*"),
        # https://ai.google.dev/gemini-api/docs/openai
        endpoint="https://generativelanguage.googleapis.com/v1beta/openai",
        needs_key=True,
        timeout_s=180.0,
        idle_timeout_s=60.0,
        refusals=_GEMINI_REFUSALS,
    ),
    FamilyRow(
        name="deepseek",
        prefix="DEEPSEEK",
        patterns=("deepseek*",),
        # https://api-docs.deepseek.com
        endpoint="https://api.deepseek.com/v1",
        needs_key=True,
        # R1 thinks for minutes before its first word.
        timeout_s=900.0,
        idle_timeout_s=300.0,
        # DeepSeek's model card asks for 0.5-0.7, 0.6 recommended, or R1 repeats itself.
        options={"temperature": 0.6},
    ),
    FamilyRow(
        name="qwen",
        prefix="LLM",
        patterns=(
            "qwen*", "llama*", "codellama*", "tinyllama*", "mistral*", "mixtral*", "gemma*", "phi*", "qwq*",
            "granite*", "smollm*", "starcoder*", "command-r*", "yi", "yi:*", "olmo*", "falcon*", "vicuna*",
            # Ollama's own form, name:tag, whatever the name.
            "*:*",
        ),
        endpoint="http://localhost:11434",
        needs_key=False,
        timeout_s=300.0,
        idle_timeout_s=120.0,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of upstream with the settings it has here.

    `routed` are the patterns that the user gave, which come before anybody's own `patterns`. `limit` is the most
    calls that one worker makes at once, None for as many as it has slots. `first_token_s` is the limit before the first
    payload, None for the idle one; `queue_s` is how long signs of life may put it off. `behaviour` names the file in
    `workers/families/`; families added by settings use `generic`. `withheld` says why a key that is set does not go to
    the endpoint: then there is no `api_key` here.
    """

    name: str
    prefix: str
    patterns: tuple[str, ...]
    routed: tuple[str, ...] = ()
    default_model: str
    endpoint: str
    api_key: str | None = field(default=None, repr=False)
    needs_key: bool = False
    timeout_s: float = 300.0
    idle_timeout_s: float = 120.0
    first_token_s: float | None = None
    queue_s: float = QUEUE_S
    limit: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    behaviour: str = "generic"
    think: str = "auto"
    refusals: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    takes: tuple[str, ...] | None = None
    worker_id: str
    withheld: str = ""

    @property
    def missing(self) -> str | None:
        """What keeps this family from being called, as a remedy, or None."""
        if self.withheld:
            return self.withheld
        if self.needs_key and not self.api_key:
            return f"set {self.prefix}_API_KEY, or {self.prefix}_SERVICE_URL to an endpoint that needs none"
        return None


def valid_family_name(name: str) -> bool:
    """Tell whether a name can be a family's: it becomes part of a stream's name and of setting names."""
    return _NAME.fullmatch(name) is not None


def split_models(values: tuple[str, ...]) -> list[str]:
    """Split repeated and comma-separated `-m` values into model names, blanks dropped."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def route(model: str, families: tuple[Family, ...]) -> tuple[str, Family]:
    """Return the model to ask for and its family.

    A bare family name means that family's default model; `family/model` names the family outright;
    otherwise the first family with a matching pattern takes it, patterns given by settings before all others.

    Raises:
        UsageFault: the name is malformed, or no family matches.
    """
    if len(model) > MAX_MODEL_CHARS or not _MODEL.fullmatch(model):
        raise UsageFault(
            f"{model[:60]!r} is not a model name",
            remedy=f"at most {MAX_MODEL_CHARS} characters, no spaces or commas",
        )
    lowered = model.lower()
    for family in families:
        if lowered == family.name:
            return family.default_model, family
    head, slash, rest = model.partition("/")
    for family in families:
        if slash and rest and head.lower() == family.name:
            return rest, family
    for family in families:
        if _fits(lowered, family.routed):
            return model, family
    for family in families:
        if _fits(lowered, family.patterns):
            return model, family
    known = ", ".join(family.name for family in families)
    raise UnknownModel(
        f"no family serves the model {model!r}",
        remedy=f"families: {known}; write FAMILY/{model}, or add patterns with e.g. LLM_MODELS",
    )


def _fits(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


@lru_cache(maxsize=256)
def chat_url(endpoint: str) -> str:
    """Return the chat completions URL of an endpoint.

    One that ends in `/chat/completions` is taken as given; another path gets that appended, only a bare host `/v1`
    before it. A query (Azure's `api-version`) stays at the end.
    """
    parts = urlsplit(endpoint)
    if not parts.path.rstrip("/").endswith(_CHAT):
        parts = parts._replace(path=_root(parts.path) + _CHAT)
    return urlunsplit(parts._replace(fragment=""))


def models_url(endpoint: str) -> str:
    """Return the URL of the endpoint's model list, which lies beside the chat completions."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(path=_root(parts.path.rstrip("/").removesuffix(_CHAT)) + "/models", fragment=""))


def _root(path: str) -> str:
    return path.rstrip("/") or "/v1"
