"""A model that is not there: whether it is retired or unknown, and what to ask instead, by the data about models."""

from __future__ import annotations

import datetime as dt

from shared import models
from shared.errors import UpstreamError
from shared.families import Family
from shared.kinds import ErrorKind, http_kind
from shared.models import Models

_BARE = {http_kind(404), http_kind(410)}


def named(error: UpstreamError, known: Models, family: Family, model: str, today: dt.date) -> UpstreamError:
    """Return an error that names the model's end and its successor, where it means that there is no such model."""
    status = error.http_status
    if error.kind == ErrorKind.UNKNOWN_MODEL:
        status = status if status == 410 else None
    elif error.kind not in _BARE:
        return error
    row = known.find(family, model)
    kind = models.gone(row, status=status, message=error.message, today=today)
    if kind is None:
        return error
    said = f"{family.name} has no model {model}"
    if row is not None and row.retired is not None:
        said = f"{model} {models.fate(row, today)}"
    instead = (
        f"ask {family.name}/{row.successor} instead" if row and row.successor else "see what there is: aitask models"
    )
    return UpstreamError(
        f"{said}; {instead} ({error.message})", kind=ErrorKind(kind), retryable=False, http_status=error.http_status
    )
