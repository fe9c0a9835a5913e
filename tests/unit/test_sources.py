"""Where a value comes from, and what a child is given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared import loading, sources
from shared.env_files import EnvFile
from shared.memory import Memory
from shared.settings import setting_names
from shared.sources import INHERITED, Source, Sources


def file(path: str, **values: str) -> EnvFile:
    return EnvFile(Path(path), values)


def resolved(environ: dict[str, str], directory: dict[str, str], user: dict[str, str] | None = None) -> Sources:
    own = file("/home/u/.config/aitask/.env", **user) if user else None
    return sources.resolve(environ, file("/d/.env", **directory), own, names=setting_names)


def test_the_order_is_environment_directory_own_file_and_each_value_knows_its_source() -> None:
    found = resolved(
        {"DB_HOST": "e", "PATH": "/bin"},
        {"DB_HOST": "d", "REDIS_HOST": "d"},
        {"DB_HOST": "u", "REDIS_HOST": "u", "POSTGRES_DB": "u"},
    )
    assert found.values == {"DB_HOST": "e", "REDIS_HOST": "d", "POSTGRES_DB": "u"}
    assert [found.source(name) for name in ("DB_HOST", "REDIS_HOST", "POSTGRES_DB", "DB_PORT")] == [
        Source.ENVIRONMENT, Source.DIRECTORY, Source.USER, Source.DEFAULT,
    ]  # fmt: skip


def test_a_blank_line_of_a_file_says_nothing_and_a_blank_of_the_environment_hides_the_files() -> None:
    found = resolved({"REDIS_HOST": ""}, {"GEMINI_API_KEY": "", "REDIS_HOST": "d"}, {"GEMINI_API_KEY": "k"})
    assert found.values == {"GEMINI_API_KEY": "k"}


def test_only_settings_are_taken_from_a_file_those_of_added_families_too() -> None:
    added = {"AITASK_FAMILIES": "openai", "OPENAI_API_KEY": "k", "OTHER_API_KEY": "k"}
    found = resolved({}, {"LD_PRELOAD": "x", "PYTHONPATH": "x", **added})
    assert set(found.values) == {"AITASK_FAMILIES", "OPENAI_API_KEY"}
    assert found.not_taken == ("PYTHONPATH",)


def test_what_steers_libraries_is_taken_from_the_users_own_file_where_the_environment_says_nothing() -> None:
    found = resolved({"PGUSER": "e"}, {"SSL_CERT_FILE": "d"}, {"SSL_CERT_FILE": "u", "https_proxy": "u", "PGUSER": "u"})
    assert found.steering == {"SSL_CERT_FILE": "u", "https_proxy": "u"}


def test_under_honcho_a_value_equal_to_the_files_is_the_files() -> None:
    lines = {"LLM_SERVICE_URL": "http://d", "GEMINI_API_KEY": ""}
    environ = {**lines, "LLM_API_KEY": "e", "HONCHO_PROCESS_NAME": "qwen.1"}
    found = resolved(environ, lines, {"GEMINI_API_KEY": "u"})
    assert found.source("LLM_SERVICE_URL") is Source.DIRECTORY
    assert found.source("LLM_API_KEY") is Source.ENVIRONMENT
    assert found.values["GEMINI_API_KEY"] == "u"
    del environ["HONCHO_PROCESS_NAME"]
    assert resolved(environ, lines).source("LLM_SERVICE_URL") is Source.ENVIRONMENT


def test_a_child_has_the_same_values_from_the_same_sources_and_nothing_else_of_a_file() -> None:
    environ = {"PATH": "/bin", "GEMINI_API_KEY": "e", "AITASK_TRUST": "/d", "REDIS_HOST": ""}
    found = resolved(environ, {"LD_PRELOAD": "x", "REDIS_HOST": "d", "DB_HOST": "d"}, {"PGSSLMODE": "require"})
    child = sources.for_child(environ, found, names=setting_names(""))
    told = child.pop(INHERITED)
    assert child == {"PATH": "/bin", "GEMINI_API_KEY": "e", "DB_HOST": "d", "PGSSLMODE": "require"}
    again = sources.inherited({**child, INHERITED: told})
    assert again is not None
    assert (again.values, again.of, again.files) == (found.values, found.of, found.files)


def test_under_honcho_nothing_of_the_file_but_settings_reaches_a_child() -> None:
    environ = {"HONCHO_PROCESS_NAME": "x", "LD_PRELOAD": "x", "PYTHONUNBUFFERED": "1", "PATH": "/bin"}
    found = resolved(environ, {"LD_PRELOAD": "x"})
    assert set(sources.cleaned(environ, found)) == {"PYTHONUNBUFFERED", "PATH"}


def test_what_a_file_says_as_if_handed_down_is_not_believed_under_honcho() -> None:
    assert sources.inherited({INHERITED: '{"of": {}, "directory": "", "user": ""}', "HONCHO_PROCESS_NAME": "x"}) is None
    assert sources.inherited({INHERITED: "nonsense"}) is None


def test_a_child_imports_from_no_relative_and_no_open_directory(tmp_path: Path) -> None:
    own, opened = tmp_path / "own", tmp_path / "open"
    own.mkdir()
    opened.mkdir()
    opened.chmod(0o777)
    environ = {"PYTHONPATH": os.pathsep.join(["", ".", "lib", str(own), str(opened)])}
    assert sources.cleaned(environ, Sources()) == {"PYTHONPATH": str(own)}


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sources]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("AITASK_TRUST", raising=False)

    def check(**values: str) -> Sources:
        path = tmp_path / ".env"
        path.write_text("".join(f'{name}="{value}"\n' for name, value in values.items()))
        read = loading.env_files.read(path)
        found = sources.resolve({}, read, None, names=setting_names)
        loading.check_trust(found, Memory())
        return found

    return check


CLAIMS = {
    "AITASK_DATA_DIR": ".",
    "AITASK_GATEWAY_HOST": "0.0.0.0",
    "AITASK_GATEWAY_TOKENS": "mallory:0123456789abcdef",
    "AITASK_GATEWAY_ORIGINS": "https://evil.example",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_where_data_lie_and_who_may_come_in_needs_trust_which_ends_with_the_line(
    trusting: Callable[..., Sources], name: str
) -> None:
    with pytest.raises(loading.Untrusted, match=name) as caught:
        trusting(**{name: CLAIMS[name]})
    assert "aitask trust" in str(caught.value)
    file = loading.env_files.read(Path(str(caught.value).split()[0]))
    assert file is not None
    assert Memory().learn(loading.TRUSTED, file.real_path, loading.trusted_digest(file))
    trusting(**{name: CLAIMS[name], "AITASK_SLOTS": "3"})
    with pytest.raises(loading.Untrusted):
        trusting(**{**CLAIMS, name: CLAIMS[name] + "0"})


def test_blank_values_defaults_servers_and_keys_need_no_trust(trusting: Callable[..., Sources]) -> None:
    trusting(AITASK_DATA_DIR="", AITASK_GATEWAY_HOST="127.0.0.1", AITASK_GATEWAY_TOKENS=" ", DB_HOST="db")


def test_the_environment_may_name_a_file_to_trust(
    trusting: Callable[..., Sources], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named in (tmp_path / ".env", tmp_path):
        monkeypatch.setenv("AITASK_TRUST", f"/elsewhere{os.pathsep}{named}")
        trusting(**CLAIMS)
    monkeypatch.setenv("AITASK_TRUST", "/elsewhere")
    with pytest.raises(loading.Untrusted):
        trusting(**CLAIMS)


def test_a_memory_that_others_could_have_written_counts_for_nothing(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.learn("trusted", "/a", "digest")
    assert memory.knows("trusted", "/a", "digest")
    [[file]] = [list((tmp_path / "trusted").iterdir())]
    file.chmod(0o666)
    assert not memory.knows("trusted", "/a", "digest")
    file.chmod(0o600)
    assert memory.forget("trusted", "/a")
    assert not memory.knows("trusted", "/a", "digest")


def test_without_a_writable_home_nothing_is_remembered_and_nothing_fails(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    memory = Memory(blocked)
    assert not memory.learn("told", "/a", "digest")
    assert not memory.knows("told", "/a", "digest")
    assert not memory.forget("told", "/a")
