"""`aitask worker`: run a worker."""

from __future__ import annotations

import click

from aitask_cli import options
from aitask_cli.exit_codes import Exit


@click.command(name="worker")
@click.argument("families", nargs=-1, metavar="[FAMILY]...")
@click.option("-c", "--concurrency", type=click.IntRange(1, 5000), help="Calls held at once; AITASK_SLOTS otherwise.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How logs are written.")
@click.option("--background", type=int, hidden=True, help="The descriptor of the background worker's lock.")
@options.demo
def command(
    families: tuple[str, ...],
    concurrency: int | None,
    processes: int,
    log_format: str,
    background: int | None,
    demo: bool,
) -> int:
    """Run a worker for the families named, or for all.

    SIGTERM and Ctrl-C stop it gracefully: calls get a moment to end, the rest is handed back. With --processes each
    holds as many calls as -c says, and one that dies is started again.
    """
    from aitask_cli.local.locks import OwnLock
    from aitask_cli.session import open_session
    from aitask_cli.version import version
    from aitask_cli.views.terminal import say
    from shared import logs
    from shared.errors import UsageFault
    from shared.loading import child_environment
    from workers.run import run

    if processes > 1:
        from aitask_cli.processes import run_many

        with open_session(demo=demo, say=say, keeper=True) as session:
            logs.configure(session.settings.log_level, as_json=log_format == "json")
            each = ["worker", *families, "--log-format", log_format, *(["--demo"] if demo else [])]
            return run_many(
                [*each, *(["-c", str(concurrency)] if concurrency else [])],
                processes,
                env=child_environment(session.settings),
            )
    with open_session(demo=demo, say=say, keeper=True) as session:
        settings = session.settings
        logs.configure(settings.log_level, as_json=log_format == "json")
        known = [family.name for family in settings.families]
        unknown = [name for name in families if name not in known]
        if unknown:
            raise UsageFault(f"there is no family {unknown[0]!r}", remedy=f"families: {', '.join(known)}")
        chosen = tuple(family for family in settings.families if not families or family.name in families)
        lock = OwnLock(background)
        leave = session.leaver(lock.release) if background is not None else None
        try:
            run(settings, chosen, slots=concurrency or settings.slots, version=version(), leave=leave)
        finally:
            # Before the servers are let go: whoever replaces this worker waits for this lock with theirs in hand.
            lock.release()
    return Exit.OK
