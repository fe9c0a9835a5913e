"""A key or a password goes only where its source says, and over plain http to nobody far away."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from shared import credentials, sources
from shared.credentials import Reach, reach
from shared.env_files import EnvFile
from shared.errors import SettingFault
from shared.families import Family
from shared.settings import family_variables, setting_names, settings_from
from shared.sources import Sources

ENV, DIR, USER = "environ", "directory", "user"
BUILT_IN = "https://generativelanguage.googleapis.com/v1beta/openai"


def resolved(**lines: tuple[str, str]) -> Sources:
    """Sources of lines given as (where, value)."""
    said: dict[str, dict[str, str]] = {ENV: {}, DIR: {}, USER: {}}
    for name, (where, value) in lines.items():
        said[where][name] = value
    directory, user = EnvFile(Path("/d/.env"), said[DIR]), EnvFile(Path("/u/.env"), said[USER])
    return sources.resolve(said[ENV], directory, user, names=setting_names)


def gemini(found: Sources) -> Family:
    family = settings_from(found.values).family("gemini")
    assert family is not None
    return credentials.judged(family, family_variables("gemini"), found, BUILT_IN)


@pytest.mark.parametrize(
    ("key", "endpoint", "sent"),
    [
        (ENV, DIR, False),
        (USER, DIR, False),
        (ENV, ENV, True),
        (ENV, USER, True),
        (USER, ENV, True),
        (DIR, DIR, True),
        (DIR, ENV, True),
        (DIR, USER, True),
    ],
)
def test_a_key_goes_to_an_endpoint_of_the_same_or_a_more_trusted_source(key: str, endpoint: str, sent: bool) -> None:
    found = gemini(resolved(GEMINI_API_KEY=(key, "k"), GEMINI_SERVICE_URL=(endpoint, "https://h.example")))
    assert (found.api_key == "k") is sent
    if not sent:
        assert "GEMINI_API_KEY of" in str(found.missing)
        assert "GEMINI_SERVICE_URL of /d/.env" in str(found.missing)


def test_a_key_goes_to_the_built_in_endpoint_whoever_names_it() -> None:
    assert gemini(resolved(GEMINI_API_KEY=(ENV, "k"))).api_key == "k"
    assert gemini(resolved(GEMINI_API_KEY=(ENV, "k"), GEMINI_SERVICE_URL=(DIR, BUILT_IN + "/"))).api_key == "k"


@pytest.mark.parametrize(
    ("host", "far"),
    [
        ("localhost", Reach.MACHINE),
        ("a.localhost", Reach.MACHINE),
        ("127.9.9.9", Reach.MACHINE),
        ("::1", Reach.MACHINE),
        ("2130706433", Reach.MACHINE),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.31.0.1", Reach.PRIVATE),
        ("fe80::1%eth0", Reach.PRIVATE),
        ("ollama", Reach.PRIVATE),
        ("host.docker.internal", Reach.PRIVATE),
        ("printer.local.", Reach.PRIVATE),
        ("api.example.com", Reach.PUBLIC),
        ("8.8.8.8", Reach.PUBLIC),
        ("203.0.113.5", Reach.PUBLIC),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("134744072", Reach.PUBLIC),
        ("0x08080808", Reach.PUBLIC),
        ("8.2056", Reach.PUBLIC),
        ("172.32.0.1", Reach.PUBLIC),
        ("localhost.example.com", Reach.PUBLIC),
    ],
)
def test_how_far_a_host_is_whatever_way_it_is_written(host: str, far: Reach) -> None:
    assert reach(host) is far


@pytest.mark.parametrize(
    ("url", "allow", "sent", "warned"),
    [
        ("http://api.example.com", None, False, False),
        ("http://api.example.com:8080/v1", (ENV, "api.example.com"), True, False),
        ("http://api.example.com", (DIR, "api.example.com"), False, False),
        ("http://me:secret@api.example.com", None, False, False),
        ("https://api.example.com", None, True, False),
        ("http://127.0.0.1:1", None, True, False),
        ("http://gpu-box:8000", None, True, True),
        ("http://192.168.1.5", None, True, True),
        ("http://192.168.1.5", (ENV, "192.168.1.5"), True, False),
    ],
)
def test_a_key_over_plain_http_is_refused_to_public_hosts_and_warned_of_to_private_ones(
    url: str, allow: tuple[str, str] | None, sent: bool, warned: bool
) -> None:
    more = {"AITASK_PLAIN_HTTP": allow} if allow else {}
    found = resolved(GEMINI_API_KEY=(ENV, "k"), GEMINI_SERVICE_URL=(ENV, url), **more)
    family = gemini(found)
    assert (family.api_key == "k") is sent
    assert (credentials.plain_http_note(family, found) is not None) is warned
    assert "secret" not in str(family.missing)


def test_a_password_in_an_endpoint_is_a_key_too_and_leaves_no_trace() -> None:
    family = gemini(resolved(GEMINI_SERVICE_URL=(ENV, "http://me:secret@api.example.com")))
    assert family.withheld
    assert "secret" not in repr(dataclasses.asdict(family))


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ({"POSTGRES_PASSWORD": (ENV, "p"), "DB_HOST": (DIR, "evil")}, True),
        ({"POSTGRES_PASSWORD": (USER, "p"), "DB_HOST": (DIR, "evil")}, True),
        ({"POSTGRES_PASSWORD": (ENV, "p"), "DB_HOST": (ENV, "db"), "DB_PORT": (DIR, "6000")}, True),
        ({"POSTGRES_PASSWORD": (ENV, "p"), "DB_HOST": (ENV, "db"), "DB_PORT": (DIR, "5432")}, False),
        ({"POSTGRES_PASSWORD": (ENV, "p"), "DB_HOST": (DIR, "localhost")}, False),
        ({"POSTGRES_PASSWORD": (ENV, "p"), "DB_HOST": (DIR, "localhost"), "DB_PORT": (DIR, "6000")}, True),
        ({"POSTGRES_PASSWORD": (DIR, "p"), "DB_HOST": (DIR, "db")}, False),
        ({"POSTGRES_PASSWORD": (ENV, "p"), "DATABASE_URL": (DIR, "postgresql://me@db/x")}, False),
        ({"DATABASE_URL": (DIR, "postgresql://me:own@db/x?hostaddr=6.6.6.6")}, True),
        ({"DATABASE_URL": (ENV, "postgresql://me:own@db/x?hostaddr=6.6.6.6")}, False),
    ],
)
def test_a_servers_password_goes_only_where_its_source_says(lines: dict[str, Any], refused: bool) -> None:
    found = resolved(**lines)
    if not refused:
        return credentials.check_servers(found, {})
    with pytest.raises(SettingFault, match=r"of /d/\.env") as caught:
        credentials.check_servers(found, {})
    assert not {"'p'", "own@"} & set(str(caught.value).split())
    return None


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ({"DB_HOST": (DIR, "evil")}, True),
        ({"DATABASE_URL": (DIR, "postgresql://me@evil/x")}, True),
        ({"DATABASE_URL": (DIR, "postgresql://me:own@evil/x")}, False),
        ({"DB_HOST": (DIR, "db"), "POSTGRES_PASSWORD": (DIR, "own")}, False),
        ({"DB_HOST": (ENV, "db")}, False),
    ],
)
def test_libpqs_own_password_variable_goes_to_no_server_of_a_directory(lines: dict[str, Any], refused: bool) -> None:
    found = resolved(**lines)
    if refused:
        with pytest.raises(SettingFault, match="PGPASSWORD"):
            credentials.check_servers(found, {"PGPASSWORD": "p"})
    credentials.check_servers(found, {}) if refused else credentials.check_servers(found, {"PGPASSWORD": "p"})


def test_an_address_is_shown_without_anything_secret() -> None:
    shown = credentials.shown("postgresql://me:secret@db:6000/x?password=secret")
    assert shown == "postgresql://db:6000"
