"""`aitask ask`: one question to several models."""

from __future__ import annotations

import sys

import click

from aitask_cli import options
from aitask_cli.exit_codes import Exit


@click.command(name="ask")
@click.argument("prompt", required=False)
@click.option("-m", "--model", "models", multiple=True, metavar="MODEL[,MODEL]", help="Whom to ask; may be repeated.")
@click.option("-s", "--system", metavar="TEXT", help="A system prompt.")
@click.option(
    "-o",
    "--option",
    "model_options",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="A model option; one that aitask does not know as JSON.",
)
@click.option("-c", "--continue", "go_on", is_flag=True, help="Continue the last conversation.")
@click.option("--cid", metavar="ID", help="Continue this conversation.")
@click.option("-d", "--detach", is_flag=True, help="Print the batch's id and leave.")
@click.option("--idempotency-key", metavar="KEY", help="The same key and request again give the same batch.")
@options.wait
@options.raw
@options.strict
@options.as_json
@options.demo
def command(
    prompt: str | None,
    models: tuple[str, ...],
    system: str | None,
    model_options: tuple[tuple[str, str], ...],
    go_on: bool,
    cid: str | None,
    detach: bool,
    idempotency_key: str | None,
    wait: float | None,
    raw: bool,
    strict: bool,
    as_json: bool,
    demo: bool,
) -> int:
    """Ask several models the same question.

    PROMPT comes after what is on standard input, if anything is. The batch goes on whatever happens to this command:
    Ctrl-C detaches, `aitask watch` attaches again.

    \b
    aitask ask "How do I read a CSV file in Python?" -m gemini,deepseek
    git diff | aitask ask "Review this." -m qwen2.5-coder:7b -m gemini-2.5-pro
    """
    from aitask_cli.asking import Ask, ask
    from shared.options import parse_options
    from shared.submission import Request

    if prompt is None and sys.stdin is not None and sys.stdin.isatty():
        click.echo(click.get_current_context().get_help())
        return Exit.USAGE
    from aitask_cli.prompt import read_prompt
    from aitask_cli.session import settings_for
    from aitask_cli.views.terminal import say
    from shared.families import split_models

    settings = settings_for(demo=demo)
    request = Request(
        prompt=read_prompt(prompt, most_bytes=settings.max_prompt_bytes, say=say),
        models=split_models(models),
        system=system,
        options=parse_options(model_options),
        idempotency_key=idempotency_key,
        conversation=cid or ("last" if go_on else None),
    )
    return ask(Ask(request, detach=detach, wait_s=wait, raw=raw, strict=strict, as_json=as_json, demo=demo))
