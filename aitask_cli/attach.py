"""Attaching to a batch: watch it, print its answers, and say how to come back when interrupted."""

from __future__ import annotations

from aitask_cli.exit_codes import Exit, for_batch
from aitask_cli.main import Terminated
from aitask_cli.session import Session
from aitask_cli.views import shape
from aitask_cli.views.answers import print_answers
from aitask_cli.views.terminal import out_json, say
from aitask_cli.views.watch import draw, step_s
from aitask_cli.views.words import short_id
from aitask_cli.watching import WaitExpired, follow


def attach(
    session: Session,
    batch_id: str,
    *,
    wait_s: float | None,
    as_json: bool,
    raw: bool,
    reasoning: bool = False,
    strict: bool = False,
) -> Exit:
    """Watch a batch to its end and print its answers. Ctrl-C, SIGTERM and the wait's end only detach."""
    from shared import servers

    max_failures = session.settings.max_failures
    live = servers.live_reader(session.settings)
    back = f"aitask watch {short_id(batch_id)}{' --demo' if session.settings.demo else ''}"
    try:
        snapshots = follow(
            session.db, live, batch_id, wait_s=wait_s, step_s=step_s(), notice=say, upkeep=session.keep_worked
        )
        batch = draw(snapshots, max_failures=max_failures)
    except WaitExpired:
        say(f"still running; the batch goes on. Watch it again: {back}")
        return Exit.WAIT_EXPIRED
    except (KeyboardInterrupt, Terminated) as interruption:
        say(f"detached; the batch goes on. Watch it again: {back}")
        return Exit.TERMINATED if isinstance(interruption, Terminated) else Exit.INTERRUPTED
    finally:
        live.close()
    if batch is None:
        return Exit.ERROR
    if as_json:
        out_json(shape.dumps(shape.batch(batch)))
    else:
        print_answers(batch, raw=raw, reasoning=reasoning, max_failures=max_failures)
    return for_batch(batch, strict=strict)
