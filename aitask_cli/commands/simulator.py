"""`aitask simulator`: an upstream that stands in for models."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="simulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8901, show_default=True, help="0: any free one.")
@click.option("--latency", type=click.FloatRange(min=0), default=0.4, show_default=True, help="Seconds to first token.")
@click.option(
    "--tps", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Tokens per second; 0: at once."
)
@click.option("--tokens", type=click.IntRange(1, 1_000_000), default=60, show_default=True, help="Tokens per answer.")
@click.option("--fault", metavar="NAME", help="What goes wrong with every request; `list` lists them.")
@click.option("--retry-after", type=click.FloatRange(min=0), default=1.0, help="What a 429 asks for, in seconds.")
@click.option("--ready-file", type=click.Path(path_type=Path), hidden=True)
def command(
    host: str,
    port: int,
    latency: float,
    tps: float,
    tokens: int,
    fault: str | None,
    retry_after: float,
    ready_file: Path | None,
) -> int:
    """Run an OpenAI-compatible upstream whose answers say that they are simulated.

    A model's name may say how it is answered: `qwen+latency=2+tps=20`, `gemini+429`, `deepseek+500x2` (only the first
    two calls).
    """
    from aitask_cli.simulator.script import FAULTS, Script, checked_fault
    from aitask_cli.simulator.server import serve
    from aitask_cli.views.terminal import out, say
    from shared.errors import UsageFault

    if fault == "list":
        for name, meaning in FAULTS.items():
            out(f"{name}\t{meaning}")
        return 0
    script = Script(
        latency_s=latency,
        tokens_per_s=tps,
        tokens=tokens,
        fault=checked_fault(fault),
        retry_after_s=retry_after,
    )
    try:
        serve(
            script,
            host=host,
            port=port,
            ready=lambda bound: say(f"simulated models answer at http://{host}:{bound}/v1"),
            ready_file=ready_file,
        )
    except OSError as error:
        raise UsageFault(f"can't listen on {host}:{port}: {error.strerror}", remedy="choose another --port") from None
    return 0
