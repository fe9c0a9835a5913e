"""Loading the settings: the environment, the directory's `.env` and the user's own file, each as far as it is trusted.

A directory's file may name servers and endpoints, which is said once. Where data lie and who may come in it says only
once it is trusted (`aitask trust`); a file that others could have written says nothing before that.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from shared import credentials, env_files, homes, models_file, setting_values, sources
from shared.env_files import EnvFile
from shared.errors import SettingFault
from shared.families import BUILT_IN
from shared.memory import Memory
from shared.models import Models
from shared.servers import ignored_parameters
from shared.settings import Settings, family_variables, setting_fields, setting_names, settings_from
from shared.sources import HONCHO, STEERING, TRUST, Note, Source, Sources

TRUSTED, TOLD = "trusted", "told"


class Untrusted(SettingFault):
    """A file says what only the user may say, and the user has not said that they mean it."""


def load(*, demo: bool = False) -> Settings:
    """Read the environment and the files.

    What the user's own file says to libraries (SSL_CERT_*, *_PROXY, PG*) goes into this process's environment.

    Args:
        demo: whether servers and endpoints will be left behind; then their passwords and keys go nowhere.

    Raises:
        SettingFault: a value is bad, a file can't be read, or a password would go where its source doesn't send it.
        Untrusted: a file needs to be trusted first.
    """
    found = sources.inherited(os.environ)
    if found is None:
        found = gathered(os.environ)
        check_trust(found, Memory())
        _steer(found)
    settings = settings_from(found.values, _models(found, demo=demo))
    about_files = tuple(_about_files(found))
    if demo:
        return dataclasses.replace(settings, sources=found, notes=about_files)
    credentials.check_servers(found, os.environ)
    built_in = {row.name: row for row in BUILT_IN}
    families = tuple(
        credentials.judged(
            family,
            family_variables(built_in.get(family.name, family.name)),
            found,
            built_in[family.name].endpoint if family.name in built_in else None,
        )
        for family in settings.families
    )
    settings = dataclasses.replace(settings, families=families, sources=found)
    return dataclasses.replace(settings, notes=(*about_files, *_about_servers(settings)))


def _models(found: Sources, *, demo: bool) -> Models:
    """The user's own rows about models, in front of the package's; the demo has the package's alone."""
    named = found.values.get("AITASK_MODELS_FILE", "").strip()
    try:
        path = Path(setting_values.path(named)) if named else homes.models_file()
    except ValueError as error:
        raise SettingFault(f"AITASK_MODELS_FILE {error}", remedy="see .env.example") from None
    return Models() if demo or path is None else Models(models_file.read(path, must_exist=bool(named)))


def gathered(environ: Mapping[str, str]) -> Sources:
    """Read the files, and put them together with the environment."""
    user_path = homes.env_file()
    user = env_files.read(user_path) if user_path else None
    directory = directory_file(as_honcho=HONCHO in environ)
    if user and directory and user.real_path == directory.real_path:
        directory = None
    return sources.resolve(environ, directory, user, names=setting_names)


def directory_file(*, as_honcho: bool = False) -> EnvFile | None:
    """The `.env` of the directory that we are in."""
    try:
        here = os.getcwd()
    except OSError:
        return None
    return env_files.read(Path(here) / ".env", as_honcho=as_honcho)


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child with the same settings, each still from its own source."""
    found = settings.sources
    return sources.for_child(os.environ, found, names=setting_names(found.values.get("AITASK_FAMILIES", "")))


def check_trust(found: Sources, memory: Memory) -> None:
    """See to it that a file says no more than it may.

    Raises:
        Untrusted: it does; the message names the lines, and the command that trusts them.
    """
    for file in (found.user, found.directory):
        if file is None or _named_by_environment(file):
            continue
        if file.fault and not memory.knows(TRUSTED, file.real_path, file.digest(file.values)):
            mend = f"{file.remedy}, or " if file.remedy else "read it, then "
            raise Untrusted(file.fault, remedy=f"{mend}run: aitask trust {file.path}")
    file = found.directory
    if file is None or _named_by_environment(file):
        return
    claims = claims_of(file)
    if claims and not memory.knows(TRUSTED, file.real_path, trusted_digest(file)):
        raise Untrusted(
            f"{file.path} says where data lie or who may come in ({', '.join(claims)}) and is not trusted",
            remedy="read it, then run: aitask trust",
        )


def claims_of(file: EnvFile) -> list[str]:
    """The lines that need trust, by name. A blank value and the default claim nothing."""
    claims = [f for f in setting_fields() if f.metadata["claim"]]
    return [f.metadata["env"] for f in claims if not _says_nothing(f, file.values.get(f.metadata["env"], ""))]


def trusted_digest(file: EnvFile) -> str:
    """What is remembered of a file that is trusted: of one that others can write, every line."""
    return file.digest(file.values if file.fault else claims_of(file))


def _says_nothing(field: dataclasses.Field[object], value: str) -> bool:
    try:
        return not value.strip() or field.metadata["parse"](value.strip()) == field.default
    except ValueError:
        return False


def _named_by_environment(file: EnvFile) -> bool:
    """Whether AITASK_TRUST names the file, or its directory; under honcho a file's own line does not."""
    if HONCHO in os.environ and os.environ.get(TRUST) in (file.values.get(TRUST), file.honcho.get(TRUST)):
        return False
    named = {os.path.realpath(place) for place in os.environ.get(TRUST, "").split(os.pathsep) if place}
    return bool({file.real_path, os.path.realpath(file.path.parent)} & named)


def _steer(found: Sources) -> None:
    """Let the user's own file speak to libraries, and under honcho take back what the directory's says to them."""
    if HONCHO in os.environ and found.directory is not None:
        kept = sources.cleaned(os.environ, found)
        for name in [name for name in os.environ if STEERING.fullmatch(name) and name not in kept]:
            del os.environ[name]
    os.environ.update(found.steering)


def _about_servers(settings: Settings) -> Iterator[Note]:
    file = settings.sources.directory
    if file is not None:
        named = list(_servers_named(settings))
        if named:
            said = ", ".join(f"{name} {value}" for name, value in named)
            yield Note(f"servers {file.real_path}", file.digest(name for name, _ in named), f"{file.path} names {said}")
    for name, ignored in ignored_parameters(settings).items():
        listed = ", ".join(ignored)
        yield Note(f"ignored {name}", listed, f"{name} has parameters that mean nothing here and are ignored: {listed}")
    for family in settings.families:
        note = credentials.plain_http_note(family, settings.sources)
        if note is not None:
            yield note


def _about_files(found: Sources) -> Iterator[Note]:
    for read in (found.directory, found.user):
        if read is not None and read.unread:
            lines = ", ".join(map(str, read.unread[:5]))
            text = f"{read.path} has lines that are no settings and are left out: {lines}"
            yield Note(f"lines {read.real_path}", lines, text)
    file, listed = found.directory, ", ".join(sorted(found.not_taken))
    if file is not None and listed:
        text = f"{file.path} sets {listed}, which only the environment and ~/.config/aitask/.env may: not taken"
        yield Note(f"not taken {file.real_path}", listed, text)


def _servers_named(settings: Settings) -> Iterator[tuple[str, str]]:
    """The servers and endpoints that the directory's file decides, but for those that we would use anyway."""
    found = settings.sources
    for f in setting_fields():
        name = f.metadata["env"]
        if f.metadata["server"] and found.source(name) is Source.DIRECTORY and not _says_nothing(f, found.values[name]):
            yield name, credentials.shown(found.values[name]) if f.metadata["secret"] else found.values[name]
    built_in = {row.name: row for row in BUILT_IN}
    for family in settings.families:
        name = family_variables(built_in.get(family.name, family.name))["endpoint"]
        usual = built_in[family.name].endpoint if family.name in built_in else None
        if found.source(name) is Source.DIRECTORY and family.endpoint != usual:
            yield name, credentials.shown(family.endpoint)
