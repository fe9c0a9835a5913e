"""What a part says of an outage that it meets again and again: one line when it begins, one when it is over."""

from __future__ import annotations

import logging

from shared.errors import AitaskError


class Outage:
    """An outage as one part sees it. It asks as often as it must; a log that says so each time hides everything else.

    Args:
        log: where it is said.
        begins: the warning, with `%s` for the reason.
        ends: said when it is over; empty: nothing.
    """

    def __init__(self, log: logging.Logger, begins: str, ends: str = "") -> None:
        self._log = log
        self._begins = begins
        self._ends = ends
        self.on = False

    def met(self, error: AitaskError, **fields: object) -> None:
        """It failed, perhaps again."""
        if not self.on:
            self._log.warning(self._begins, error.message, extra=fields)
        self.on = True

    def over(self) -> bool:
        """It worked. Returns whether an outage ended with it."""
        was, self.on = self.on, False
        if was and self._ends:
            self._log.info(self._ends)
        return was
