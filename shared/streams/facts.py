"""What a Redis promises, and what the lack of it costs. Nothing of it costs work: the database owns the tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# XAUTOCLAIM and XADD's NOMKSTREAM came with it; Valkey counts on from Redis 7.2.
OLDEST = (6, 2)
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """One server. `strange`: those of our names under which something else than a stream lies, with what it is."""

    version: str
    valkey: bool = False
    replica: bool = False
    maxmemory: int = 0
    policy: str = "noeviction"
    clustered: bool = False
    append_only: bool = True
    strange: Mapping[str, str]

    @property
    def evicts(self) -> bool:
        return self.maxmemory > 0 and self.policy != "noeviction"

    @property
    def named(self) -> str:
        """Its product and version for people."""
        return f"{'Valkey' if self.valkey else 'Redis'} {self.version}"


@dataclass(frozen=True, slots=True)
class Cost:
    """One thing that is not as it should be: what it costs, and what mends it."""

    name: str
    cost: str
    remedy: str


def read(info: Mapping[str, Any], strange: Mapping[str, str]) -> RedisFacts:
    """Read a server's INFO."""
    return RedisFacts(
        version=str(info.get("valkey_version") or info.get("redis_version") or "?"),
        valkey="valkey_version" in info,
        replica=info.get("role") == "slave",
        maxmemory=int(info.get("maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        clustered=bool(int(info.get("cluster_enabled", 0))),
        append_only=bool(int(info.get("aof_enabled", 0))),
        strange=strange,
    )


def costs(facts: RedisFacts) -> Iterator[Cost]:
    """Say in one line each what a server's ways cost."""
    if facts.replica:
        yield Cost(
            "role", "this Redis is a replica, which takes no writes: every task goes by way of the database, later",
            "point REDIS_URL at its primary, or use redis+sentinel://HOST:26379/NAME",
        )  # fmt: skip
    if _too_old(facts):
        yield Cost(
            "version", f"{facts.named} is older than 6.2 and has no XAUTOCLAIM: what a dead worker has read is never "
            "cleared away and its tasks wait for the database's lease",
            "use Redis from 6.2 or Valkey from 7.2 on",
        )  # fmt: skip
    if facts.evicts:
        yield Cost(
            "maxmemory-policy", f"it evicts ({facts.policy}): hints may be thrown away, which costs those tasks some "
            "seconds, and running answers may lose their beginning",
            "redis-cli config set maxmemory-policy noeviction",
        )  # fmt: skip
    for name, kind in list(facts.strange.items())[:_SHOWN]:
        yield Cost(
            "key types", f"{name} is a {kind} and no stream: what belongs there goes by way of the database, later",
            f"redis-cli rename {name} {name}.old, or another AITASK_NAMESPACE",
        )  # fmt: skip


def _too_old(facts: RedisFacts) -> bool:
    numbers = facts.version.split(".")[:2]
    return all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) < OLDEST
