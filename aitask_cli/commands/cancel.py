"""`aitask cancel`: end tasks."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="cancel")
@click.argument("names", nargs=-1, required=True, metavar="BATCH|TASK...")
@options.demo
def command(names: tuple[str, ...], demo: bool) -> int:
    """End tasks that have not ended. A running call is stopped within a heartbeat; doing it twice changes nothing.

    A task is named by its id, by BATCH.N or by BATCH/MODEL; a batch means all of its tasks.
    """
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.store import operate

    with open_session(demo=demo, say=say) as session:
        ids = {task_id for name in names for task_id in operate.find_tasks(session.db, name)}
        ended = operate.cancel(session.db, ids)
    say(f"{len(ended)} of {len(ids)} tasks are cancelled")
    return 0
