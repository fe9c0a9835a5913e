"""What is said of models that have ended, or end soon: those that a setting names, and those that are asked. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from shared import models
from shared.families import BUILT_IN, Family
from shared.settings import Settings, family_variables
from shared.sources import Source


def today() -> dt.date:
    """The day that models' ends are held against."""
    return dt.datetime.now(dt.timezone.utc).date()


def about_default(settings: Settings, family: Family, day: dt.date) -> tuple[str, str] | None:
    """Say that the model which a family's bare name means has ended or ends within the notice, and the line to change.

    Returns (what is so, what mends it), or None.
    """
    row = settings.models.find(family, family.default_model)
    if settings.demo or row is None or not models.ends_soon(row, day):
        return None
    variable = _variable(family)
    said = f"`{family.name}` means {family.default_model}, which {models.fate(row, day)}"
    if settings.sources.source(variable) is not Source.DEFAULT:
        said = f"{settings.sources.line(variable)} names {family.default_model}, which {models.fate(row, day)}"
    better = row.successor or settings.models.default(family.name)
    return said, f'set {variable}="{better}"' if better else f"name another in {variable}"


def about_request(settings: Settings, asked: Sequence[tuple[str, Family]], options: Mapping[str, Any]) -> Iterator[str]:
    """Everything that the data about models have to say of a request."""
    yield from about_asked(settings, asked, today())
    yield from about_options(settings, asked, options)


def about_asked(settings: Settings, asked: Iterable[tuple[str, Family]], day: dt.date) -> Iterator[str]:
    """Say which of the asked models have ended: by the line to change, where a setting names them."""
    for model, family in () if settings.demo else asked:
        row = settings.models.find(family, model)
        if row is None or not models.ended(row, day):
            continue
        about = about_default(settings, family, day) if model == family.default_model else None
        if about is not None:
            yield "; ".join(about)
        else:
            instead = f"; ask {family.name}/{row.successor}" if row.successor else ""
            yield f"{model} {models.fate(row, day)}{instead}"


def about_options(settings: Settings, asked: Iterable[tuple[str, Family]], options: Mapping[str, Any]) -> Iterator[str]:
    """Say which options a model does not heed, or does not take by what is known of it."""
    for model, family in asked:
        said = models.about_options(settings.models.find(family, model), options)
        if said:
            yield f"{model} {', and '.join(said)}"


def _variable(family: Family) -> str:
    row = next((row for row in BUILT_IN if row.name == family.name), family.name)
    return family_variables(row)["default_model"]
