"""The name of every Redis key, decided once. Pure.

For a namespace N, on a single Redis and behind Sentinel:

    N:tasks:FAMILY[:LANE][@ORIGIN]   stream of hints, consumer group N; the lane `ask` is not named
    N:sys_dead_letters               stream of entries that named no task
    N:live:TASK:ATTEMPT              live output of one attempt
    N:installation[:others]          whose namespace it is, and who else is there

In a Cluster FAMILY and TASK stand in braces: the streams of a family share a slot, and so does a task's live output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.families import valid_family_name

ASK = "ask"


@dataclass(frozen=True, slots=True)
class Keys:
    """Names for one namespace.

    Args:
        clustered: whether the names are for a Cluster.
        origin: what tells the tasks of several origins apart on one machine.
    """

    namespace: str
    clustered: bool = False
    origin: str | None = None

    @property
    def group(self) -> str:
        """The consumer group of every task stream."""
        return self.namespace

    @property
    def dead_letters(self) -> str:
        return f"{self.namespace}:sys_dead_letters"

    @property
    def installation(self) -> str:
        return f"{self.namespace}:installation"

    @property
    def others(self) -> str:
        """Who else uses the namespace."""
        return f"{self.namespace}:installation:others"

    @property
    def of_every_origin(self) -> str:
        """A pattern for the task streams that have an origin."""
        return f"{self.namespace}:tasks:*@*"

    def tasks(self, family: str, lane: str = ASK) -> str:
        """The stream of a family's lane."""
        lane_part = "" if lane == ASK else f":{lane}"
        origin_part = f"@{self.origin}" if self.origin else ""
        return f"{self.namespace}:tasks:{self._tag(family)}{lane_part}{origin_part}"

    def live(self, task_id: str, attempt: int) -> str:
        """The stream of one attempt's live output."""
        return f"{self.namespace}:live:{self._tag(task_id)}:{attempt}"

    def family_of(self, stream: str) -> str | None:
        """The family whose task stream this is, of whatever origin, or None when it is no task stream of ours."""
        match = re.fullmatch(re.escape(f"{self.namespace}:tasks:") + r"(\{?)([^:@{}]+)(\}?)(:bulk)?(@[\w.-]+)?", stream)
        braces = ("{", "}") if self.clustered else ("", "")
        if match is None or (match[1], match[3]) != braces or not valid_family_name(match[2]):
            return None
        return match[2]

    def _tag(self, name: str) -> str:
        return f"{{{name}}}" if self.clustered else name
