"""What the simulator does with one request: read from the model's name and the simulator's settings. Pure.

A model name may carry suffixes: `gemini-2.5-flash+latency=2+tps=50`, `qwen+429`, `deepseek+500x2` (only the first two
calls for the same model and prompt), `qwen+429+retry-after=5`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from aitask_cli.simulator.field import meanings
from shared.errors import UsageFault

FAULTS = {
    "429": "HTTP 429 with Retry-After (seconds: +retry-after=N)",
    "429body": "HTTP 429 that names the wait in its body alone",
    "429bare": "HTTP 429 that names no wait",
    "500": "HTTP 500",
    "503": "HTTP 503 without Retry-After",
    "400": "HTTP 400, a bad request",
    "401": "HTTP 401, a wrong key",
    "context": "HTTP 400, the context is too long",
    "html": "HTTP 200 with an HTML error page",
    "hang": "accepts the request and never answers",
    "close": "closes the connection without an answer",
    "truncated": "a stream that breaks off in mid-answer",
    "keepalive": "a stream of keep-alive comments that never ends",
    "badjson": "HTTP 200 with broken JSON",
    "huge": "a body of 100 MB",
    "empty": "HTTP 200 with an empty body",
    "error200": "HTTP 200 with an error object inside",
    "nochoices": "choices without content",
    "tools": "a tool call instead of text",
    "utf16": "JSON in UTF-16",
    "redirect": "a redirect to another host",
    "nostream": "refuses stream=true",
    "refusal": "a soft refusal as HTTP 200",
    "think": "R1's reasoning as <think> in the text",
    "reasoning": "R1's reasoning as reasoning_content",
    "unclosed": "a <think> that is never closed",
    "nasty": "text with terminal codes and markup",
    **meanings(),
}

_SUFFIX = re.compile(r"([a-z0-9-]+?)(?:x(\d+))?(?:=([\d.]+))?")
NASTY = "[/] [bold]not bold[/bold] \x1b[31mred\x1b]0;title\x07 \u202eoverride\u202c tab\there " + "long" * 100 + "\n"


@dataclass(frozen=True, slots=True)
class Script:
    """How one request is answered. Times in seconds; `times` bounds a fault to the first calls, None means all.

    With `every_s` a model takes one call in so many seconds and meets the others with its fault, 429 unless another.
    """

    latency_s: float = 0.0
    tokens_per_s: float = 0.0
    tokens: int = 40
    fault: str | None = None
    times: int | None = None
    retry_after_s: float = 1.0
    every_s: float = 0.0

    def with_suffixes(self, model: str) -> Script:
        """Apply what a model name asks for. A suffix that means nothing is left alone: it may be part of a name."""
        script = self
        for suffix in model.split("+")[1:]:
            script = script._with(suffix.lower())
        return script

    def _with(self, suffix: str) -> Script:
        match = _SUFFIX.fullmatch(suffix)
        if match is None:
            return self
        name, times, value = match.groups()
        if name in FAULTS:
            return replace(self, fault=name, times=int(times) if times else None)
        numbers = {
            "latency": "latency_s",
            "tps": "tokens_per_s",
            "tokens": "tokens",
            "retry-after": "retry_after_s",
            "every": "every_s",
        }
        if name in numbers and value is not None:
            number = float(value)
            return replace(self, **{numbers[name]: int(number) if name == "tokens" else number})  # type: ignore[arg-type]
        return self


def checked_fault(name: str | None) -> str | None:
    """Check a fault's name.

    Raises:
        UsageFault: there is no such fault.
    """
    if name is not None and name not in FAULTS:
        raise UsageFault(f"the simulator has no fault {name!r}", remedy=f"there are: {', '.join(FAULTS)}")
    return name


def answer_text(model: str, prompt: str, tokens: int) -> str:
    """Return an answer of about so many tokens that says it is simulated."""
    head = " ".join(prompt.split())[:60]
    lines = [
        f"**Simulated answer** of `{model.split('+')[0]}`: no model was asked.",
        "",
        f'You asked: "{head}". A real answer would stand here, with code perhaps:',
        "",
        "```python",
        "import csv",
        "",
        'with open("data.csv", newline="") as file:',
        "    rows = list(csv.DictReader(file))",
        "```",
        "",
    ]
    words = " ".join(lines[:1]).split(" ") if tokens < 20 else "\n".join(lines).split(" ")
    filler = [
        "and",
        "so",
        "on,",
        "word",
        "after",
        "word,",
        "until",
        "the",
        "simulated",
        "model",
        "has",
        "said",
        "enough.",
    ]
    while len(words) < tokens:
        words.append(filler[len(words) % len(filler)])
    return " ".join(words[: max(tokens, 6)])
