"""`aitask down`: end the background parts and the local servers."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="down")
@options.demo
def command(demo: bool) -> int:
    """Stop the background worker and the local servers. Data is kept, unfinished tasks go on with the next start."""
    from aitask_cli.local import background
    from aitask_cli.local.stack import LocalStack
    from aitask_cli.session import settings_for
    from aitask_cli.views.terminal import say

    settings = settings_for(demo=demo)
    if not settings.local:
        say("the servers are configured ones; there is nothing of ours to stop")
        return 0
    if not settings.data_path.exists():
        say("nothing was running")
        return 0
    stack = LocalStack(settings)
    # The worker, as the last to leave, stops the servers itself; they are named all the same.
    stopped = [server.name for server in stack.servers if server.alive()]
    if background.stop(stack.paths):
        stopped.insert(0, "the background worker")
    stack.stop()
    say(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0
