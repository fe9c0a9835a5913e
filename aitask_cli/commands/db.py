"""`aitask db`: set the database up."""

from __future__ import annotations

import click

from aitask_cli import options


@click.group(name="db")
def command() -> None:
    """Set the database up. `init` and `upgrade` never destroy anything."""


@command.command(name="init")
@options.demo
def init(demo: bool) -> int:
    """Create the tables, or bring them to this version."""
    return _upgrade(demo)


@command.command(name="upgrade")
@options.demo
def upgrade(demo: bool) -> int:
    """Bring the tables to this version."""
    return _upgrade(demo)


def _upgrade(demo: bool) -> int:
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.store import schema

    with open_session(demo=demo, say=say) as session:
        before, after = schema.upgrade(session.unchecked_db)
    if before == after:
        say(f"the database is at revision {after} already")
    elif before is None:
        say(f"the tables are made, at revision {after}")
    else:
        say(f"the database went from revision {before} to {after}")
    return 0


@command.command(name="current")
@options.demo
def current(demo: bool) -> int:
    """Print the database's revision; exit 1 when it is not this version's."""
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import out, say
    from shared.migrations import HEAD
    from shared.store import schema

    with open_session(demo=demo, say=say) as session:
        revision = schema.current(session.unchecked_db)
    out(revision or "none")
    if revision != HEAD:
        say(f"this aitask needs revision {HEAD}; run: aitask db upgrade")
    return 0 if revision == HEAD else 1


@command.command(name="reset")
@click.option("--yes", is_flag=True, help="Really drop every batch and answer.")
@options.demo
def reset(yes: bool, demo: bool) -> int:
    """Drop every table, with all batches and answers, and make them anew."""
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.errors import UsageFault
    from shared.store import schema

    if not yes:
        raise UsageFault("reset drops every batch and answer; nothing was done", remedy="add --yes if you mean it")
    with open_session(demo=demo, say=say) as session:
        schema.reset(session.unchecked_db)
    say("all batches and answers are dropped, the tables are made anew")
    return 0
