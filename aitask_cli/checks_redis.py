"""What Redis' settings cost, in one line each, and whose namespace it is."""

from __future__ import annotations

from collections.abc import Iterator

from aitask_cli.checks import Check, Level
from shared import servers
from shared.errors import AitaskError, HintsUnavailable
from shared.settings import Settings
from shared.streams import Ownership, RedisFacts, Streams, costs


def redis(settings: Settings, *, installation: str | None) -> Iterator[Check]:
    """Look at Redis. Whatever is wrong there delays tasks and stops none.

    Args:
        installation: the name of this one, where the database said it.
    """
    streams = servers.streams(settings)
    try:
        streams.ping()
        yield Check("redis", Level.OK, "Redis answers")
        yield from about(streams.facts([family.name for family in settings.families]))
        yield from _owner(streams, installation)
    except AitaskError as error:
        # "see: aitask doctor" is no help in aitask doctor.
        named = error.remedy if error.remedy and "doctor" not in error.remedy else ""
        yield Check("redis", Level.WARNING, error.message, named or "check REDIS_URL or REDIS_HOST, REDIS_PORT")
    finally:
        streams.close()


def about(facts: RedisFacts) -> Iterator[Check]:
    """Say what a server's ways cost; one that costs nothing is said to be fine."""
    found = [Check(f"redis {cost.name}", Level.WARNING, cost.cost, cost.remedy) for cost in costs(facts)]
    yield from found
    if not found:
        kept = "keeps hints over a restart" if facts.append_only else "after a restart hints are sent again, 5 s later"
        ways = ", a Cluster: a family's streams lie on one node" if facts.clustered else ""
        yield Check("redis server", Level.OK, f"{facts.named}, takes writes, never evicts, {kept}{ways}")


def _owner(streams: Streams, installation: str | None) -> Iterator[Check]:
    owner, others = streams.owners()
    if installation is None or owner is None:
        return
    ownership = Ownership(installation)
    ownership.found(owner.encode())
    try:
        ownership.refuse(streams.keys)
    except HintsUnavailable as error:
        cost = "tasks go by way of the database, up to half a second later"
        yield Check("redis namespace", Level.WARNING, f"{error.message}: {cost}", error.remedy)
        return
    if others is not None:
        yield Check(
            "redis namespace", Level.WARNING,
            f"another installation (database {others.partition(' ')[2]}) uses the namespace {streams.namespace!r} too: "
            "its hints are thrown away, its tasks go by way of its database",
            "set another AITASK_NAMESPACE, or another REDIS_URL, there",
        )  # fmt: skip
