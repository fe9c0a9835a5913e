"""`aitask doctor`: what would stop an ask."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="doctor")
@options.as_json
@options.demo
def command(as_json: bool, demo: bool) -> int:
    """Say what would stop an ask, and how to mend it. Starts and changes nothing; never prints a key.

    Exit 0 when nothing would, 1 when something would stop every ask; warnings narrow or delay one.
    """
    from aitask_cli.checks import Level, checks
    from aitask_cli.session import settings_for
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_rows
    from aitask_cli.views.terminal import out_json, say

    found = list(checks(settings_for(demo=demo, say=say)))
    if as_json:
        body = [{"name": c.name, "level": c.level.value, "found": c.found, "remedy": c.remedy} for c in found]
        out_json(shape.dumps({"checks": body}))
    else:
        rows = [(c.level.value, c.name, f"{c.found}; {c.remedy}" if c.remedy else c.found) for c in found]
        print_rows(("", "what", "found"), rows, wide=2)
    return 1 if any(check.level is Level.FAILURE for check in found) else 0
