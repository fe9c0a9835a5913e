"""Asking: check, submit, see to a worker, attach."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aitask_cli import endings
from aitask_cli.attach import attach
from aitask_cli.exit_codes import Exit
from aitask_cli.session import Session, open_session, settings_for
from aitask_cli.views.terminal import out, out_json, say
from aitask_cli.views.words import short_id
from shared.errors import DatabaseUnavailable, UsageFault
from shared.settings import Settings
from shared.store import conversations
from shared.submission import Plan, Request, Submission, nothing_is_stored, plan, submit


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, and what to do once it is submitted."""

    request: Request
    detach: bool
    wait_s: float | None
    raw: bool
    strict: bool
    as_json: bool
    demo: bool


def ask(wanted: Ask) -> Exit:
    """Submit a request and, unless detached, stay until it is answered."""
    settings = settings_for(demo=wanted.demo)
    if wanted.request.models or wanted.request.conversation is None:
        # All that can be wrong with a request is found before any server is touched.
        _check(wanted.request, settings)
    with open_session(demo=wanted.demo, say=say) as session:
        with nothing_is_stored():
            checked = _check(_with_models(session, wanted.request), settings)
            for name in checked.twice:
                say(f"{name} is named twice and asked once")
            for said in (
                *endings.about_asked(settings, checked.routed, endings.today()),
                *endings.about_options(settings, checked.routed, checked.request.options),
            ):
                say(said)
            session.make_way()
            db = session.db
        submission = submit(db, session.streams, checked)
        _tell(session, checked, submission)
        if wanted.detach:
            return _print_id(session, submission, as_json=wanted.as_json)
        return attach(
            session, submission.batch_id, wait_s=wanted.wait_s, as_json=wanted.as_json, raw=wanted.raw,
            strict=wanted.strict,
        )  # fmt: skip


def _check(request: Request, settings: Settings) -> Plan:
    checked = plan(request, settings)
    if settings.local:
        _refuse_what_nobody_can_call(checked)
    return checked


def _with_models(session: Session, request: Request) -> Request:
    """A conversation that is continued without naming models goes on with those of its last turn."""
    if request.models or request.conversation is None:
        return request
    found = conversations.find(session.db, request.conversation)
    turns = conversations.turns(session.db, found)
    asked = turns[-1].answers if turns else {}
    # A family that the settings no longer have may have left its models to another.
    models = [f"{family}/{model}" if session.settings.family(family) else model for family, model in asked]
    return replace(request, conversation=found, models=models)


def _refuse_what_nobody_can_call(checked: Plan) -> None:
    """On the local default the worker has these very settings: a missing key would be missed for ever."""
    for model, family in checked.routed:
        if family.withheld:
            raise UsageFault(f"{model} can't be asked", remedy=family.withheld)
        if family.missing:
            raise UsageFault(f"{model} can't be asked: the family {family.name} has no key", remedy=family.missing)


def _tell(session: Session, checked: Plan, submission: Submission) -> None:
    if not submission.new:
        say(f"the idempotency key is known: batch {short_id(submission.batch_id)}")
    if not submission.hinted:
        say("Redis is not available; the batch is accepted and goes by way of the database")
    for model in submission.left_out:
        say(f"{model} has not answered an earlier prompt yet; that answer is left out of what it is told")
    families = sorted({family.name for _, family in checked.routed})
    try:
        missing = session.ensure_worker(families)
    except DatabaseUnavailable as error:
        # It is accepted, whatever can be seen of it now.
        say(f"batch {submission.batch_id} is submitted; {error.message}")
        return
    if missing:
        say(f"no worker serves {', '.join(missing)}; start one: aitask worker {' '.join(missing)}")


def _print_id(session: Session, submission: Submission, *, as_json: bool) -> Exit:
    from aitask_cli.views import shape

    if as_json:
        from shared.store import read

        out_json(shape.dumps(shape.batch(read.batch(session.db, submission.batch_id))))
    else:
        out(submission.batch_id)
    return Exit.OK
