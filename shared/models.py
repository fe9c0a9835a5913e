"""Models as data: what each takes, when it ends, and what comes after it. Pure.

The package's rows are in `models.json`, a user's own come before them (`shared.models_file`). Every row names its
source and the day it was read there (`docs/upstreams.md`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from shared.families import Family
from shared.models_file import Model, built_in

# How long before a model's end it is said.
NOTICE = dt.timedelta(days=30)
# Whose models an endpoint has, whatever its family is called here.
_VENDORS = {
    "api.openai.com": "openai",
    "generativelanguage.googleapis.com": "gemini",
    "api.deepseek.com": "deepseek",
}
_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com")


@dataclass(frozen=True)
class Models:
    """All known models: those of the user's file, then the package's."""

    own: tuple[Model, ...] = ()

    @property
    def rows(self) -> tuple[Model, ...]:
        """Every row, those that count first in front."""
        return (*self.own, *built_in())

    def find(self, family: Family, name: str) -> Model | None:
        """Return what is known of a family's model: by its exact name, else by the first pattern that fits."""
        return _find(self, family.name, family.endpoint, bare(name))

    def default(self, family: str) -> str | None:
        """Return the model that a family's bare name means."""
        return next((row.name for row in self.rows if row.family == family and row.default), None)


@lru_cache(maxsize=1024)
def _find(models: Models, family: str, endpoint: str, name: str) -> Model | None:
    whose = vendor(endpoint)
    mine = [row for row in models.rows if row.family == family]
    mine += [row for row in models.rows if row.family == whose]
    if whose is None and _host(endpoint).endswith(_AZURE):
        # Azure has OpenAI's models, and ends them on days of its own.
        mine += [replace(row, retired=None, successor=None) for row in models.rows if row.family == "openai"]
    exact = next((row for row in mine if row.name == name), None)
    return exact or next((row for row in mine if fnmatchcase(name, row.name)), None)


def vendor(endpoint: str) -> str | None:
    """Whose endpoint this is, where that is known."""
    return _VENDORS.get(_host(endpoint))


def _host(endpoint: str) -> str:
    return (urlsplit(endpoint).hostname or "").lower()


def bare(name: str) -> str:
    """A model's name as vendors document it: Gemini's list says `models/` before each."""
    return name.lower().removeprefix("models/")


def ended(row: Model | None, today: dt.date) -> bool:
    """Whether a model is no more."""
    return row is not None and row.retired is not None and row.retired <= today


def ends_soon(row: Model | None, today: dt.date) -> bool:
    """Whether a model ends within the notice, or has ended."""
    return row is not None and row.retired is not None and row.retired <= today + NOTICE


def fate(row: Model, today: dt.date) -> str:
    """What is said of a model that ends: `was retired on 2026-07-24`."""
    then = f"; {row.successor} answers in its place" if row.rerouted and row.successor else ""
    return f"{'was' if ended(row, today) else 'is'} retired on {row.retired}{then}"


# What the limit of an answer is called, here or there.
LIMITS = frozenset({"max_tokens", "max_completion_tokens"})


def with_known_limit(row: Model | None, options: dict[str, Any]) -> dict[str, Any]:
    """Options with the limit of the answer under the name that the model knows."""
    return renamed(options, row.tokens if row is not None else None)


def renamed(options: dict[str, Any], limit: str | None) -> dict[str, Any]:
    """Options with the limit of the answer under this name, or as given."""
    if limit is None:
        return options
    return {limit if name in LIMITS else name: value for name, value in options.items()}


def about_options(row: Model | None, options: Mapping[str, Any]) -> list[str]:
    """Say which of these options a model ignores, and which it does not take, each as a sentence's end."""
    if row is None:
        return []
    ignored = [name for name in options if name in row.ignores]
    said = [f"ignores {', '.join(ignored)}"] if ignored else []
    if not row.temperature and "temperature" in options:
        said.append("takes no temperature but its own")
    effort = options.get("reasoning_effort")
    if effort is not None and row.efforts is not None and effort not in row.efforts:
        said.append(
            f"takes {' or '.join(row.efforts)} as reasoning_effort" if row.efforts else "takes no reasoning_effort"
        )
    return said


def gone(row: Model | None, *, status: int | None, message: str, today: dt.date) -> str | None:
    """Tell what a 404, a 410 or "no such model" means: `model_retired`, `unknown_model`, or None, not known.

    Args:
        row: what the data know of the model.
        status: 404 or 410, or None where the sender said in words or by a code that there is no such model.
    """
    if ended(row, today) or (status != 404 and _RETIRED.search(message)):
        return "model_retired"
    if status is None or (status == 410 and "model" in message.lower()):
        return "unknown_model"
    return None


_RETIRED = re.compile(
    r"\b(?:retired|decommissioned|deprecated|discontinued|sunset|shut ?down|no longer (?:available|supported)"
    r"|end[ -]of[ -]life)\b",
    re.I,
)


def answering(known: Models, family: Family, asked: str, said: str | None, today: dt.date) -> str | None:
    """The model that answered: the one that the upstream says, or at the vendor's own host, where it is known to let
    another one answer without a word, that one."""
    if is_other(asked, said):
        return said
    row = known.find(family, asked)
    silently = row is not None and row.rerouted and ended(row, today) and vendor(family.endpoint) == row.family
    return row.successor if row is not None and silently else said


def is_other(asked: str, answered: str | None) -> bool:
    """Tell whether the model that answered is another than the one asked: a snapshot or an alias of it is not."""
    if not answered:
        return False
    one, two = _plain(asked), _plain(answered)
    if one == two or _undated(one) == two or one == _undated(two):
        return False
    # A file of weights is called as its maker liked: it begins like the model at least.
    return not (answered.lower().endswith((".gguf", ".bin", ".safetensors")) and two.startswith(_family_part(one)))


def _plain(name: str) -> str:
    """A name without where it lies, who serves it and `latest`."""
    last = name.strip().lower().replace("\\", "/").rstrip("/").rpartition("/")[2]
    last = re.sub(r"\.(?:gguf|bin|safetensors)$", "", last)
    return re.sub(r"[:@-]latest$", "", last)


def _undated(name: str) -> str:
    """A name without what vendors add for a snapshot: a date, a revision, `preview`."""
    return re.sub(r"(?:[-@:](?:preview|exp|\d{3,8}|\d{4}-\d\d-\d\d|\d\d-\d\d(?:-\d{4})?|v\d+))+$", "", name)


def _family_part(name: str) -> str:
    return name.partition(":")[0]
