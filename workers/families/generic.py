"""Any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Any

from shared.domain import Claimed
from shared.errors import UpstreamError
from shared.families import Family
from shared.kinds import ErrorKind
from shared.models import LIMITS, renamed, with_known_limit
from shared.settings import Settings
from workers.answer import Answer, Collector
from workers.refusals import is_refusal
from workers.thinking import Pipeline, PrefixDropper, Stage, ThinkSplitter, opens_in_template


class Behaviour:
    """What a family may do its own way. A new family overrides what differs."""

    def __init__(self, family: Family, settings: Settings) -> None:
        self.family = family
        self.settings = settings
        self._phrases = (*family.refusals, *(settings.refusal_phrases if family.refusals else ()))

    def headers(self, task: Claimed) -> dict[str, str]:
        """Headers besides the usual ones."""
        return {}

    def payload(self, task: Claimed) -> dict[str, Any]:
        """The request's body, but for what streaming adds."""
        messages: list[dict[str, str]] = []
        if task.system:
            messages.append({"role": "system", "content": task.system})
        messages += task.context
        messages.append({"role": "user", "content": task.prompt})
        return {"model": task.model, "messages": merged(messages), **self.options(task)}

    def options(self, task: Claimed) -> dict[str, Any]:
        """The model options as the model takes them: the limit of the answer by the name that it knows."""
        options = {**self.family.options, **task.options}
        takes = self.family.takes
        if takes is not None and LIMITS & {*takes} != LIMITS:
            options = renamed(options, next(iter(LIMITS & {*takes}), None))
        elif LIMITS & options.keys():
            options = with_known_limit(self.settings.models.find(self.family, task.model), options)
        if takes is not None:
            options = {name: value for name, value in options.items() if name in takes}
        return options

    def stages(self, model: str) -> list[Stage]:
        """What text passes through, live and stored alike; a family that does more to it adds a stage."""
        stages: list[Stage] = []
        if self.family.prefixes:
            stages.append(PrefixDropper(self.family.prefixes))
        if self.family.think != "none":
            stages.append(ThinkSplitter(opened=self.family.think == "open" or opens_in_template(model)))
        return stages

    def collector(self, model: str) -> Collector:
        """What puts a call's answer together."""
        stages = self.stages(model)
        return Collector(Pipeline(stages) if stages else None, late=self.family.think != "none")

    @property
    def keepalive_s(self) -> float:
        """How often the endpoint's session is kept warm, in seconds; 0 for an endpoint that has none."""
        return 0.0

    def classify(self, error: UpstreamError) -> UpstreamError:
        """Look at a failed call: what an error means may depend on the family."""
        return error

    def check(self, answer: Answer) -> None:
        """Look at a whole answer. Its text is what `stages` let through: nothing is changed here.

        Raises:
            UpstreamError: it is none after all.
        """
        if self._phrases and is_refusal(answer.text, self._phrases):
            said = " ".join(answer.text.split())[:200]
            raise UpstreamError(f"the model refused: {said}", kind=ErrorKind.REFUSED, retryable=False, http_status=200)


def merged(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Join neighbours of one role: some endpoints refuse two prompts without an answer in between."""
    joined: list[dict[str, str]] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


behaviour = Behaviour
