"""Settings: every field documented, every bad value named."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from shared.errors import SettingFault
from shared.families import BUILT_IN
from shared.loading import load
from shared.settings import family_variables, for_demo, setting_fields, settings_from

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def example() -> dict[str, str]:
    return dict(re.findall(r'^([A-Z_0-9]+)="(.*)"$', EXAMPLE.read_text(), re.M))


def test_the_example_file_names_exactly_the_settings_there_are() -> None:
    known = {f.metadata["env"] for f in setting_fields()}
    for row in BUILT_IN:
        known |= set(family_variables(row).values())
    assert set(example()) == known


def test_the_example_file_shows_the_defaults() -> None:
    assert settings_from({**example(), "LLM_SERVICE_URL": ""}) == settings_from({})


def test_every_value_in_the_example_file_is_quoted() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r'[A-Z_0-9]+=".*"', line) for line in lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PORT", "many"),
        ("DB_PORT", "70000"),
        ("AITASK_LEASE_S", "soon"),
        ("AITASK_LEASE_S", "nan"),
        ("ENABLE_DB_LOG", "perhaps"),
        ("DATABASE_URL", "mysql://x/y"),
        ("REDIS_URL", "localhost"),
        ("GEMINI_SERVICE_URL", "http://"),
        ("GEMINI_SERVICE_URL", "http://host:port"),
        ("GEMINI_API_KEY", "two\nlines"),
        ("AITASK_NAMESPACE", "a b"),
        ("AITASK_LOG_LEVEL", "loud"),
        ("AITASK_FAMILIES", "9lives"),
        ("AITASK_FAMILIES", "gemini"),
    ],
)
def test_a_bad_value_fails_at_once_and_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingFault, match=name):
        settings_from({name: value})


def test_a_bad_secret_is_not_repeated_in_the_message() -> None:
    with pytest.raises(SettingFault) as caught:
        settings_from({"DATABASE_URL": "oracle://user:hunter2@host/db"})
    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_in_the_representation() -> None:
    settings = settings_from(
        {"POSTGRES_PASSWORD": "hunter2", "GEMINI_API_KEY": "sk-hunter2", "DATABASE_URL": "postgresql://u:hunter2@h/d"}
    )
    assert "hunter2" not in repr(settings)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text('AITASK_SLOTS="3"\nAITASK_LEASE_S="7"\n')
    monkeypatch.setenv("AITASK_SLOTS", "5")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = load()
    assert (settings.slots, settings.lease_s) == (5, 7.0)


def test_parts_make_the_same_database_address_as_a_url() -> None:
    settings = settings_from(
        {
            "DB_HOST": "db",
            "DB_PORT": "6000",
            "POSTGRES_USER": "me",
            "POSTGRES_PASSWORD": "p@ss/word",
            "POSTGRES_DB": "x",
        }
    )
    assert settings.database_dsn == "postgresql://me:p%40ss%2Fword@db:6000/x"


def test_the_demo_leaves_configured_servers_endpoints_and_keys_behind() -> None:
    settings = for_demo(
        settings_from(
            {
                "DATABASE_URL": "postgresql://h/d",
                "REDIS_URL": "redis://h",
                "GEMINI_API_KEY": "k",
                "LLM_SERVICE_URL": "http://h",
            }
        )
    )
    assert settings.local
    assert {(f.api_key, f.endpoint) for f in settings.families} == {(None, "http://127.0.0.1:9")}
    assert settings.data_path.name == "demo"


def test_the_fingerprint_changes_with_a_key_and_only_with_what_matters() -> None:
    one, two = settings_from({"GEMINI_API_KEY": "a"}), settings_from({"GEMINI_API_KEY": "b"})
    assert one.fingerprint("1") != two.fingerprint("1")
    assert one.fingerprint("1") != one.fingerprint("2")
    assert one.fingerprint("1") == settings_from({"GEMINI_API_KEY": "a"}).fingerprint("1")


def test_the_lowest_versions_that_are_tested_are_those_that_setup_cfg_allows() -> None:
    root = EXAMPLE.parent
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([\d.]+)$", (root / ".ci" / "lowest.txt").read_text(), re.M))
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg")
    lines = parser["options"]["install_requires"] + parser["options.extras_require"]["gateway"]
    allowed = dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z]+\])?>=([\d.]+)$", lines, re.M))
    assert {name: _padded(version) for name, version in pinned.items()} == {
        name: _padded(version) for name, version in allowed.items()
    }


def _padded(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    return (*parts, *[0] * (3 - len(parts)))
