"""`aitask gateway`: serve HTTP."""

from __future__ import annotations

import os
from importlib.util import find_spec

import click

from aitask_cli import options


@click.command(name="gateway")
@click.option("--host", help="Address to listen on; AITASK_GATEWAY_HOST otherwise, 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one; AITASK_GATEWAY_PORT otherwise, 8000.")
@click.option("--restart", is_flag=True, help="Start the gateway again when it ends, after 1 s to 60 s.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How logs are written.")
@click.option("--lifeline", type=int, hidden=True, help="The descriptor that ends with who supervises this process.")
@options.demo
def command(
    host: str | None, port: int | None, restart: bool, log_format: str, lifeline: int | None, demo: bool
) -> int:
    """Serve the same submission and the same database over HTTP: the REST API, and OpenAI's chat completions.

    Any address but this machine's own needs AITASK_GATEWAY_TOKENS. The document is at /openapi.json.
    """
    from aitask_cli.main import Terminated
    from aitask_cli.processes import end_on_hangup, hold_lifeline, stay_idle
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared import logs
    from shared.errors import UsageFault

    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        if "HONCHO_PROCESS_NAME" not in os.environ:
            raise UsageFault("the gateway is not installed", remedy="pip install 'aitask[gateway]'")
        hold_lifeline(lifeline)
        stay_idle("the gateway is not installed and stays off; to have it: pip install 'aitask[gateway]'", say)
        return 0
    if restart:
        return _supervised(host, port, log_format, demo=demo)
    hold_lifeline(lifeline)
    end_on_hangup()
    from aitask_cli.gateway.serve import serve

    with open_session(demo=demo, say=say, keeper=True) as session:
        logs.configure(session.settings.log_level, as_json=log_format == "json")
        try:
            settings = session.settings
            serve(session, host or settings.gateway_host, port if port is not None else settings.gateway_port)
        except (KeyboardInterrupt, Terminated):
            # Asked to stop, and stopped in good order.
            return 0
    return 0


def _supervised(host: str | None, port: int | None, log_format: str, *, demo: bool) -> int:
    """Run it in a process of its own, which is started again."""
    from aitask_cli.down import DownReport
    from aitask_cli.processes import Supervisor
    from aitask_cli.session import open_session
    from aitask_cli.views.terminal import say
    from shared import logs
    from shared.loading import child_environment

    with open_session(demo=demo, say=say, keeper=True) as session:
        logs.configure(session.settings.log_level, as_json=log_format == "json")
        said = ["gateway", *(["--host", host] if host else []), *(["--demo"] if demo else [])]
        said += ["--port", str(port)] if port is not None else []
        report = DownReport(session.settings, " ".join(["aitask", *said]), [])
        env = child_environment(session.settings)
        code = Supervisor([*said, "--log-format", log_format], 1, env=env, stays_down=report).run()
        report.withdraw()
    return code
