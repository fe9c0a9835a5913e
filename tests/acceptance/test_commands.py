"""The installed command on configured servers: output, exit codes, bad input."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from aitask_cli.main import COMMANDS
from aitask_cli.simulator.script import NASTY
from shared.migrations import HEAD
from tests.stand import COMMAND, Stand

ASK = ("ask", "hello", "-m")


def test_help_lists_every_command_and_each_explains_itself(stand: Stand) -> None:
    top = stand.aitask("--help")
    assert top.code == 0
    for name in COMMANDS:
        assert f"  {name} " in top.out
        one = stand.aitask(name, "--help")
        assert one.code == 0
        assert "Usage: aitask " in one.out


def test_ask_prints_json_in_the_documented_shape(stand: Stand) -> None:
    stand.start_worker()
    found = stand.aitask(*ASK, "gemini,qwen,deepseek", "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said["version"] == 1
    assert [task["state"] for task in said["batch"]["tasks"]] == ["SUCCESS"] * 3


def test_piped_answers_are_plain_and_progress_goes_to_stderr(stand: Stand) -> None:
    stand.start_worker()
    one = stand.aitask(*ASK, "qwen")
    assert one.out.startswith("**Simulated answer** of `qwen2.5`")
    assert "answered in" in one.err
    several = stand.aitask(*ASK, "qwen", "-m", "gemini")
    assert "## qwen2.5\n" in several.out
    assert "## gemini-3.5-flash-lite\n" in several.out
    assert "\x1b" not in several.out + several.err


def test_exit_codes_tell_some_from_none(stand: Stand) -> None:
    stand.start_worker()
    assert stand.aitask(*ASK, "qwen,gemini+400").code == 3
    none = stand.aitask(*ASK, "gemini+400")
    assert none.code == 5
    assert "bad request" in none.out


def test_detach_prints_the_id_and_show_follows_the_batch(stand: Stand) -> None:
    detached = stand.aitask(*ASK, "qwen", "-d")
    assert (detached.code, len(detached.out.strip())) == (0, 36)
    assert "no worker serves qwen" in detached.err
    assert "aitask worker qwen" in detached.err
    batch = detached.out.strip()
    waiting = stand.aitask("show", batch[:8])
    assert (waiting.code, waiting.out.strip()) == (8, "[waiting]")
    expired = stand.aitask("watch", batch, "--wait", "0.3")
    assert expired.code == 124
    assert f"aitask watch {batch[:8]}" in expired.err
    stand.start_worker()
    assert stand.aitask("watch", "last").code == 0
    assert stand.aitask("show", "last").code == 0
    attempts = stand.aitask("show", "--attempts")
    assert "answered" in attempts.out
    listed = stand.aitask("ls")
    assert listed.out.split("\t")[:2] == [batch[:8], "completed"]
    assert json.loads(stand.aitask("ls", "--json").out)["batches"][0]["id"] == batch


def test_standard_input_comes_before_the_argument(stand: Stand) -> None:
    stand.aitask("ask", "the question", "-m", "qwen", "-d", stdin="the text\n")
    assert stand.query("SELECT prompt FROM batch") == [("the text\n\nthe question",)]


def test_an_idempotency_key_gives_the_first_batch_again_and_conflicts_otherwise(stand: Stand) -> None:
    first = stand.aitask(*ASK, "qwen", "-d", "--idempotency-key", "k")
    again = stand.aitask(*ASK, "qwen", "-d", "--idempotency-key", "k")
    assert (again.code, again.out) == (0, first.out)
    other = stand.aitask(*ASK, "gemini", "-d", "--idempotency-key", "k")
    assert other.code == 2
    assert "used for another request" in other.err


def test_the_same_model_twice_is_asked_once_and_said(stand: Stand) -> None:
    found = stand.aitask(*ASK, "qwen,qwen", "-m", "qwen2.5", "-d")
    assert found.code == 0
    assert "asked once" in found.err
    assert stand.query("SELECT count(*) FROM task") == [(1,)]


BAD = [
    (("ask", "x", "-m", "gpt-4o"), {}, b"", "gpt-4o"),
    (("ask", "x"), {}, b"", "no model"),
    (("ask", "x", "-m", ","), {}, b"", "no model"),
    (("ask", "", "-m", "qwen"), {}, b"", "prompt is empty"),
    (("ask", "-m", "qwen"), {}, b" \n", "prompt is empty"),
    (("ask", "-m", "qwen"), {}, b"x" * 1_048_577, "1,048,576"),
    (("ask", "x" * 20, "-m", "qwen"), {"AITASK_MAX_PROMPT_BYTES": "10"}, b"", "limit is 10"),
    (("ask", "-m", "qwen"), {}, b"a\0b", "NUL"),
    (("ask", "-m", "qwen"), {}, b"caf\xe9", "not UTF-8"),
    (("ask", os.fsdecode(b"caf\xe9"), "-m", "qwen"), {}, b"", "broken character"),
    (("ask", "x", "-m", "qwen", "-o", "temperature", "9"), {}, b"", "temperature"),
    (("ask", "x", "-m", "qwen"), {"GEMINI_SERVICE_URL": "not a url"}, b"", "GEMINI_SERVICE_URL"),
    (("ask", "x", "-m", "qwen"), {"AITASK_SLOTS": "many"}, b"", "AITASK_SLOTS"),
    (("ask", "x", "-m", "qwen"), {"REDIS_URL": ""}, b"", "REDIS_URL is not"),
    (("ask", "x", "-m", "qwen", "--wait", "-1"), {}, b"", "--wait"),
    (("ask", "x", "-m", "qwen", "--frobnicate"), {}, b"", "--frobnicate"),
    (("aks",), {}, b"", "ask"),
    (("show", "../etc"), {}, b"", "not a batch"),
    (("db", "reset"), {}, b"", "--yes"),
]


@pytest.mark.parametrize(("arguments", "env", "stdin", "named"), BAD)
def test_bad_input_gets_one_clear_line_exit_2_and_writes_nothing(
    stand: Stand, arguments: tuple[str, ...], env: dict[str, str], stdin: bytes, named: str
) -> None:
    found = stand.aitask(*arguments, stdin=stdin, **env)
    assert found.code == 2, found.err
    assert named in found.err
    assert "Traceback" not in found.err
    assert found.out == ""
    assert stand.query("SELECT (SELECT count(*) FROM batch) + (SELECT count(*) FROM conversation)") == [(0,)]


def test_what_is_not_there_is_exit_1_and_what_fits_twice_exit_2(stand: Stand) -> None:
    assert stand.aitask("show").code == 1
    assert stand.aitask("show", "abc").code == 1
    first = stand.submit("x", "qwen").batch_id
    twin = first[:8] + ("0" if first[-1] != "0" else "1") * 28
    twin = f"{twin[:8]}-{twin[9:13]}-4000-8000-{twin[24:]}"
    stand.query("INSERT INTO batch SELECT %s, conversation_id, prompt FROM batch", twin)
    twice = stand.aitask("show", first[:8])
    assert twice.code == 2
    assert "more than one" in twice.err


def test_without_postgresql_nothing_is_submitted_and_the_line_names_the_remedy(stand: Stand) -> None:
    found = stand.aitask(*ASK, "qwen", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert found.code == 69
    assert "doctor" in found.err
    assert "hunter2" not in found.err + found.out


def test_without_tables_the_line_names_db_init_which_mends_it(stand: Stand) -> None:
    stand.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    found = stand.aitask(*ASK, "qwen", "-d")
    assert found.code == 69
    assert "aitask db init" in found.err
    assert stand.aitask("db", "current").code == 1
    assert stand.aitask("db", "init").code == 0
    assert stand.aitask("db", "init").code == 0
    assert stand.aitask("db", "current").out.strip() == HEAD
    assert stand.aitask(*ASK, "qwen", "-d").code == 0
    assert stand.aitask("db", "reset", "--yes").code == 0
    assert stand.query("SELECT count(*) FROM batch") == [(0,)]


def test_without_redis_ask_warns_and_its_answers_come_by_way_of_the_database(stand: Stand) -> None:
    stand.start_worker(REDIS_URL="redis://127.0.0.1:1/0")
    found = stand.aitask(*ASK, "qwen", REDIS_URL="redis://127.0.0.1:1/0")
    assert found.code == 0, found.err
    assert "Redis is not available" in found.err


def test_text_with_markup_and_terminal_codes_is_shown_safely(stand: Stand) -> None:
    stand.start_worker()
    found = stand.aitask(*ASK, "qwen+nasty")
    assert found.code == 0
    assert "[bold]not bold[/bold]" in found.out
    assert not {"\x1b", "\x07", "\u202e"} & set(found.out + found.err)
    said = stand.aitask(*ASK, "qwen+nasty", "--json")
    assert "\x1b" not in said.out
    assert json.loads(said.out)["batch"]["tasks"][0]["response_text"].startswith(NASTY[:20])


def test_a_reader_that_goes_away_is_no_error(stand: Stand) -> None:
    stand.submit("hello", "qwen")
    # The reader closes its end before the command has written anything.
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} ls | (exec 0<&-; wait); echo ${{PIPESTATUS[0]}}"],
        env=stand.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "141"


def test_doctor_names_what_is_missing_and_never_a_key(stand: Stand) -> None:
    found = stand.aitask("doctor", GEMINI_API_KEY="sk-hunter2", GEMINI_SERVICE_URL="http://127.0.0.1:1")
    assert found.code == 0
    assert "no worker serves this family" in found.out
    assert "GEMINI_SERVICE_URL" in found.out
    assert "sk-hunter2" not in found.out + found.err
    broken = stand.aitask("doctor", "--json", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert broken.code == 1
    assert "hunter2" not in broken.out
    assert {check["level"] for check in json.loads(broken.out)["checks"]} >= {"failure"}


def test_a_cut_answer_is_called_cut_wherever_it_is_shown(stand: Stand) -> None:
    stand.start_worker()
    alone = stand.aitask("ask", "hello", "-m", "qwen+length")
    assert (alone.code, alone.out) == (0, "Hello wor\n"), "in a pipe the answer is the answer alone"
    assert "cut: the limit of tokens was reached" in alone.err
    several = stand.aitask("ask", "hello", "-m", "qwen+length,gemini")
    assert "## qwen+length (cut: the limit of tokens was reached)" in several.out
    assert [task["cut"] for task in json.loads(stand.aitask("show", "last", "--json").out)["batch"]["tasks"]] == [
        True,
        False,
    ]
