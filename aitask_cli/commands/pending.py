"""`aitask pending`: the pending entries list."""

from __future__ import annotations

import click

from aitask_cli import options

ACTIONS = ("claim", "retry", "fail", "drop")


@click.command(name="pending")
@click.option("--family", help="Only this family.")
@click.option("--consumer", metavar="TEXT", help="Only consumers whose name contains this.")
@click.option(
    "--idle", type=options.DURATION, default="0s", metavar="TIME", help="Only entries idle for so long: 30s, 5m."
)
@click.option("--orphaned", is_flag=True, help="Only entries whose worker has let go of the task.")
@click.option("--content", is_flag=True, help="Print prompts too.")
@click.option("--claim", "action", flag_value="claim", help="Free entries that are not running for any worker.")
@click.option("--retry", "action", flag_value="retry", help="Try their tasks at once, failed ones anew.")
@click.option("--fail", "action", flag_value="fail", help="End their tasks as failed.")
@click.option("--drop", "action", flag_value="drop", help="Put the entries away; tasks stay as they are.")
@click.option("--reason", default="failed by an operator", show_default=True, help="What --fail notes.")
@click.option("--yes", is_flag=True, help="Really do it.")
@options.as_json
@options.demo
def command(
    family: str | None,
    consumer: str | None,
    idle: float,
    orphaned: bool,
    content: bool,
    action: str | None,
    reason: str,
    yes: bool,
    as_json: bool,
    demo: bool,
) -> int:
    """List entries that a worker has read and not finished, joined with their tasks.

    Without prompts, unless --content asks for them. An action is done to all entries listed.
    """
    from aitask_cli.pending import Filter, act, pending
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_pending
    from aitask_cli.views.terminal import out_json, say
    from shared.errors import UsageFault

    if action and not yes:
        raise UsageFault(f"--{action} changes every entry listed; nothing was done", remedy="add --yes if you mean it")
    with open_session(demo=demo, say=say) as session:
        views = pending(session, Filter(family, consumer, idle, orphaned), content=content)
        done = act(session, views, action, reason=reason) if action else 0
    if as_json:
        out_json(shape.dumps(shape.pending(views)))
    else:
        print_pending(views, content=content)
    if action:
        say(f"{action}: {done} of {len(views)} entries")
    return 0
