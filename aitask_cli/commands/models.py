"""`aitask models`: families, endpoints and what they serve."""

from __future__ import annotations

import click

from aitask_cli import options


@click.command(name="models")
@options.as_json
@options.demo
def command(as_json: bool, demo: bool) -> int:
    """List families with their endpoints, whether those can be reached, and the models they have."""
    from concurrent.futures import ThreadPoolExecutor

    from aitask_cli import endings
    from aitask_cli.probe import probe
    from aitask_cli.session import open_session, settings_for
    from aitask_cli.views import shape
    from aitask_cli.views.listing import print_families
    from aitask_cli.views.terminal import out_json, say

    settings = settings_for(demo=demo, say=say)
    if demo:
        with open_session(demo=True, say=say) as session:
            settings = session.settings
    with ThreadPoolExecutor(8) as pool:
        probes = list(pool.map(probe, settings.families))
    found = list(zip(settings.families, probes, strict=True))
    day = endings.today()
    ending = {family.name: endings.about_default(settings, family, day) for family in settings.families}
    told = {name: "; ".join(said) for name, said in ending.items() if said is not None}
    if as_json:
        out_json(shape.dumps(shape.families(found, told)))
    else:
        print_families(found, told)
    return 0
