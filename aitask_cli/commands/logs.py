"""`aitask logs`: the system log."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="logs")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many.")
@click.option("--traces", is_flag=True, help="Print stack traces too.")
@options.as_json
@options.demo
def command(number: int, traces: bool, as_json: bool, demo: bool) -> int:
    """Print the errors that workers wrote to the database; they do when ENABLE_DB_LOG is on."""
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_logs
    from aitask_cli.views.terminal import out_json, say
    from shared.store import syslog

    with open_session(demo=demo, say=say) as session:
        lines = syslog.recent(session.db, number)
        if not lines and not session.settings.enable_db_log:
            say("the system log is off; ENABLE_DB_LOG=true switches it on")
    if as_json:
        out_json(shape.dumps(shape.logs(lines)))
    else:
        print_logs(lines, traces=traces)
    return 0
