"""`aitask worker`: run a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aitask_cli import options
from aitask_cli.exit_codes import Exit

if TYPE_CHECKING:
    from shared.families import Family
    from shared.settings import Settings


@click.command(name="worker")
@click.argument("families", nargs=-1, metavar="[FAMILY]...")
@click.option("--added", is_flag=True, help="Serve the families that AITASK_FAMILIES adds.")
@click.option("-c", "--concurrency", type=click.IntRange(1, 5000), help="Calls held at once; AITASK_SLOTS otherwise.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@click.option("--restart", is_flag=True, help="Start the worker again when it ends, after 1 s to 60 s.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How logs are written.")
@click.option("--background", type=int, hidden=True, help="The descriptor of the background worker's lock.")
@click.option("--lifeline", type=int, hidden=True, help="The descriptor that ends with who supervises this process.")
@options.demo
def command(
    families: tuple[str, ...],
    added: bool,
    concurrency: int | None,
    processes: int,
    restart: bool,
    log_format: str,
    background: int | None,
    lifeline: int | None,
    demo: bool,
) -> int:
    """Run a worker for the families named, or for all.

    SIGTERM, SIGHUP and Ctrl-C stop it gracefully: calls get a moment to end, the rest is handed back. With --processes
    each holds as many calls as -c says. One that dies is started again with --processes or --restart; after 5 ends in
    10 minutes it stays down, and `ps`, `explain` and `doctor` say so. Without a family to serve it stays, idle.
    """
    from aitask_cli.local.locks import OwnLock
    from aitask_cli.processes import hold_lifeline, stay_idle
    from aitask_cli.session import open_session
    from aitask_cli.version import version
    from aitask_cli.views.terminal import say
    from shared import logs

    with open_session(demo=demo, say=say, keeper=True) as session:
        settings = session.settings
        logs.configure(settings.log_level, as_json=log_format == "json")
        chosen = _chosen(settings, families, added=added)
        if added and not chosen and not restart and processes == 1:
            hold_lifeline(lifeline)
            stay_idle("AITASK_FAMILIES adds no family; this worker stays idle", say)
            return Exit.OK
        if restart or processes > 1:
            return _supervised(settings, families, chosen, added, concurrency, processes, log_format, demo)
        # Who only supervises needs none of this.
        from workers.run import run

        hold_lifeline(lifeline)
        lock = OwnLock(background)
        leave = session.leaver(lock.release) if background is not None else None
        try:
            run(
                settings,
                chosen,
                slots=concurrency or settings.slots,
                version=version(),
                leave=leave,
                retired=lock.release if background is not None else None,
            )
        finally:
            # Before the servers are let go: whoever replaces this worker waits for this lock with theirs in hand.
            lock.release()
    return Exit.OK


def _chosen(settings: Settings, names: tuple[str, ...], *, added: bool) -> tuple[Family, ...]:
    from shared.errors import UsageFault

    known = [family.name for family in settings.families]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageFault(f"there is no family {unknown[0]!r}", remedy=f"families: {', '.join(known)}")
    wanted = {*names, *(settings.more_families if added else ())}
    return tuple(family for family in settings.families if family.name in wanted or not (names or added))


def _supervised(
    settings: Settings,
    families: tuple[str, ...],
    chosen: tuple[Family, ...],
    added: bool,
    concurrency: int | None,
    processes: int,
    log_format: str,
    demo: bool,
) -> int:
    """Run it in processes of its own, which are started again."""
    from aitask_cli.down import DownReport
    from aitask_cli.processes import Supervisor
    from shared.loading import child_environment

    said = ["worker", *families, *(["--added"] if added else []), *(["--demo"] if demo else [])]
    said += ["-c", str(concurrency)] if concurrency else []
    report = DownReport(settings, " ".join(["aitask", *said]), [family.name for family in chosen])
    env = child_environment(settings)
    code = Supervisor([*said, "--log-format", log_format], processes, env=env, stays_down=report).run()
    report.withdraw()
    return code
