"""`aitask explain`: why a task isn't moving."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="explain")
@click.argument("name", metavar="TASK", default="last")
@options.as_json
@options.demo
def command(name: str, as_json: bool, demo: bool) -> int:
    """Say the one reason why a task isn't moving, and the command that mends it.

    TASK is a task's id, BATCH.N, BATCH/MODEL, or a batch for all of its tasks.
    """
    from aitask_cli.explaining import Explanation, Facts, explain
    from aitask_cli.local.origins import asked_under
    from aitask_cli.session import open_session
    from aitask_cli.views import shape
    from aitask_cli.views.terminal import out, out_json, say
    from shared.errors import SchemaMismatch
    from shared.store import fleet, operate, read, recovery

    found: list[tuple[str, str, Explanation]] = []
    with open_session(demo=demo, say=say) as session:
        try:
            workers, pauses = fleet.workers(session.db), fleet.pauses(session.db)
            cooldowns = fleet.cooldowns(session.db)
        except SchemaMismatch as error:
            found.append((name, "", Explanation("schema", error.message, error.remedy.removeprefix("run: "))))
        else:
            for task_id in operate.find_tasks(session.db, name):
                task = read.task(session.db, task_id)
                family = session.settings.family(task.family)
                under = ""
                if task.origin is not None and session.stack is not None:
                    under = asked_under(session.stack.paths, task.origin)
                turn, row = recovery.turn_holder(session.db), recovery.row_holder(session.db, task_id)
                facts = Facts(
                    task, family, workers, pauses, session.settings.max_failures, cooldowns, turn, row,
                    asked_under=under, ours=task.origin == session.settings.origin,
                )  # fmt: skip
                found.append((task.id, task.name, explain(facts)))
    if as_json:
        body = [{"task": i, "model": m, "kind": e.kind, "why": e.why, "remedy": e.remedy} for i, m, e in found]
        out_json(shape.dumps({"explanations": body}))
    else:
        for _, model, said in found:
            out(f"{model}: {said.why}" + (f"\n  {said.remedy}" if said.remedy else ""))
    return 0
