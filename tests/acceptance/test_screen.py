"""The screen as people have it: low, of another encoding, closed; and what hostile text may do to it."""

from __future__ import annotations

import os
import subprocess

import pytest

from shared.domain import TaskStatus
from tests.acceptance.test_local import Terminal
from tests.stand import COMMAND, Stand


@pytest.mark.parametrize("lines", [6, 3, 1])
def test_a_terminal_of_few_lines_shows_what_fits(stand: Stand, lines: int) -> None:
    stand.start_worker()
    terminal = Terminal("ask", "hi", "-m", "gemini,qwen+latency=0.5", env=stand.env, lines=lines)
    terminal.read_until("running|answered|waiting")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.seen


def test_a_terminal_of_another_encoding_gets_a_substitute_for_what_it_lacks(stand: Stand) -> None:
    made = answered(stand, "\u4f60\u597d, caf\u00e9")
    terminal = Terminal("show", made, env={**stand.env, "PYTHONIOENCODING": "latin-1"})
    assert terminal.end() == 0
    assert "??, caf" in terminal.seen


def test_a_closed_standard_output_is_said_in_a_line_and_no_server_gets_its_number(stand: Stand) -> None:
    command = f"exec {COMMAND} ask hi -m qwen -d >&-"
    done = subprocess.run(
        ["sh", "-c", command], env=stand.env, cwd=stand.home, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "standard output is closed" in done.stderr
    assert stand.query("SELECT count(*) FROM batch") == [(1,)]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_behind_standard_output_is_said_in_a_line(stand: Stand) -> None:
    command = f"exec {COMMAND} simulator --fault list > /dev/full"
    done = subprocess.run(["sh", "-c", command], env=stand.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "can't write to standard output" in done.stderr


def test_text_that_would_turn_the_screen_around_is_shown_as_escapes_in_every_view(stand: Stand) -> None:
    made = answered(stand, "pay \u202eelpoep &#x202E;x \u2066y\x9b31m")
    for arguments in (["show", made], ["show", made, "--raw"], ["show", made, "--json"], ["ls"], ["ls", "--json"]):
        terminal = Terminal(*arguments, env=stand.env)
        assert terminal.end() == 0
        assert not {"\u202e", "\u2066", "\x9b"} & set(terminal.seen), arguments
        assert "\\u202e" in terminal.seen


def answered(stand: Stand, text: str) -> str:
    """A batch whose prompt and answer are this text."""
    made = stand.submit(text, "qwen").batch_id
    stand.query(
        "UPDATE task SET status = %s, attempt = 1, response_text = %s, finished_at = now() WHERE batch_id = %s",
        int(TaskStatus.SUCCESS), text, made,
    )  # fmt: skip
    return made


def test_a_pause_has_a_bound(stand: Stand) -> None:
    for given in ("31d", "9" * 400):
        refused = stand.aitask("queue", "pause", "qwen", "--for", given)
        assert (refused.code, "30d" in refused.err) == (2, True)


def test_an_open_and_silent_standard_input_is_said_to_be_waited_for(stand: Stand) -> None:
    asking = subprocess.Popen(
        [str(COMMAND), "ask", "hi", "-m", "qwen", "-d"], env=stand.env, cwd=stand.home,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert asking.stdin is not None
    assert asking.stderr is not None
    assert "waiting for the prompt on standard input" in asking.stderr.readline()
    out, _ = asking.communicate("the text\n", timeout=60)
    assert asking.returncode == 0
    assert stand.batch(out.strip()).prompt == "the text\n\nhi"
