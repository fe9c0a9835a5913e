"""Kinds of error and outcome are their words, wherever they are written."""

from __future__ import annotations

import json

import orjson
import pytest

from shared.kinds import ErrorKind, Outcome, http_kind


@pytest.mark.parametrize("word", [*ErrorKind, *Outcome])
def test_a_kind_is_its_word_in_a_sentence_in_json_and_as_a_key(word: ErrorKind | Outcome) -> None:
    assert str(word) == f"{word}" == word.value == word
    assert json.loads(json.dumps({"kind": word})) == orjson.loads(orjson.dumps({"kind": word})) == {"kind": word.value}


def test_a_bare_status_has_a_kind_of_its_own() -> None:
    assert http_kind(429) == "http_429"
