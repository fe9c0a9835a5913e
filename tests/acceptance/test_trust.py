"""Standing in a hostile directory costs nothing: no code of it runs, no key leaves. With the installed command."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aitask_cli.local import process
from tests.acceptance.test_local import Local
from tests.stand import COMMAND, RunningSimulator, Stand, aitask, wait_for

ROOT = Path(__file__).parents[2]
NOBODY = 65534
KEY = "sk-0123456789-very-secret"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another's file")


@pytest.fixture
def local(data_dir: Path) -> Iterator[Local]:
    made = Local(data_dir)
    yield made
    for more in ((), ("--demo",)):
        made.aitask("down", *more)
    assert made.processes() == []


class Listener:
    """An endpoint that is not the user's, with a log of every header it is sent."""

    def __init__(self) -> None:
        seen = self.seen = list[str]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(str(self.headers))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"data": []}')

            do_POST = do_GET

            def log_message(self, *said: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A cloned repository full of modules that leave a mark when they are imported."""
    directory = tmp_path / "clone"
    directory.mkdir()
    mark = f"open({str(tmp_path / 'MARK')!r}, 'a').write(__name__)\n"
    for package in ("aitask_cli", "shared", "workers"):
        (directory / package).mkdir()
        for module in ("__init__", "__main__", "settings"):
            (directory / package / f"{module}.py").write_text(mark)
    for module in ("redis", "sitecustomize", "usercustomize", "click", "json", "psycopg2"):
        (directory / f"{module}.py").write_text(mark)
    return directory


def marks(hostile: Path) -> str:
    mark = hostile.parent / "MARK"
    return mark.read_text() if mark.exists() else ""


def outside(home: Path, **more: str) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **more}


def test_a_cloned_repository_that_says_where_data_lie_is_refused_with_the_command_to_run(
    hostile: Path, tmp_path: Path
) -> None:
    (hostile / ".env").write_text('AITASK_DATA_DIR="."\n')
    env = outside(tmp_path / "home", GEMINI_API_KEY=KEY)
    for command in (("ask", "hello", "-m", "gemini"), ("ls",), ("ls", "--demo"), ("doctor",), ("worker",)):
        found = aitask(*command, env=env, cwd=hostile)
        assert (found.code, found.out) == (2, ""), found.err
        [line] = found.err.splitlines()
        assert "AITASK_DATA_DIR" in line
        assert "aitask trust" in line
    assert marks(hostile) == ""
    assert not (hostile / "state").exists()


def test_a_data_directory_that_came_along_is_not_started_from(hostile: Path, tmp_path: Path) -> None:
    data = hostile / "data" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    (data / "postgresql.conf").write_text(f"archive_mode = on\narchive_command = 'touch {tmp_path / 'MARK'}'\n")
    (hostile / ".env").write_text('AITASK_DATA_DIR="./data"\n')
    found = aitask("ls", env=outside(tmp_path / "home"), cwd=hostile)
    assert found.code == 2
    assert marks(hostile) == ""
    assert sorted(path.name for path in (hostile / "data").iterdir()) == ["postgres"]


def test_nothing_but_settings_of_a_directorys_file_reaches_a_child(local: Local, hostile: Path) -> None:
    lines = f'PYTHONPATH="{hostile}"\nLD_PRELOAD="{hostile}/evil.so"\nSSL_CERT_FILE="/x"\nAITASK_IDLE_EXIT_S="50"\n'
    (hostile / ".env").write_text(lines)
    found = aitask("ask", "--demo", "hello", "-m", "qwen", env=local.env, cwd=hostile)
    assert found.code == 0, found.err
    assert "PYTHONPATH, SSL_CERT_FILE" in found.err
    pids = [int(line.split()[0]) for line in local.processes()]
    environs = [Path(f"/proc/{pid}/environ").read_bytes() for pid in pids]
    assert len(environs) >= 4
    assert not [one for one in environs if b"LD_PRELOAD" in one or b"PYTHONPATH" in one or b"SSL_CERT" in one]
    assert any(b"AITASK_IDLE_EXIT_S=50" in one for one in environs)
    assert marks(hostile) == ""
    again = aitask("ls", "--demo", env=local.env, cwd=hostile)
    assert "PYTHONPATH" not in again.err


def test_the_processes_of_a_worker_import_nothing_from_where_it_is_started(stand: Stand, hostile: Path) -> None:
    worker = subprocess.Popen(
        [str(COMMAND), "worker", "--processes", "2"], env=stand.env, cwd=hostile, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for(lambda: stand.query("SELECT count(*) FROM worker") == [(2,)], what="both processes")
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert marks(hostile) == ""


def test_a_python_without_the_option_imports_nothing_from_the_directory_either(hostile: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-c", process.WITHOUT_HERE)
    found = aitask("--version", env=outside(tmp_path / "home"), cwd=hostile, command=command)
    assert (found.code, found.out.startswith("aitask ")) == (0, True), found.err
    assert marks(hostile) == ""


@needs_root
def test_root_in_a_directory_that_all_can_write_takes_nobodys_word(hostile: Path, tmp_path: Path) -> None:
    hostile.chmod(0o1777)
    file = hostile / ".env"
    file.write_text('LLM_SERVICE_URL="http://127.0.0.1:1"\n')
    os.chown(file, NOBODY, NOBODY)
    env = outside(tmp_path / "home")
    found = aitask("ls", env=env, cwd=hostile)
    assert found.code == 2
    assert "belongs to nobody" in found.err
    assert f"aitask trust {file}" in found.err
    assert marks(hostile) == ""
    assert aitask("trust", env=env, cwd=hostile).code == 0
    assert aitask("models", env=env, cwd=hostile).code == 0
    file.write_text('LLM_SERVICE_URL="http://127.0.0.1:2"\n')
    assert aitask("models", env=env, cwd=hostile).code == 2


def test_a_trusted_file_says_where_data_lie_until_the_line_changes(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / ".env").write_text('AITASK_GATEWAY_HOST="0.0.0.0"\n')
    env = outside(tmp_path / "home")
    assert aitask("models", env=env, cwd=here).code == 2
    assert aitask("models", env={**env, "AITASK_TRUST": "."}, cwd=here).code == 0
    trusted = aitask("trust", env=env, cwd=here)
    assert (trusted.code, "AITASK_GATEWAY_HOST" in trusted.err) == (0, True)
    assert aitask("models", env=env, cwd=here).code == 0
    (here / ".env").write_text('AITASK_GATEWAY_HOST="::"\n')
    assert aitask("models", env=env, cwd=here).code == 2
    assert aitask("trust", str(here), env=env, cwd=tmp_path).code == 0
    assert aitask("trust", "--forget", env=env, cwd=here).code == 0
    assert aitask("models", env=env, cwd=here).code == 2
    assert aitask("trust", env=env, cwd=tmp_path).code == 1


def test_servers_and_endpoints_of_a_file_are_said_the_first_time_and_again_when_they_change(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    env = outside(tmp_path / "home")
    (here / ".env").write_text('LLM_SERVICE_URL="http://me:hunter2@127.0.0.1:1/v1"\n')
    first, second = (aitask("models", env=env, cwd=here) for _ in range(2))
    assert f"{here}/.env names LLM_SERVICE_URL http://127.0.0.1:1" in first.err
    assert "names LLM_SERVICE_URL" not in second.err
    assert "hunter2" not in first.err
    (here / ".env").write_text('LLM_SERVICE_URL="http://127.0.0.1:2"\n')
    assert "127.0.0.1:2" in aitask("models", env=env, cwd=here).err
    said = json.loads(aitask("doctor", "--json", env=env, cwd=here).out)["checks"][0]
    assert (said["name"], f"{here}/.env" in said["found"]) == ("settings", True)


def test_the_users_own_file_is_read_after_the_directorys_and_steers_libraries(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    env = outside(home)
    here.mkdir()
    own = home / ".config" / "aitask"
    own.mkdir(parents=True)
    (own / ".env").write_text('LLM_DEFAULT_MODEL="own"\nGEMINI_API_KEY="k"\nAITASK_GATEWAY_HOST="0.0.0.0"\n')
    shutil.copy(ROOT / ".env.example", here / ".env")
    with (here / ".env").open("a") as file:
        file.write('LLM_DEFAULT_MODEL="theirs"\nLLM_SERVICE_URL="http://127.0.0.1:1"\nGEMINI_SERVICE_URL=""\n')
    found = json.loads(aitask("models", "--json", env=env, cwd=here).out)["families"]
    qwen = next(family for family in found if family["name"] == "qwen")
    assert qwen["default_model"] == "theirs"
    env["GEMINI_SERVICE_URL"] = "http://127.0.0.1:1"
    checks = json.loads(aitask("doctor", "--json", env=env, cwd=here).out)["checks"]
    assert f"read from {here}/.env and {own}/.env" in checks[0]["found"]
    # The blank line of the copied example does not hide the key of the user's own file.
    assert "can't be reached" in next(check["found"] for check in checks if check["name"] == "endpoint gemini")


def test_a_key_of_the_shell_goes_to_no_endpoint_of_the_directory(tmp_path: Path, listener: Listener) -> None:
    here = tmp_path / "here"
    here.mkdir()
    env = outside(tmp_path / "home", GEMINI_API_KEY=KEY, LLM_API_KEY=KEY, POSTGRES_PASSWORD=KEY)
    lines = f'GEMINI_SERVICE_URL="{listener.url}"\nLLM_SERVICE_URL="{listener.url}"\n'
    (here / ".env").write_text(lines)
    asked = aitask("ask", "hello", "-m", "gemini,qwen", env=env, cwd=here)
    assert asked.code == 2
    assert "GEMINI_API_KEY of the environment" in asked.err
    assert f"GEMINI_SERVICE_URL of {here}/.env" in asked.err
    for command in ("doctor", "models"):
        said = aitask(command, env=env, cwd=here)
        assert KEY not in said.out + said.err
    assert not [headers for headers in listener.seen if KEY in headers]
    (here / ".env").write_text('DB_HOST="127.0.0.2"\nREDIS_HOST="127.0.0.2"\n')
    refused = aitask("ls", env=env, cwd=here)
    assert refused.code == 2
    assert "POSTGRES_PASSWORD of the environment is not sent to DB_HOST of" in refused.err


@pytest.mark.parametrize("kind", ["directory", "fifo", "large", "utf-16", "latin-1"])
def test_an_odd_file_is_refused_by_name_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".env"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(100 << 20)
    else:
        path.write_bytes('DB_HOST="é"\n'.encode(kind))
    found = aitask("ls", env=outside(tmp_path / "home"), cwd=tmp_path, timeout_s=20)
    assert found.code == 2
    [line] = found.err.splitlines()
    assert str(path) in line


@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_the_documented_set_up_works_without_a_question(stand: Stand, upstream: RunningSimulator, umask: int) -> None:
    here = stand.home / "stack"
    here.mkdir()
    values = {**stand.variables, "GEMINI_API_KEY": "k-gemini", "AITASK_GATEWAY_PORT": "0"}
    before = os.umask(umask)
    try:
        lines = (ROOT / ".env.example").read_text().splitlines()
        edited = [f'{name}="{values[name]}"' if (name := line.partition("=")[0]) in values else line for line in lines]
        (here / ".env").write_text("\n".join(edited) + "\n")
        env = outside(stand.home, PATH=f"{COMMAND.parent}:{os.environ['PATH']}")
        assert aitask("db", "init", env=env, cwd=here).code == 0
        stack = subprocess.Popen(
            [str(COMMAND.with_name("honcho")), "-f", str(ROOT / "Procfile"), "start"], env=env, cwd=here,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    finally:
        os.umask(before)
    try:
        wait_for(lambda: stand.query("SELECT count(*) FROM worker") == [(3,)], what="three workers")
        asked = aitask("ask", "hello", "-m", "gemini,qwen,deepseek", env=env, cwd=here)
        assert asked.code == 0, asked.err
    finally:
        stack.terminate()
        said, _ = stack.communicate(timeout=60)
    assert "trust" not in said + asked.err


@needs_root
def test_a_user_whose_home_can_not_be_written_is_served_and_told_each_time() -> None:
    directory = Path(tempfile.mkdtemp(prefix="aitask-h-"))
    try:
        (directory / ".env").write_text('LLM_SERVICE_URL="http://127.0.0.1:1"\n')
        env = {"PATH": os.environ["PATH"], "HOME": "/proc", "LANG": "C.UTF-8"}
        said = [aitask("models", env=env, cwd=directory) for _ in range(2)]
        assert [(one.code, "names LLM_SERVICE_URL" in one.err) for one in said] == [(0, True)] * 2
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(directory)
