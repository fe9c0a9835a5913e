"""`aitask trust`: let a directory's `.env` say where data lie and who may come in."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="trust")
@click.argument("path", type=click.Path(path_type=Path), default=Path(".env"))
@click.option("--forget", is_flag=True, help="Trust it no more.")
def command(path: Path, forget: bool) -> int:
    """Let a `.env` say what only you may say: where data lie, and who may come in by the gateway.

    PATH is the file, or its directory; the one here otherwise. What is remembered is a hash of those lines: when one of
    them changes, you are asked again. A file that others can write is trusted with every line of it.
    """
    from aitask_cli.views.terminal import say
    from shared import env_files
    from shared.errors import NotFound, Unavailable
    from shared.loading import TRUSTED, claims_of, trusted_digest
    from shared.memory import Memory

    place = Path(path).absolute()
    file = env_files.read(place / ".env" if place.is_dir() else place)
    if file is None:
        raise NotFound(f"there is no {place}", remedy="name the file, or the directory it is in")
    memory = Memory()
    if forget:
        known = memory.forget(TRUSTED, file.real_path)
        say(f"{file.path} is trusted no more" if known else f"{file.path} was not trusted")
        return 0
    names = sorted(file.values) if file.fault else claims_of(file)
    if not names:
        say(f"{file.path} needs no trust: it says nothing of where data lie or who may come in")
        return 0
    if not memory.learn(TRUSTED, file.real_path, trusted_digest(file)):
        raise Unavailable("there is no home directory to remember it in", remedy=f"set AITASK_TRUST={file.path}")
    say(f"{file.path} is trusted with {', '.join(names)}")
    return 0
