"""`aitask ls`: the newest batches."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="ls")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@options.as_json
@options.demo
def command(number: int, as_json: bool, demo: bool) -> int:
    """List batches, newest first."""
    from aitask_cli.session import open_session
    from aitask_cli.stranded import stranded
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_batches
    from aitask_cli.views.terminal import out_json, say
    from shared.store import read

    with open_session(demo=demo, say=say) as session:
        lines = read.recent(session.db, number)
        for one in stranded(session, {line.id for line in lines}):
            say(str(one))
    if as_json:
        out_json(shape.dumps(shape.batches(lines)))
    else:
        print_batches(lines)
    return 0
