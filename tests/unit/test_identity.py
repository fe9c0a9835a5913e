"""Which process it is, where servers lie, and why one did not start."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from aitask_cli import checks
from aitask_cli.checks import Level
from aitask_cli.local.identity import Process, identify, listener, lives, living, send
from aitask_cli.local.paths import LocalPaths, private_directory, socket_directory
from aitask_cli.local.postgres import _give, _shared_memory
from aitask_cli.local.process import last_words, telling_line
from aitask_cli.local.root_cluster import abandoned, note_owner
from shared.errors import Unavailable


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait(30)


def test_a_pid_that_was_given_out_again_is_not_believed_and_not_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    real = identify(sleeper.pid)
    assert real is not None
    assert living(real.noted()) == real
    earlier = Process(real.pid, "1", real.uid)
    assert living(earlier.noted()) is None
    assert living({"pid": sleeper.pid}) is None
    assert not send(earlier, signal.SIGKILL)
    assert not send(Process(real.pid, real.started, real.uid + 1), signal.SIGKILL)
    assert sleeper.poll() is None
    assert send(real, signal.SIGKILL)
    sleeper.wait(30)
    assert not lives(real)
    assert not send(real, signal.SIGKILL)


@pytest.mark.parametrize("noted", [{}, {"pid": "1"}, {"pid": -1}, {"pid": 0, "started": "1", "uid": 0}, {"pid": 2**40}])
def test_a_file_that_says_nonsense_names_no_process(noted: dict[str, object]) -> None:
    assert living(noted) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who listens")
def test_who_listens_on_a_socket_is_asked_of_the_kernel(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        assert listener(tmp_path / "s") is None
        listening.listen()
        assert listener(tmp_path / "s") == (os.getpid(), os.geteuid())


def test_missing_parents_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "a" / "b" / "demo")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/demo")]
    assert modes == [0o700] * 3


def test_a_directory_that_is_not_private_says_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(Unavailable, match="chmod 700"):
        private_directory(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(Unavailable, match="AITASK_DATA_DIR"):
        private_directory(tmp_path / "link")


def test_sockets_go_elsewhere_when_the_path_is_long_or_has_a_comma() -> None:
    assert socket_directory(Path("/home/me/run")) == Path("/home/me/run")
    for path in ("/home/me,you/run", "/home/" + "x" * 90):
        assert socket_directory(Path(path)).parent == Path("/tmp")


def test_a_link_is_not_given_to_an_account(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        _give(tmp_path / "link", (54321, 54321))
    assert (tmp_path / "target").stat().st_uid == os.geteuid()


def test_the_fatal_line_is_quoted_and_not_what_came_after_or_before(tmp_path: Path) -> None:
    said = (
        "LOG:  starting PostgreSQL\n"
        'FATAL:  could not resize shared memory segment "/PostgreSQL.1" to 1048576 bytes: No space left on device\n'
        "PANIC:  cannot abort transaction 1, it was already committed\n"
        "LOG:  database system is shut down\nchild process exited with exit code 1\n"
    )
    assert "could not resize" in telling_line(said)
    log = tmp_path / "log"
    log.write_text("FATAL:  of yesterday\n")
    since = log.stat().st_size
    log.write_text(log.read_text() + "no such option\n")
    assert last_words(log, since=since) == "no such option"
    assert last_words(tmp_path / "none") == telling_line("\n") == "it said nothing"


@pytest.mark.parametrize(("free", "options"), [(64 << 20, ()), (64 << 10, ("-c", "dynamic_shared_memory_type=mmap"))])
def test_hardly_any_shared_memory_is_not_counted_on(
    free: int, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    assert _shared_memory() == options
    monkeypatch.undo()
    assert _shared_memory("/nowhere/shm") == ()


def test_a_cluster_whose_data_directory_is_gone_is_named(tmp_path: Path) -> None:
    for name in ("kept", "gone"):
        (tmp_path / "base" / name).mkdir(parents=True)
        note_owner(tmp_path / "base" / name, tmp_path / f"data-{name}")
    (tmp_path / "data-kept" / "state").mkdir(parents=True)
    assert list(abandoned(tmp_path / "base")) == [(tmp_path / "base" / "gone", tmp_path / "data-gone")]


def test_doctor_names_what_root_no_longer_needs_and_how_to_remove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "base" / "gone"
    (home / "data").mkdir(parents=True)
    note_owner(home, tmp_path / "data-gone")
    monkeypatch.setattr("aitask_cli.local.postgres.ROOT_BASE", tmp_path / "base")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (found,) = checks._abandoned()
    assert (found.level, f"{home} holds the database of {tmp_path}/data-gone" in found.found) == (Level.WARNING, True)
    subprocess.run(found.remedy.partition(": ")[2], shell=True, check=True)
    assert list(checks._abandoned()) == []
    assert list((tmp_path / "base").iterdir()) == []


def test_a_taken_socket_directory_is_passed_by_and_the_choice_is_kept(tmp_path: Path) -> None:
    base = tmp_path / ("d" * 60) / ("e" * 60)
    taken = socket_directory(base / "run")
    taken.write_text("")
    try:
        chosen = LocalPaths.create(base).sockets
        assert chosen != taken
        assert LocalPaths.create(base).sockets == LocalPaths(base).sockets == chosen
        # After a restart of the machine it is gone, or somebody else's.
        chosen.rmdir()
        assert LocalPaths.create(base).sockets == chosen
        chosen.rmdir()
        chosen.symlink_to(tmp_path)
        again = LocalPaths.create(base).sockets
        assert again not in (taken, chosen)
        chosen.unlink()
        again.rmdir()
    finally:
        taken.unlink()
