"""What could stop an `ask`, looked at one after another. Nothing is started or changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from aitask_cli import endings
from aitask_cli.down import downs
from aitask_cli.probe import Probe, probe
from shared.errors import AitaskError
from shared.families import Family
from shared.redaction import masked_url
from shared.servers import ignored_parameters
from shared.settings import Settings


class Level(str, Enum):
    """How bad a finding is: a warning delays or narrows, a failure stops."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding, and what mends it."""

    name: str
    level: Level
    found: str
    remedy: str = ""


def checks(settings: Settings) -> Iterator[Check]:
    """Look at everything an `ask` needs."""
    from aitask_cli.checks_redis import redis

    files = settings.sources.files
    yield Check("settings", Level.OK, f"read from {' and '.join(files)}" if files else "no file of settings is read")
    for name, ignored in ignored_parameters(settings).items():
        yield Check(name, Level.OK, f"parameters that mean nothing here are ignored: {', '.join(ignored)}")
    yield from _abandoned()
    if settings.local:
        settings, found = _local(settings)
        yield from found
        if found[-1].level is Level.FAILURE or not _running(settings):
            yield from _endpoints(settings)
            return
    yield from _database(settings)
    yield from redis(settings, installation=None if settings.local else _installation(settings))
    yield from _endpoints(settings)


def _abandoned() -> Iterator[Check]:
    """Root's databases whose data directory is gone: they lie elsewhere and would stay for ever."""
    from aitask_cli.local.postgres import ROOT_BASE
    from aitask_cli.local.root_cluster import abandoned

    for home, owner in abandoned(ROOT_BASE) if os.geteuid() == 0 else ():
        remedy = f"when it is not needed: rm -r {home} {home}.owner"
        yield Check("cluster", Level.WARNING, f"{home} holds the database of {owner}, which is gone", remedy)


def _running(settings: Settings) -> bool:
    return settings.database_url is not None


def _local(settings: Settings) -> tuple[Settings, list[Check]]:
    from aitask_cli.local.stack import LocalStack
    from shared.settings import with_servers

    try:
        stack = LocalStack(settings)
    except AitaskError as error:
        return settings, [Check("servers", Level.FAILURE, error.message, error.remedy)]
    running = [server.name for server in stack.servers if server.alive()]
    where = f"the local default in {stack.paths.base}"
    if len(running) < len(stack.servers):
        return settings, [Check("servers", Level.OK, f"{where}: started when they are needed")]
    found = [Check("servers", Level.OK, f"{where}: {', '.join(running)} running")]
    return with_servers(settings, database_url=stack.postgres.url, redis_url=stack.valkey.url), found


def _database(settings: Settings) -> Iterator[Check]:
    from aitask_cli.checks_postgres import about
    from shared import servers
    from shared.store import facts, fleet, schema

    db = servers.reading(settings, connections=1, timeout_s=3.0, name="aitask-doctor")
    try:
        schema.check(db)
        yield Check("database", Level.OK, "PostgreSQL answers, its tables are of this version")
        yield from about(facts.facts(db), workers=len(fleet.workers(db)))
        served = fleet.served_families(db)
        for family in settings.families:
            if family.name not in served and not settings.demo:
                yield Check(
                    f"worker {family.name}",
                    Level.WARNING,
                    "no worker serves this family",
                    f"aitask worker {family.name}",
                )
        for down in downs(fleet.workers(db)):
            yield Check(f"down on {down.host}", Level.WARNING, f"{down.part} stays down: {down.said}", down.remedy)
        for pause in fleet.pauses(db):
            yield Check(f"pause {pause.family}", Level.WARNING, f"paused: {pause.reason}", "it waits to be resumed")
    except AitaskError as error:
        yield Check("database", Level.FAILURE, error.message, _remedy(error, "check DATABASE_URL or DB_HOST, DB_PORT"))
    finally:
        db.close()


def _installation(settings: Settings) -> str | None:
    """The name of this installation, from its database; None while that is away."""
    from shared import servers
    from shared.store import facts

    db = servers.reading(settings, connections=1, timeout_s=3.0, name="aitask-doctor")
    try:
        return facts.installation(db)
    except AitaskError:
        return None
    finally:
        db.close()


def _remedy(error: AitaskError, otherwise: str) -> str:
    # "see: aitask doctor" is no help in aitask doctor.
    return error.remedy if error.remedy and "doctor" not in error.remedy else otherwise


def _endpoints(settings: Settings) -> Iterator[Check]:
    if settings.demo:
        yield Check("endpoints", Level.OK, "every family is answered by the simulator")
        return
    for family in settings.families:
        ending = endings.about_default(settings, family, endings.today())
        if ending is not None:
            yield Check(f"model {family.name}", Level.WARNING, *ending)
        if family.missing:
            yield Check(
                f"endpoint {family.name}",
                Level.WARNING,
                "the key is not sent" if family.withheld else "no key",
                family.missing,
            )
        else:
            yield _endpoint(family, probe(family))


def _endpoint(family: Family, said: Probe) -> Check:
    name, endpoint = f"endpoint {family.name}", masked_url(family.endpoint)
    if said.error is not None:
        return Check(name, Level.WARNING, f"{endpoint}: {said.error}", said.remedy)
    check = Check(name, Level.OK, f"{endpoint} answers")
    if said.models is None:
        return replace(check, found=f"{endpoint} answers, and lists no models")
    names = {model.removeprefix("models/") for model in said.models}
    wanted = family.default_model.removeprefix("models/")
    if names and wanted not in names and f"{wanted}:latest" not in names:
        return Check(
            name, Level.WARNING, f"{endpoint} has no model {wanted}, which `{family.name}` means",
            f"set {family.prefix}_DEFAULT_MODEL, for example {sorted(names)[0]}",
        )  # fmt: skip
    return replace(check, found=f"{endpoint} answers, {len(names)} models")
