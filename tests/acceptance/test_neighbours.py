"""Other processes and users of the machine: none of theirs is ended, and none of them can stop us from starting."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aitask_cli.local.identity import identify
from aitask_cli.local.paths import LocalPaths, socket_directory
from tests.acceptance.over_http import Gateway, free_port
from tests.acceptance.test_local import ASK, Local
from tests.stand import COMMAND, Stand, aitask, altered, forget, wait_for

NOBODY = 65534


@pytest.fixture
def local(data_dir: Path) -> Iterator[Local]:
    made = Local(data_dir)
    yield made
    made.aitask("down", "--demo")
    assert made.processes() == []


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that aitask has not started."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "--background"])
    yield process
    process.kill()
    process.wait(30)


def test_down_ends_no_process_that_a_stale_file_names(local: Local, stranger: subprocess.Popen[bytes]) -> None:
    paths = LocalPaths.create(local.data_dir / "demo")
    now = identify(stranger.pid)
    assert now is not None
    stale = [
        {"pid": stranger.pid, "fingerprint": "x"},
        {**now.noted(), "started": "1"},
        {**now.noted(), "uid": now.uid + 1},
    ]
    for number, noted in enumerate(stale):
        for file in (paths.worker_file(None), paths.worker_file(f"{number:x}"), paths.simulator_file):
            file.write_text(json.dumps({**noted, "port": 9}))
        (paths.state / f"worker-leaving-{stranger.pid}.json").write_text(json.dumps(noted))
        found = local.aitask("down", "--demo")
        assert (found.code, "nothing was running" in found.err) == (0, True), found.err
        assert stranger.poll() is None
    assert paths.worker_files == []


def test_a_worker_is_replaced_and_nothing_else_that_its_file_names(
    local: Local, stranger: subprocess.Popen[bytes]
) -> None:
    assert local.aitask(*ASK, "-m", "qwen").code == 0
    assert local.aitask("down", "--demo").code == 0
    file = LocalPaths(local.data_dir / "demo").worker_file(None)
    file.write_text(json.dumps({"pid": stranger.pid, "fingerprint": "of other settings", "at": 0.0}))
    assert local.aitask(*ASK, "-m", "qwen").code == 0
    assert stranger.poll() is None
    assert json.loads(file.read_text())["pid"] != stranger.pid


def _squat(path: Path) -> None:
    """Take a name: as another user where we can be one, else by what is no directory."""
    if os.geteuid() != 0:
        path.write_text("")
        return
    subprocess.run(["mkdir", str(path)], user=NOBODY, extra_groups=[], check=True, cwd="/")
    assert path.stat().st_uid == NOBODY


def test_a_socket_directory_that_another_user_has_taken_is_passed_by(local: Local) -> None:
    deep = local.data_dir / ("d" * 60) / ("e" * 60)
    taken = socket_directory(deep / "demo" / "run")
    assert taken.parent == Path("/tmp")
    env = {"AITASK_DATA_DIR": str(deep)}
    _squat(taken)
    try:
        assert local.aitask(*ASK, "-m", "qwen", **env).code == 0
        chosen = LocalPaths(deep / "demo").sockets
        assert chosen != taken
        assert stat.S_IMODE(chosen.stat().st_mode) == 0o700
        assert (chosen / "valkey.sock").is_socket()
        # The next command finds the same servers.
        assert "starting" not in local.aitask(*ASK, "-m", "qwen", **env).err
    finally:
        assert local.aitask("down", "--demo", **env).code == 0
        taken.rmdir() if taken.is_dir() else taken.unlink()
        for left in LocalPaths(deep / "demo").sockets.glob("*"):
            left.unlink()
        LocalPaths(deep / "demo").sockets.rmdir()


def test_a_first_demo_without_a_umask_leaves_nothing_open(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            [str(COMMAND), *ASK, "-m", "qwen"], env=env, cwd=home, umask=0, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = [path for path in home.rglob("*") if path.is_dir() or path.is_file()]
        assert len(made) > 10
        # Whatever is open itself lies in what nobody else can enter.
        open_to_others = [path for path in made if path.parent == home and path.stat().st_mode & 0o077]
        assert open_to_others == []
        directories = [path for path in made if path.is_dir() and path.stat().st_mode & 0o022]
        assert directories == []
    finally:
        aitask("down", "--demo", env=env, cwd=home)
        forget(home)


def test_readiness_on_the_local_default_needs_no_worker_for_a_submission_starts_one(local: Local) -> None:
    port, log = free_port(), local.data_dir / "gateway.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(COMMAND), "gateway", "--demo", "--port", str(port)], env=local.env, cwd=local.data_dir,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    gateway = Gateway(process, port, log)
    try:
        wait_for(lambda: process.poll() is not None or _answers(gateway), what="the gateway")
        assert json.loads(local.aitask("ps", "--demo", "--json").out)["workers"] == []
        status, said = gateway.ask("GET", "/ready")
        assert (status, said["ready"], said["checks"]["workers"]["ok"]) == (200, True, True)
        made = gateway.ask("POST", "/v1/chat/completions", {"prompt": "hello", "model": "qwen"})[1]
        path = f"/v1/batches/{made['batch_id']}"
        wait_for(lambda: gateway.ask("GET", path)[1]["status"] == "COMPLETED", what="the answer")
    finally:
        gateway.stop()


def test_a_question_that_hangs_does_not_hold_up_the_gateway_s_end(stand: Stand) -> None:
    port, log = free_port(), stand.home / "gateway.log"
    hangs = stand.home / "hangs"
    change = (
        "import pathlib, signal, threading\nfrom aitask_cli import main\nfrom shared.store import read\n"
        "signal.signal(signal.SIGTERM, main._terminate)\n"
        f"read.batch = lambda *_: (pathlib.Path({str(hangs)!r}).touch(), threading.Event().wait())"
    )
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*altered(stand.home, change), "gateway", "--port", str(port)], env=stand.env, cwd=stand.home,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    gateway = Gateway(process, port, log)
    try:
        wait_for(lambda: process.poll() is not None or _answers(gateway), what="the gateway")
        code = f"import urllib.request as u; u.urlopen('{gateway.url}/v1/batches/00000000-0000-4000-8000-000000000000')"
        asking = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        wait_for(hangs.exists, what="the question")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        asking.wait(30)
    finally:
        process.kill()
        process.wait(30)


def _answers(gateway: Gateway) -> bool:
    try:
        return gateway.ask("GET", "/health")[0] == 200
    except OSError:
        return False
