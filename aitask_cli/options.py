"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shared.settings import Settings
    from shared.streams import DeadLetter


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """A time such as 30s, 10m, 2h or 1d, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a time; give for example 30s, 10m or 2h", param, ctx)
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2] or "s"]


DURATION = _Duration()


def known_family(settings: Settings, name: str) -> None:
    """Check a family's name.

    Raises:
        UsageFault: there is none of this name.
    """
    from shared.errors import UsageFault

    if settings.family(name) is None:
        known = ", ".join(family.name for family in settings.families)
        raise UsageFault(f"there is no family {name!r}", remedy=f"families: {known}")


def dead_letter(letters: Sequence[DeadLetter], name: str) -> DeadLetter:
    """Find a dead letter by its id.

    Raises:
        NotFound: there is none.
    """
    from shared.errors import NotFound

    for letter in letters:
        if letter.id == name:
            return letter
    raise NotFound(f"no dead letter {name}", remedy="see: aitask dlq ls")


demo = click.option(
    "--demo", is_flag=True, help="Use simulated models, on servers and data of their own; settings are ignored."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON (one documented shape) on standard output.")
raw = click.option("-r", "--raw", is_flag=True, help="Print answers as they are, not rendered as Markdown.")
wait = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait at most so long; then exit 124, the batch goes on.",
)
reasoning = click.option("--reasoning", is_flag=True, help="Print the models' reasoning too.")
strict = click.option(
    "--strict", is_flag=True, help="Exit 3 too when a model saw only part of the question (marked *cut question*)."
)
