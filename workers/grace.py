"""When a worker may end leases: once those who hold them could have beaten for a whole lease. Pure but for a clock."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable


class Grace:
    """Waits one lease after whatever kept workers from beating, before leases that ran out are taken for abandoned.

    That is an outage that this worker saw, a start of PostgreSQL, and a promotion: a standby may have been up for long,
    so its own uptime says nothing. Where the server can tell for how long it has been the primary, a worker that has
    just started ends what a crash left behind at once; where it can't, the lease counts from when this worker first saw
    that server.
    """

    def __init__(self, lease_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._outage_ended = clock() - lease_s
        # By the time of its start, one server is told from another.
        self._primary_since: dict[dt.datetime, float] = {}

    def outage_seen(self) -> None:
        """PostgreSQL was away until now."""
        self._outage_ended = self._clock()

    def is_over(self, *, server_started: dt.datetime, up_s: float, primary_for_s: Callable[[], float]) -> bool:
        """Whether leases may be ended.

        Args:
            server_started: when the server that answers was started, which names it.
            up_s: for how long it has been up, in seconds.
            primary_for_s: asks for how long it has surely been the primary; asked once for each server.
        """
        now = self._clock()
        if server_started not in self._primary_since:
            self._primary_since[server_started] = now - primary_for_s()
        since = max(self._outage_ended, self._primary_since[server_started], now - up_s)
        return now - since >= self._lease_s
