"""`aitask ps`: workers."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="ps")
@click.option("-a", "--all", "dead_too", is_flag=True, help="Also workers that died within the last day.")
@options.as_json
@options.demo
def command(dead_too: bool, as_json: bool, demo: bool) -> int:
    """List workers with host, families, calls under way of slots, heartbeat, and what holds a family."""
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_workers
    from aitask_cli.views.terminal import out_json, say
    from shared.store import fleet

    with open_session(demo=demo, say=say) as session:
        workers = fleet.workers(session.db, dead_too=dead_too)
        pauses, cooldowns = fleet.pauses(session.db), fleet.cooldowns(session.db)
    if as_json:
        out_json(shape.dumps(shape.workers(workers, pauses, cooldowns)))
    else:
        print_workers(workers, pauses, cooldowns)
    return 0
