"""`aitask queue`: what waits, per family; pause and resume."""

from __future__ import annotations

import click

from aitask_cli import options

MOST_S = 30 * 86_400


@click.group(name="queue", invoke_without_command=True)
@options.as_json
@options.demo
@click.pass_context
def command(ctx: click.Context, as_json: bool, demo: bool) -> int:
    """Show what waits and runs, per family; `pause` and `resume` hold one, in the database, over restarts."""
    if ctx.invoked_subcommand is not None:
        return 0
    from aitask_cli.queues import queues
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_queues
    from aitask_cli.views.terminal import out_json, say

    with open_session(demo=demo, say=say) as session:
        found = queues(session)
    if as_json:
        out_json(shape.dumps(shape.queues(found)))
    else:
        print_queues(found)
    return 0


@command.command(name="pause")
@click.argument("family")
@click.option("--reason", default="paused by an operator", show_default=True, help="Why; shown wherever it is asked.")
@click.option("--for", "for_s", type=options.DURATION, metavar="TIME", help="For how long: 30s, 10m, 2h.")
@options.demo
def pause(family: str, reason: str, for_s: float | None, demo: bool) -> int:
    """Hold a family: no worker begins a call for it. Running calls go on, deadlines wait."""
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.errors import UsageFault
    from shared.store import fleet

    if for_s is not None and for_s > MOST_S:
        raise UsageFault("a pause ends within 30 days", remedy="give at most 30d, or leave --for out")
    with open_session(demo=demo, say=say) as session:
        options.known_family(session.settings, family)
        fleet.pause(session.db, family, kind="operator", reason=reason, for_s=for_s)
    say(f"{family} is paused; resume it with: aitask queue resume {family}")
    return 0


@command.command(name="resume")
@click.argument("family")
@options.demo
def resume(family: str, demo: bool) -> int:
    """Let a family go on."""
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.store import fleet

    with open_session(demo=demo, say=say) as session:
        options.known_family(session.settings, family)
        resumed = fleet.resume(session.db, family)
    say(f"{family} goes on" if resumed else f"{family} was not paused")
    return 0
