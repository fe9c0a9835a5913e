"""Where each value comes from: the environment, the directory's `.env`, the user's own file, or nowhere. Pure.

Order: environment, directory, user, default. The environment and the user's own file are the user's word; what lies in
a directory is whoever's who filled it, so only settings are taken from there, and some of them only once trusted.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from shared.env_files import EnvFile

# Names that steer libraries and programs rather than aitask. Taken from the environment and the user's own file only.
STEERING = re.compile(r"SSL_CERT_(FILE|DIR)|(HTTPS?|ALL|FTP|NO)_PROXY|PG[A-Z]+|PYTHON[A-Z0-9_]+", re.IGNORECASE)
# How a child is told what its parent had read: it reads no file again.
INHERITED = "AITASK_INHERITED"
# Containers name their file here instead of `aitask trust`.
TRUST = "AITASK_TRUST"
# Set in whatever honcho starts.
HONCHO = "HONCHO_PROCESS_NAME"


class Source(Enum):
    """Where a value comes from, as people call it."""

    ENVIRONMENT = "the environment"
    DIRECTORY = "the directory's .env"
    USER = "your own file"
    DEFAULT = "the default"

    @property
    def rank(self) -> int:
        """How far it is trusted: what the program brings along, the user's word, what lies in a directory."""
        return {Source.DEFAULT: 2, Source.DIRECTORY: 0}.get(self, 1)


@dataclass(frozen=True, slots=True)
class Note:
    """Something to be said once: the first time for `about`, and again when `digest` has changed."""

    about: str
    digest: str
    text: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The values of all settings that are given, each with its source.

    Attributes:
        steering: what the user's own file says to libraries, where the environment doesn't.
        not_taken: names in the directory's file that only the environment or the user's own file may set.
        directory_path: of the file that was read, here or by the parent; empty when there was none.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    of: Mapping[str, Source] = field(default_factory=dict)
    directory: EnvFile | None = field(default=None, repr=False)
    user: EnvFile | None = field(default=None, repr=False)
    steering: Mapping[str, str] = field(default_factory=dict, repr=False)
    not_taken: tuple[str, ...] = ()
    directory_path: str = ""
    user_path: str = ""

    def source(self, name: str) -> Source:
        return self.of.get(name, Source.DEFAULT)

    def line(self, name: str) -> str:
        """A setting and where it stands, for a message."""
        paths = {Source.DIRECTORY: self.directory_path, Source.USER: self.user_path}
        source = self.source(name)
        return f"{name} of {paths.get(source) or source.value}"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, by path."""
        return tuple(path for path in (self.directory_path, self.user_path) if path)


def weakest(*sources: Source) -> Source:
    """Return the least trusted among these."""
    return min(sources, key=lambda source: source.rank, default=Source.DEFAULT)


def resolve(
    environ: Mapping[str, str],
    directory: EnvFile | None,
    user: EnvFile | None,
    *,
    names: Callable[[str], set[str]],
) -> Sources:
    """Put environment and files together.

    Args:
        names: all names that are settings, given the value of AITASK_FAMILIES.
    """
    environ = _without_the_files(environ, directory)
    layers: list[tuple[Source, Mapping[str, str]]] = [(Source.ENVIRONMENT, environ)]
    layers += [(Source.DIRECTORY, directory.values)] if directory else []
    layers += [(Source.USER, user.values)] if user else []
    families, _ = _found("AITASK_FAMILIES", layers)
    values, of = {}, {}
    for name in names(families):
        value, source = _found(name, layers)
        if value.strip():
            values[name], of[name] = value, source
    own = user.values if user else {}
    theirs = directory.values if directory else {}
    return Sources(
        values,
        of,
        directory,
        user,
        {name: value for name, value in own.items() if STEERING.fullmatch(name) and name not in environ},
        tuple(name for name in theirs if STEERING.fullmatch(name) or name == TRUST),
        str(directory.path) if directory else "",
        str(user.path) if user else "",
    )


def _found(name: str, layers: list[tuple[Source, Mapping[str, str]]]) -> tuple[str, Source]:
    for source, values in layers:
        value = values.get(name)
        # A blank line of a file says nothing; a blank of the environment hides the files' value.
        if value is not None and (value.strip() or source is Source.ENVIRONMENT):
            return value, source
    return "", Source.DEFAULT


def _without_the_files(environ: Mapping[str, str], directory: EnvFile | None) -> dict[str, str]:
    """Under honcho, which puts a directory's `.env` into the environment, a value equal to the file's is the file's."""
    if HONCHO not in environ or directory is None:
        return dict(environ)
    told = (directory.values, directory.honcho)
    return {name: value for name, value in environ.items() if all(said.get(name) != value for said in told)}


def cleaned(environ: Mapping[str, str], sources: Sources) -> dict[str, str]:
    """The environment as a child may have it: nothing of a directory's file, no directory of others to import from."""
    found = _without_the_files(environ, sources.directory) | dict(sources.steering)
    for name in (INHERITED, TRUST, HONCHO):
        found.pop(name, None)
    path = [place for place in found.pop("PYTHONPATH", "").split(os.pathsep) if _own_directory(place)]
    return found | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


def for_child(environ: Mapping[str, str], sources: Sources, *, names: set[str]) -> dict[str, str]:
    """The environment of a child with the same settings from the same sources: it reads no file."""
    kept = {name: value for name, value in cleaned(environ, sources).items() if name not in names}
    of = {name: source.name for name, source in sources.of.items()}
    told = {"of": of, "directory": sources.directory_path, "user": sources.user_path}
    return {**kept, **sources.values, INHERITED: json.dumps(told)}


def inherited(environ: Mapping[str, str]) -> Sources | None:
    """The sources that a parent has handed down, or None."""
    # What honcho starts has its environment from a file.
    if INHERITED not in environ or HONCHO in environ:
        return None
    try:
        told = json.loads(environ[INHERITED])
        of = {name: Source[source] for name, source in told["of"].items()}
        paths = str(told["directory"]), str(told["user"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    values = {name: environ[name] for name in of if name in environ}
    return Sources(values, of, directory_path=paths[0], user_path=paths[1])


def _own_directory(place: str) -> bool:
    """Tell whether only the user or root decides what lies in a directory. A relative one is another one elsewhere."""
    if not os.path.isabs(place):
        return False
    try:
        found = os.stat(place)
    except OSError:
        return False
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & stat.S_IWOTH
