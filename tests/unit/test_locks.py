"""File locks: one holder, inherited, given up with the last descriptor; a look takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from aitask_cli.local import locks


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not locks.held(path)
    mine = locks.take(path)
    assert mine is not None
    assert locks.held(path)
    assert locks.take(path) is None
    os.close(mine)
    assert not locks.held(path)


def test_a_child_has_the_lock_that_it_was_handed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    mine = locks.take(path)
    assert mine is not None
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(mine,)
    )
    os.close(mine)
    assert locks.held(path)
    child.communicate(b"")
    assert not locks.held(path)


def test_looking_at_a_lock_never_keeps_anybody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            locks.held(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(3000):
            taken = locks.take(path)
            assert taken is not None
            os.close(taken)
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
