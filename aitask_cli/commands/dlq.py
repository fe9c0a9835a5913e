"""`aitask dlq`: entries that named no task."""

from __future__ import annotations

import click

from aitask_cli import options


@click.group(name="dlq")
def command() -> None:
    """List, show, retry and remove dead letters: stream entries that named no task."""


@command.command(name="ls")
@options.as_json
@options.demo
def ls(as_json: bool, demo: bool) -> int:
    """List the dead letters, oldest first."""
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_dead_letters
    from aitask_cli.views.terminal import out_json, say

    with open_session(demo=demo, say=say) as session:
        letters = session.streams.dead_letters()
    if as_json:
        out_json(shape.dumps(shape.dead_letters(letters)))
    else:
        print_dead_letters(letters)
    return 0


@command.command(name="show")
@click.argument("letter")
@options.demo
def show(letter: str, demo: bool) -> int:
    """Show one dead letter whole, as JSON."""
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.terminal import out_json, say

    with open_session(demo=demo, say=say) as session:
        found = options.dead_letter(session.streams.dead_letters(), letter)
    out_json(shape.dumps(shape.dead_letters([found])))
    return 0


@command.command(name="retry")
@click.argument("letter")
@options.demo
def retry(letter: str, demo: bool) -> int:
    """Put a dead letter back into its stream, as it was."""
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say

    with open_session(demo=demo, say=say) as session:
        found = options.dead_letter(session.streams.dead_letters(), letter)
        session.streams.retry_dead_letter(found)
    say(f"{letter} is back in {found.stream}")
    return 0


@command.command(name="rm")
@click.argument("letters", nargs=-1)
@click.option("--all", "all_of_them", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Really remove.")
@options.demo
def rm(letters: tuple[str, ...], all_of_them: bool, yes: bool, demo: bool) -> int:
    """Remove dead letters."""
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared.errors import UsageFault

    if not letters and not all_of_them:
        raise UsageFault("no dead letter is named", remedy="name some, or give --all")
    if not yes:
        raise UsageFault("removing can't be undone; nothing was done", remedy="add --yes if you mean it")
    with open_session(demo=demo, say=say) as session:
        found = session.streams.dead_letters()
        chosen = found if all_of_them else [options.dead_letter(found, letter) for letter in letters]
        removed = sum(session.streams.remove_dead_letter(letter.id) for letter in chosen)
    say(f"removed {removed}")
    return 0
