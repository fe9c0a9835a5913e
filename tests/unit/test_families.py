"""Routing of model names."""

from __future__ import annotations

import pytest

from shared.errors import UsageFault
from shared.families import chat_url, models_url, route, split_models
from shared.settings import settings_from


@pytest.mark.parametrize(
    ("name", "model", "family"),
    [
        ("gemini", "gemini-3.5-flash-lite", "gemini"),
        ("Gemini", "gemini-3.5-flash-lite", "gemini"),
        ("gemini-2.5-pro", "gemini-2.5-pro", "gemini"),
        ("models/gemini-2.5-pro", "models/gemini-2.5-pro", "gemini"),
        ("deepseek", "deepseek-flash", "deepseek"),
        ("deepseek-r1:1.5b", "deepseek-r1:1.5b", "deepseek"),
        ("qwen", "qwen2.5", "qwen"),
        ("qwen2.5-coder:7b", "qwen2.5-coder:7b", "qwen"),
        ("llama3.2", "llama3.2", "qwen"),
        ("Llama3.2", "Llama3.2", "qwen"),
        ("anything:latest", "anything:latest", "qwen"),
        ("qwen/my-own", "my-own", "qwen"),
        ("gemini/deepseek-like", "deepseek-like", "gemini"),
    ],
)
def test_a_model_name_finds_its_family(name: str, model: str, family: str) -> None:
    found, where = route(name, settings_from({}).families)
    assert (found, where.name) == (model, family)


@pytest.mark.parametrize("name", ["gpt-4o", "", "two words", "a,b", "x" * 201, "tab\tname", "nul\x00"])
def test_a_name_that_no_family_takes_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageFault):
        route(name, settings_from({}).families)


def test_a_family_added_by_settings_takes_its_patterns_and_has_a_default() -> None:
    settings = settings_from(
        {
            "AITASK_FAMILIES": "openai",
            "OPENAI_SERVICE_URL": "https://api.openai.com",
            "OPENAI_MODELS": "gpt-*,o*,gpt-4o-mini",
        }
    )
    assert route("gpt-5", settings.families)[1].name == "openai"
    assert route("openai", settings.families)[0] == "gpt-4o-mini"


def test_patterns_from_settings_come_before_every_family_s_own() -> None:
    settings = settings_from({"LLM_MODELS": "gemini-local*"})
    assert route("gemini-local-2b", settings.families)[1].name == "qwen"
    assert route("gemini-2.5-pro", settings.families)[1].name == "gemini"


def test_a_family_with_an_official_endpoint_says_which_key_is_missing() -> None:
    families = {f.name: f for f in settings_from({"DEEPSEEK_API_KEY": "k"}).families}
    assert "GEMINI_API_KEY" in (families["gemini"].missing or "")
    assert families["deepseek"].missing is None
    assert families["qwen"].missing is None


def test_models_are_split_at_commas_and_blanks_dropped() -> None:
    assert split_models(("gemini, qwen", "", ",deepseek,")) == ["gemini", "qwen", "deepseek"]


@pytest.mark.parametrize(
    ("endpoint", "url", "models"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1/models"),
        ("http://localhost:11434/", "http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1/models"),
        ("http://h/v1/", "http://h/v1/chat/completions", "http://h/v1/models"),
        ("http://h/v1beta/openai", "http://h/v1beta/openai/chat/completions", "http://h/v1beta/openai/models"),
        ("http://h/api/v1/chat/completions", "http://h/api/v1/chat/completions", "http://h/api/v1/models"),
        ("http://h/chat/completions", "http://h/chat/completions", "http://h/v1/models"),
        # Open WebUI, GitHub Models, Cloudflare's gateway, Databricks: roots that no version ends.
        ("http://h/api", "http://h/api/chat/completions", "http://h/api/models"),
        ("http://h/api/chat/completions", "http://h/api/chat/completions", "http://h/api/models"),
        ("http://h/inference", "http://h/inference/chat/completions", "http://h/inference/models"),
        ("http://h/v1/a/g/compat", "http://h/v1/a/g/compat/chat/completions", "http://h/v1/a/g/compat/models"),
        ("http://h/serving-endpoints", "http://h/serving-endpoints/chat/completions", "http://h/serving-endpoints/models"),
        # Azure: the query stays at the end.
        (
            "http://h/openai/deployments/d/chat/completions?api-version=1",
            "http://h/openai/deployments/d/chat/completions?api-version=1",
            "http://h/openai/deployments/d/models?api-version=1",
        ),
        ("http://h/models?api-version=1", "http://h/models/chat/completions?api-version=1", "http://h/models/models?api-version=1"),
        ("http://h?key=1", "http://h/v1/chat/completions?key=1", "http://h/v1/models?key=1"),
    ],
)  # fmt: skip
def test_an_endpoint_s_own_path_and_query_are_kept(endpoint: str, url: str, models: str) -> None:
    assert (chat_url(endpoint), models_url(endpoint)) == (url, models)
