"""`aitask watch`: attach to a batch."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="watch")
@click.argument("batch", default="last")
@options.wait
@options.raw
@options.reasoning
@options.strict
@options.as_json
@options.demo
def command(batch: str, wait: float | None, raw: bool, reasoning: bool, strict: bool, as_json: bool, demo: bool) -> int:
    """Watch a batch until it has finished, then print its answers.

    BATCH is an id, the start of one, or `last`. Ctrl-C detaches; the batch goes on.
    """
    from aitask_cli.attach import attach
    from aitask_cli.session import open_session
    from aitask_cli.stranded import stranded
    from aitask_cli.views.terminal import say
    from shared.store import read

    with open_session(demo=demo, say=say) as session:
        batch_id = read.find_batch(session.db, batch)
        ours = (None, session.settings.origin)
        tasks = [task for task in read.batch(session.db, batch_id).tasks if not task.status.terminal]
        families = {task.family for task in tasks if task.origin in ours}
        missing = session.ensure_worker(families) if families else []
        if missing:
            say(f"no worker serves {', '.join(missing)}; start one: aitask worker {' '.join(missing)}")
        for one in stranded(session, {batch_id}):
            say(str(one))
        return attach(session, batch_id, wait_s=wait, as_json=as_json, raw=raw, reasoning=reasoning, strict=strict)
