"""Options that several commands share."""

from __future__ import annotations

import click

demo = click.option(
    "--demo", is_flag=True, help="Use simulated models, on servers and data of their own; settings are ignored."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON (one documented shape) on standard output.")
raw = click.option("-r", "--raw", is_flag=True, help="Print answers as they are, not rendered as Markdown.")
wait = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait at most so long; then exit 124, the batch goes on.",
)
reasoning = click.option("--reasoning", is_flag=True, help="Print the models' reasoning too.")
