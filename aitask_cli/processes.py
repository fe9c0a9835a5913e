"""Several worker processes under one: started alike, started again when one dies, stopped together."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from types import FrameType

from aitask_cli.local.process import this_program

log = logging.getLogger("aitask.processes")

# honcho kills 5 s after SIGTERM; each worker drains for 4 s at most.
STOP_S = 4.5
AGAIN_S = 1.0
_LOOK_S = 0.2


def run_many(arguments: Sequence[str], number: int, *, env: dict[str, str]) -> int:
    """Run `aitask` with these arguments in so many processes until SIGTERM or SIGINT. Returns the exit code.

    A process that ends with a usage error or an unavailable server ends them all: another start would end alike.
    """
    stop = threading.Event()

    def asked(sign: int, frame: FrameType | None) -> None:
        stop.set()

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, asked)
    running = [_start(arguments, env) for _ in range(number)]
    code = 0
    while not stop.wait(_LOOK_S):
        for place, process in enumerate(running):
            ended = process.poll()
            if ended is None:
                continue
            if 0 < ended < 128:
                code = ended
                stop.set()
                break
            log.warning("the worker process %d ended with %d and is started again", process.pid, ended)
            time.sleep(AGAIN_S)
            running[place] = _start(arguments, env)
    _end(running)
    return code


def _start(arguments: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(this_program(*arguments), stdin=subprocess.DEVNULL, env=env)


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
