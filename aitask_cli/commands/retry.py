"""`aitask retry`: try again."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="retry")
@click.argument("names", nargs=-1, metavar="[BATCH|TASK]...")
@click.option("--failed", is_flag=True, help="Every task that failed lately.")
@click.option("--within", type=options.DURATION, default="24h", show_default=True, metavar="TIME", help="How lately.")
@options.demo
def command(names: tuple[str, ...], failed: bool, within: float, demo: bool) -> int:
    """Try failed tasks anew, in place, and waiting ones at once; earlier attempts stay on record.

    A task is named by its id, by BATCH.N or by BATCH/MODEL; a batch means all of its tasks.
    """
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.errors import HintsUnavailable, UsageFault
    from shared.store import operate

    if not names and not failed:
        raise UsageFault("nothing to retry is named", remedy="name a batch or a task, or give --failed")
    with open_session(demo=demo, say=say) as session:
        ids = {task_id for name in names for task_id in operate.find_tasks(session.db, name)}
        ids |= set(operate.failed_within(session.db, within)) if failed else set()
        session.make_way()
        origin = session.settings.origin
        others = {task_id for task_id, asked in operate.origins(session.db, ids).items() if asked != origin}
        again = operate.retry(session.db, ids, origin=origin)
        taken = others & {task_id for _, task_id in again} if origin else set()
        if taken:
            say(f"{len(taken)} were asked under other settings and are called with these from now on")
        try:
            session.streams.send(again)
        except HintsUnavailable:
            say("Redis is not available; the tasks go by way of the database")
        missing = session.ensure_worker({family for family, _ in again}) if again else []
    say(f"{len(again)} of {len(ids)} tasks are tried again")
    if missing:
        say(f"no worker serves {', '.join(missing)}; start one: aitask worker {' '.join(missing)}")
    return 0
