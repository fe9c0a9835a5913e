"""`aitask bulk`: ask many prompts of the same models."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import click

from aitask_cli import options

if TYPE_CHECKING:
    from shared.settings import Settings
    from shared.submission import Plan


@click.command(name="bulk")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="strict"))
@click.option("-m", "--models", required=True, metavar="MODEL[,MODEL]", help="Models to ask every prompt of.")
@click.option("-s", "--system", help="System prompt for all of them.")
@click.option(
    "-o", "--option", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="A model option, as of ask."
)
@click.option("--idempotency-key", metavar="KEY", help="The same key continues an interrupted submission.")
@options.demo
def command(
    file: TextIO,
    models: str,
    system: str | None,
    pairs: tuple[tuple[str, str], ...],
    idempotency_key: str | None,
    demo: bool,
) -> int:
    """Submit a prompt for each line of FILE (`-`: standard input), and print a batch id for each.

    A line is a prompt, or a JSON object with `prompt` and perhaps `system`; empty lines are left out. Every line is
    checked before the first is submitted. `aitask ls` and `aitask queue` show how they get on.
    """
    from aitask_cli import endings
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import out, say
    from shared.bulk import submit_all
    from shared.options import parse_options

    with open_session(demo=demo, say=say) as session:
        template = _Template(models.split(","), system, parse_options(pairs), idempotency_key)
        plans = _plans(file, template, session.settings)
        for plan in plans[:1]:
            for said in endings.about_request(session.settings, plan.routed, plan.request.options):
                say(said)
        session.make_way()
        new = tasks = 0
        hinted = True
        for some in submit_all(session.db, session.streams, plans):
            out("\n".join(some.batch_ids) + "\n")
            new, tasks, hinted = new + some.new, tasks + some.tasks, hinted and some.hinted
        missing = session.ensure_worker({family.name for plan in plans[:1] for _, family in plan.routed})
    there = f", {len(plans) - new:,} were there already" if new < len(plans) else ""
    say(f"{new:,} batches with {tasks:,} tasks are submitted{there}")
    if not hinted:
        say("Redis is not available; the tasks go by way of the database")
    if missing:
        say(f"no worker serves {', '.join(missing)}; start one: aitask worker {' '.join(missing)}")
    return 0


class _Template:
    """What all lines have in common."""

    def __init__(self, models: list[str], system: str | None, given: dict[str, object], key: str | None) -> None:
        self.models = [name.strip() for name in models if name.strip()]
        self.system = system
        self.options = given
        self.key = key


def _plans(file: TextIO, template: _Template, settings: Settings) -> list[Plan]:
    """Check every line.

    Raises:
        UsageFault: one is bad; it is named by its number.
    """
    from shared.errors import UsageFault
    from shared.submission import Request, plan

    plans = []
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            prompt, system = _line(line.rstrip("\r\n"))
            key = f"{template.key}:{number}" if template.key else None
            plans.append(
                plan(
                    Request(
                        prompt=prompt, models=template.models, system=system if system is not None else template.system,
                        options=template.options, idempotency_key=key,
                    ),
                    settings,
                )
            )  # fmt: skip
    except UnicodeDecodeError:
        raise UsageFault(f"line {number + 1} is not UTF-8", remedy="save the file as UTF-8 text") from None
    except UsageFault as error:
        raise UsageFault(f"line {number}: {error.message}", remedy=error.remedy) from None
    if not plans:
        raise UsageFault("there is no prompt in the file", remedy="write one a line")
    return plans


def _line(line: str) -> tuple[str, str | None]:
    import json

    from shared.errors import UsageFault

    if not line.lstrip().startswith("{"):
        return line, None
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageFault("it starts like JSON and is none", remedy="write an object on one line") from None
    prompt, system = said.get("prompt"), said.get("system")
    if not isinstance(prompt, str) or not isinstance(system, str | None):
        raise UsageFault("the object has no text `prompt`, or a `system` that is no text", remedy='{"prompt": "…"}')
    return prompt, system
