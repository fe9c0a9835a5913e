"""Root's clusters: who may connect to them, and which data directory each belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Root alone connects: the account that runs the server is not a superuser over its prompts by that.
_WHO = "local all all peer map=aitask\n"
_MAP = "aitask root postgres\n"
_NOTE = ".owner"


def rules(base: Path) -> tuple[str, ...]:
    """The server's options that make it read the rules in root's own directory, not those in its data."""
    return ("-c", f"hba_file={base / 'pg_hba.conf'}", "-c", f"ident_file={base / 'pg_ident.conf'}")


def write_rules(base: Path) -> None:
    """Write the rules where only root can change them."""
    for name, text in (("pg_hba.conf", _WHO), ("pg_ident.conf", _MAP)):
        _write(base / name, text)


def note_owner(home: Path, data_directory: Path) -> None:
    """Note beside a cluster's home which data directory it belongs to."""
    _write(home.with_name(home.name + _NOTE), f"{data_directory}\n")


def abandoned(base: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (home, data directory) of clusters whose data directory is gone."""
    try:
        notes = sorted(base.glob(f"*{_NOTE}"))
    except OSError:
        return
    for note in notes:
        home, owner = note.with_name(note.name.removesuffix(_NOTE)), Path(note.read_text().strip())
        if home.is_dir() and not (owner / "state").is_dir():
            yield home, owner


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)
