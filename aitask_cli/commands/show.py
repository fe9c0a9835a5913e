"""`aitask show`: a batch as it stands."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="show")
@click.argument("batch", default="last")
@click.option("--attempts", is_flag=True, help="List every attempt of every task.")
@options.raw
@options.reasoning
@options.strict
@options.as_json
@options.demo
def command(batch: str, attempts: bool, raw: bool, reasoning: bool, strict: bool, as_json: bool, demo: bool) -> int:
    """Show a batch as it stands, without waiting; exit 8 while it is running.

    BATCH is an id, the start of one, or `last`.
    """
    from aitask_cli.exit_codes import for_batch
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.answers import print_answers
    from aitask_cli.views.listing import print_attempts
    from aitask_cli.views.terminal import out_json, say
    from shared.store import read

    with open_session(demo=demo, say=say) as session:
        view = read.batch(session.db, read.find_batch(session.db, batch))
        tried = {task.id: read.attempts(session.db, task.id) for task in view.tasks} if attempts else {}
    if as_json:
        body = shape.batch(view)
        for task in body["batch"]["tasks"]:
            if attempts:
                task["attempts"] = shape.attempts(tried[task["id"]])
        out_json(shape.dumps(body))
    elif attempts:
        print_attempts(view, tried)
    else:
        print_answers(view, raw=raw, reasoning=reasoning, max_failures=session.settings.max_failures)
    return for_batch(view, strict=strict)
