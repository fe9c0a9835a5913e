"""What a connection's user needs of it: how long it may wait, how it plans, when the server may end it."""

from __future__ import annotations

from dataclasses import dataclass

# Limits on idle ones below these would end connections of a machine that is only busy.
_LEAST_IDLE_LIMIT_S = 2.0
READING_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds in seconds; `by_index`: a plan made while a table was small, or never analyzed, must serve when it is
    large. `gone_s`: how long a lost machine may hold its locks; None: for as long as TCP takes to notice.
    """

    timeout_s: float = READING_TIMEOUT_S
    by_index: bool = False
    gone_s: float | None = None

    @classmethod
    def reading(cls, *, timeout_s: float = READING_TIMEOUT_S) -> Profile:
        """For people: the planner is free. A COPY may wait for its writer, so nothing idle is ended."""
        return cls(timeout_s=timeout_s)

    @classmethod
    def hot(cls, *, lease_s: float) -> Profile:
        """For workers: everything is over within a third of the lease, also on a machine that is lost."""
        within = lease_s / 3.5
        return cls(timeout_s=max(1.0, within), by_index=True, gone_s=max(_LEAST_IDLE_LIMIT_S, within))

    @property
    def local(self) -> dict[str, str]:
        """The server's settings that a transaction can have for itself: all that a pooler leaves to us."""
        timeout_ms = str(int(self.timeout_s * 1000))
        found = {"statement_timeout": timeout_ms, "lock_timeout": timeout_ms, "TimeZone": "UTC"}
        if self.gone_s is not None:
            found["idle_in_transaction_session_timeout"] = str(int(self.gone_s * 1000))
        if self.by_index:
            found["enable_seqscan"] = "off"
        return found

    @property
    def session(self) -> dict[str, str]:
        """The server's settings of a connection of our own."""
        # What every guarded statement here is written for, whatever the server's default is.
        found = {
            **self.local,
            "default_transaction_isolation": "read committed",
            "plan_cache_mode": "force_generic_plan",
        }
        if self.gone_s is not None:
            seconds = max(1, int(self.gone_s / 2))
            found |= {"tcp_keepalives_idle": str(seconds), "tcp_keepalives_interval": "1"}
            found["tcp_keepalives_count"] = str(max(1, seconds))
        return found

    @property
    def client(self) -> dict[str, str | int]:
        """libpq's own bounds."""
        # It takes whole seconds and treats 1 as 2.
        bounds: dict[str, str | int] = {
            "connect_timeout": max(2, int(self.timeout_s)),
            "tcp_user_timeout": int(self.timeout_s * 1000),
        }
        if self.gone_s is not None:
            seconds = max(1, int(self.gone_s / 2))
            bounds |= {"keepalives_idle": seconds, "keepalives_interval": 1, "keepalives_count": seconds}
        return bounds
