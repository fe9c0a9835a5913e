"""Models as data: the package's rows, a user's own, their ends, and who answered."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest

from aitask_cli import endings
from shared import models
from shared.errors import SettingFault
from shared.families import Family, route
from shared.loading import load
from shared.models import Models, answering, gone, is_other, with_known_limit
from shared.models_file import Model, built_in, read, rows
from shared.options import EFFORTS
from shared.settings import Settings, settings_from

DAY = dt.date(2026, 11, 25)


def family(name: str, settings: Settings | None = None) -> Family:
    found = (settings or settings_from({})).family(name)
    assert found is not None
    return found


def test_every_row_of_the_package_names_its_source_and_day() -> None:
    for row in built_in():
        assert row.source.startswith("https://"), row.name
        assert row.date is not None, row.name
    named = [(row.family, row.name) for row in built_in()]
    assert len(set(named)) == len(named)


def test_what_ends_has_a_successor_that_does_not_end_before_it() -> None:
    known = Models()
    for row in built_in():
        assert not row.rerouted or row.successor, row.name
        if row.successor is not None:
            after = next((one for one in known.rows if (one.family, one.name) == (row.family, row.successor)), None)
            assert after is None or not models.ends_soon(after, DAY), row.name


def test_no_family_s_default_has_ended_or_ends_soon() -> None:
    known = Models()
    for row in built_in():
        assert not (row.default and models.ends_soon(row, DAY)), row.name
    assert {name: known.default(name) for name in ("gemini", "deepseek", "qwen", "openai")} == {
        "gemini": "gemini-3.5-flash-lite",
        "deepseek": "deepseek-flash",
        "qwen": "qwen2.5",
        "openai": "gpt-6-luna",
    }


@pytest.mark.parametrize(
    ("name", "retired", "successor", "rerouted"),
    [
        ("deepseek-chat", "2026-07-24", "deepseek-flash", False),
        ("deepseek-reasoner", "2026-07-24", "deepseek-flash", False),
        ("deepseek-v4-pro", "2026-09-14", "deepseek-flash", True),
        ("gemini-2.5-flash", "2026-12-01", "gemini-3.5-flash-lite", True),
        ("models/gemini-2.5-pro", "2026-12-01", "gemini-3.8-flash", True),
    ],
)
def test_the_vendors_ends_are_known(name: str, retired: str, successor: str, rerouted: bool) -> None:
    model, its = route(name, settings_from({}).families)
    row = Models().find(its, model)
    assert row is not None
    assert (str(row.retired), row.successor, row.rerouted) == (retired, successor, rerouted)


def test_the_first_release_s_names_go_on_routing() -> None:
    families = settings_from({}).families
    assert route("gemini-2.5-flash", families)[1].name == "gemini"
    assert route("deepseek-r1:1.5b", families)[1].name == "deepseek"


def test_a_vendor_s_endpoint_is_known_whatever_the_family_is_called() -> None:
    settings = settings_from(
        {"AITASK_FAMILIES": "oai", "OAI_SERVICE_URL": "https://api.openai.com", "OAI_MODELS": "gpt-*"}
    )
    row = settings.models.find(family("oai", settings), "gpt-5-mini")
    assert row is not None
    assert row.tokens == "max_completion_tokens"


def test_azure_has_openai_s_models_and_not_their_ends() -> None:
    settings = settings_from(
        {"AITASK_FAMILIES": "azure", "AZURE_SERVICE_URL": "https://me.openai.azure.com/openai/v1", "AZURE_MODELS": "o*"}
    )
    row = settings.models.find(family("azure", settings), "o4-mini")
    assert row is not None
    assert (row.tokens, row.retired, row.successor) == ("max_completion_tokens", None, None)


def test_a_user_s_row_comes_before_the_package_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / ".config/aitask/models.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps([{"name": "gemini-9", "family": "gemini", "default": True}]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert family("gemini", load()).default_model == "gemini-9"
    assert family("gemini", load(demo=True)).default_model == "gemini-3.5-flash-lite"
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"name": "models/gemini-8", "family": "gemini", "default": True}]))
    monkeypatch.setenv("AITASK_MODELS_FILE", str(other))
    assert family("gemini", load()).default_model == "gemini-8"
    monkeypatch.setenv("GEMINI_DEFAULT_MODEL", "mine")
    assert family("gemini", load()).default_model == "mine"


def test_a_directory_s_file_names_no_models_file_without_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.json").write_text("[]")
    (tmp_path / ".env").write_text(f'AITASK_MODELS_FILE="{tmp_path}/rows.json"\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingFault, match="AITASK_MODELS_FILE"):
        load()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "is not a list"),
        ("[1]", "row 1: it is not an object"),
        ('[{"name": "x"}]', "row 1: it has no family"),
        ('[{"name": "", "family": "f"}]', "row 1: it has no name"),
        ('[{"name": "x", "family": "f", "kontext": 1}]', "there is no field 'kontext'"),
        ('[{"name": "x", "family": "f"}, {"name": "x", "family": "f", "context": "9"}]', "row 2: context can't be"),
        ('[{"name": "x", "family": "f", "context": true}]', "context can't be true"),
        ('[{"name": null, "family": "f"}]', "name can't be null"),
        ('[{"name": "x", "family": "f", "retired": "soon"}]', "retired can't be"),
        ('[{"name": "x", "family": "f", "efforts": "high"}]', "efforts can't be"),
        ('[{"name": "x", "family": "f", "schema": "xml"}]', "schema can't be"),
    ],
)
def test_a_bad_models_file_is_named_with_its_row(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(text)
    with pytest.raises(SettingFault) as caught:
        read(file, must_exist=True)
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_a_models_file_that_is_none_is_named(tmp_path: Path) -> None:
    assert read(tmp_path / "none", must_exist=False) == ()
    with pytest.raises(SettingFault, match="does not exist"):
        read(tmp_path / "none", must_exist=True)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingFault, match="is not a file"):
        read(tmp_path / "fifo", must_exist=True)
    open_to_all = tmp_path / "open"
    open_to_all.write_text("[]")
    open_to_all.chmod(0o666)
    with pytest.raises(SettingFault, match="can be written by everybody"):
        read(open_to_all, must_exist=True)
    with pytest.raises(SettingFault, match="whole path"):
        settings_from({"AITASK_MODELS_FILE": "models.json"})


def test_a_configured_default_that_has_ended_is_named_with_the_line_to_change() -> None:
    settings = settings_from({"DEEPSEEK_DEFAULT_MODEL": "deepseek-chat"})
    settings = load_with(settings, {"DEEPSEEK_DEFAULT_MODEL": "deepseek-chat"})
    deepseek = family("deepseek", settings)
    assert endings.about_default(settings, deepseek, DAY) == (
        "DEEPSEEK_DEFAULT_MODEL of the environment names deepseek-chat, which was retired on 2026-07-24",
        'set DEEPSEEK_DEFAULT_MODEL="deepseek-flash"',
    )
    asked = list(endings.about_asked(settings, [("deepseek-chat", deepseek)], DAY))
    assert 'set DEEPSEEK_DEFAULT_MODEL="deepseek-flash"' in asked[0]


def test_an_end_is_said_thirty_days_before_by_those_who_look_and_afterwards_by_those_who_ask() -> None:
    settings = load_with(settings_from({}), {})
    gemini = settings_from({"GEMINI_DEFAULT_MODEL": "gemini-2.5-flash"}).families[0]
    end = dt.date(2026, 12, 1)
    assert endings.about_default(settings, gemini, end - dt.timedelta(days=31)) is None
    said = endings.about_default(settings, gemini, end - dt.timedelta(days=30))
    assert said is not None
    assert "is retired on 2026-12-01; gemini-3.5-flash-lite answers in its place" in said[0]
    asked = [("gemini-2.5-flash", gemini)]
    assert list(endings.about_asked(settings, asked, end - dt.timedelta(days=1))) == []
    assert "was retired on 2026-12-01" in next(endings.about_asked(settings, asked, end))
    other = [("gemini-2.0-flash", gemini)]
    assert next(endings.about_asked(settings, other, end)).endswith("; ask gemini/gemini-3.5-flash-lite")


def load_with(settings: Settings, environ: dict[str, str]) -> Settings:
    import dataclasses

    from shared import sources
    from shared.settings import setting_names

    return dataclasses.replace(settings, sources=sources.resolve(environ, None, None, names=setting_names))


def test_options_that_a_model_ignores_are_said() -> None:
    settings = settings_from({})
    deepseek = family("deepseek")
    said = list(endings.about_options(settings, [("deepseek-flash", deepseek)], {"temperature": 1, "seed": 1}))
    assert said == ["deepseek-flash ignores temperature"]
    assert list(endings.about_options(settings, [("deepseek-r1:1.5b", deepseek)], {"temperature": 1})) == []
    openai = settings_from({"AITASK_FAMILIES": "openai", "OPENAI_SERVICE_URL": "http://x"}).families[0]
    said = list(endings.about_options(settings, [("gpt-5", openai)], {"temperature": 0, "reasoning_effort": "max"}))
    assert said == [
        "gpt-5 takes no temperature but its own, and takes minimal or low or medium or high as reasoning_effort"
    ]
    assert list(endings.about_options(settings, [("deepseek-flash", deepseek)], {"reasoning_effort": "max"})) == []


def test_every_effort_that_the_data_name_can_be_given() -> None:
    assert {effort for row in built_in() for effort in row.efforts or ()} <= {*EFFORTS}


def test_the_limit_of_an_answer_goes_by_the_name_that_the_model_knows() -> None:
    newer = Model(name="gpt-5", family="openai", tokens="max_completion_tokens")
    older = Model(name="q", family="qwen", tokens="max_tokens")
    assert with_known_limit(newer, {"seed": 1, "max_tokens": 7}) == {"seed": 1, "max_completion_tokens": 7}
    assert with_known_limit(older, {"max_completion_tokens": 7}) == {"max_tokens": 7}
    assert with_known_limit(None, {"max_completion_tokens": 7}) == {"max_completion_tokens": 7}
    assert with_known_limit(newer, {"max_completion_tokens": 7}) == {"max_completion_tokens": 7}


@pytest.mark.parametrize(
    ("name", "status", "message", "kind"),
    [
        ("deepseek-chat", 404, "Not Found", "model_retired"),
        ("deepseek-chat", None, "Model Not Exist", "model_retired"),
        ("deepseek-flash", 404, "Not Found", None),
        ("deepseek-flash", None, "Model Not Exist", "unknown_model"),
        ("gpt-x", None, "The model gpt-x has been decommissioned", "model_retired"),
        ("gpt-x", 410, "this model is gone", "unknown_model"),
        ("gpt-x", 410, "it has been retired", "model_retired"),
        ("gpt-x", 410, "Gone", None),
        ("gpt-x", None, "The model `gpt-x` does not exist", "unknown_model"),
    ],
)
def test_a_model_that_is_not_there_is_retired_or_unknown(
    name: str, status: int | None, message: str, kind: str | None
) -> None:
    row = Models().find(family("deepseek"), name)
    assert gone(row, status=status, message=message, today=DAY) == kind


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("models/gemini-3.8-flash", "gemini-3.8-flash"),
        ("gemini-3.8-flash", "models/gemini-3.8-flash-001"),
        ("gemini-2.5-flash", "gemini-2.5-flash-preview-05-20"),
        ("qwen2.5", "qwen2.5:latest"),
        ("qwen2.5:latest", "qwen2.5"),
        ("gpt-4", "gpt-4-0613"),
        ("claude-sonnet-4", "claude-sonnet-4-20250514"),
        ("mistral-large-latest", "mistral-large-2411"),
        ("gpt-4o", "openai/gpt-4o"),
        ("qwen2.5", "/models/Qwen2.5-7B-Instruct-Q4_K_M.gguf"),
        ("anything", None),
        ("anything", ""),
    ],
)
def test_a_snapshot_or_an_alias_is_the_model_asked(asked: str, answered: str | None) -> None:
    assert not is_other(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gemini-2.5-flash", "gemini-3.5-flash-lite"),
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"),
        ("gpt-4", "gpt-4-32k"),
        ("deepseek-v4-pro", "deepseek-flash"),
        ("qwen2.5:7b", "qwen2.5:0.5b"),
        ("llama3", "/models/qwen2.5-7b.gguf"),
        ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
    ],
)
def test_another_model_is_another(asked: str, answered: str) -> None:
    assert is_other(asked, answered)


def test_rows_are_read_as_they_are_written() -> None:
    (row,) = rows('[{"name": "models/X", "family": "F", "retired": "2026-12-01", "efforts": []}]', "here")
    assert (row.name, row.family, row.retired, row.efforts) == ("x", "f", dt.date(2026, 12, 1), ())


def test_a_vendor_that_lets_another_model_answer_in_silence_is_seen_through() -> None:
    known, after = Models(), dt.date(2026, 12, 1)
    official = family("gemini")
    bridge = settings_from({"GEMINI_SERVICE_URL": "http://localhost:1"}).families[0]
    asked = "gemini-2.5-flash"
    assert answering(known, official, asked, asked, after) == "gemini-3.5-flash-lite"
    assert answering(known, official, asked, None, after) == "gemini-3.5-flash-lite"
    assert answering(known, official, asked, "gemini-4", after) == "gemini-4"
    assert answering(known, official, asked, asked, after - dt.timedelta(days=1)) == asked
    assert answering(known, bridge, asked, asked, after) == asked
    assert answering(known, official, "gemini-3.8-flash", None, after) is None
