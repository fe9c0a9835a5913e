"""`aitask conv`: conversations."""

from __future__ import annotations

import click

from aitask_cli import options


@click.group(name="conv")
def command() -> None:
    """List and show conversations. `aitask ask -c` continues the last, `--cid ID` a given one."""


@command.command(name="ls")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@options.as_json
@options.demo
def ls(number: int, as_json: bool, demo: bool) -> int:
    """List conversations, last continued first."""
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_conversations
    from aitask_cli.views.terminal import out_json, say
    from shared.store import conversations

    with open_session(demo=demo, say=say) as session:
        lines = conversations.recent(session.db, number)
    if as_json:
        out_json(shape.dumps(shape.conversations(lines)))
    else:
        print_conversations(lines)
    return 0


@command.command(name="show")
@click.argument("conversation", default="last")
@options.raw
@options.as_json
@options.demo
def show(conversation: str, raw: bool, as_json: bool, demo: bool) -> int:
    """Show a conversation: every prompt with each model's answer.

    CONVERSATION is an id, the start of one, or `last`.
    """
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.answers import print_conversation
    from aitask_cli.views.terminal import out_json, say
    from shared.store import conversations, read

    with open_session(demo=demo, say=say) as session:
        found = conversations.find(session.db, conversation)
        batches = [read.batch(session.db, batch_id) for batch_id in conversations.batches(session.db, found)]
    if as_json:
        out_json(shape.dumps({"id": found, "batches": [shape.batch(batch)["batch"] for batch in batches]}))
    else:
        print_conversation(batches, raw=raw, max_failures=session.settings.max_failures)
    return 0
