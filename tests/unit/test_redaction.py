"""What of a URL, an echo or a live piece may be shown."""

from __future__ import annotations

import base64
import re

import pytest

from shared.errors import AitaskError
from shared.redaction import Redactor, masked_url
from shared.settings import settings_from
from workers.live import LiveGuard
from workers.piece import Piece

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


KEY = "sk-Zq81xvRw5tY7uI9oP3aSdFgH"


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 8, 13, 200])
@pytest.mark.parametrize("echo", [KEY, KEY.upper(), " ".join(KEY), base64.b64encode(KEY.encode()).decode(), KEY[9:]])
def test_a_key_that_a_model_repeats_is_in_no_live_piece(echo: str, cut: int) -> None:
    guard, text = LiveGuard(Redactor([KEY])), f"Well, it is {echo}, as you know."
    shown = [p.text for at in range(0, len(text), cut) for p in guard.feed([Piece(text[at : at + cut])])]
    shown += [piece.text for piece in guard.finish()]
    live = "".join(shown)
    assert live.startswith("Well, it is ")
    assert live.endswith(", as you know.")
    bare, secret = (re.sub(r"\W", "", one).lower() for one in (live, echo.removeprefix("sk-")))
    assert not [at for at in range(len(secret) - 7) if secret[at : at + 8] in bare], live


def test_what_holds_no_key_is_shown_at_once_and_whole() -> None:
    guard = LiveGuard(Redactor([KEY]))
    words = [Piece(f" word{n}") for n in range(50)]
    assert [piece for word in words for piece in guard.feed([word])] == words
