"""What of a URL, an echo or a live piece may be shown."""

from __future__ import annotations

import pytest

from shared.errors import AitaskError
from shared.redaction import masked_url
from shared.settings import settings_from

PASSWORDS = (
    "hun@ter2x",
    "hun/ter2x",
    "hun#ter2x",
    "hun?ter2x",
    "@hunter2x",
    "hunter2x@",
    "hu/n@ter2x",
    "7/hun@ter2x",
    "7?hun@ter2x",
    "7#hun@ter2x",
    "7?hun=ter2x",
    "7?hun=@ter2x",
)


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "GEMINI_SERVICE_URL"])
def test_a_password_that_is_not_escaped_is_in_no_message(name: str, password: str) -> None:
    scheme = {"DATABASE_URL": "postgresql", "REDIS_URL": "redis"}.get(name, "https")
    values = {"DATABASE_URL": "postgresql://h/db", "REDIS_URL": "redis://h", name: f"{scheme}://u:{password}@h/0"}
    said = ""
    try:
        found = settings_from(values)
        said = masked_url(found.families[0].endpoint)
    except AitaskError as error:
        said = f"{error} {error.remedy}"
    assert not [part for part in ("hun", "ter2x") if part in said], said


def test_what_is_no_secret_of_an_endpoint_is_shown() -> None:
    assert masked_url("https://h/v1?api-version=2&key=abc") == "https://h/v1?api-version=2&key=***"
    assert masked_url("https://u:p@h:8/v1") == "https://***@h:8/v1"
    assert masked_url("https://h:8/v1/models") == "https://h:8/v1/models"
