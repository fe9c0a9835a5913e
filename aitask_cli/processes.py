"""Processes of this command line under one that stays: started again when one ends, stopped together.

Under honcho any process that exits ends the whole stack, so what its Procfile starts are these, and they stay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

from aitask_cli.exit_codes import Exit
from aitask_cli.local.process import this_program

log = logging.getLogger("aitask.processes")

# honcho kills 5 s after SIGTERM; each worker drains for 4 s at most.
STOP_S = 4.5
# After so many ends by error within so long it stays down: what ends again and again needs a person.
MOST_ENDS = 5
WITHIN_S = 600.0
_FIRST_AGAIN_S = 1.0
_MOST_AGAIN_S = 60.0
_GROWTH = 4.0
_LOOK_S = 0.2


def again_after(ends: Sequence[float], now: float) -> float | None:
    """Return how long to wait before another start, in seconds, or None when it is to stay down.

    Args:
        ends: when it ended by error, the last one included (monotonic, as `now`).
    """
    recent = sum(1 for at in ends if now - at <= WITHIN_S)
    if recent >= MOST_ENDS:
        return None
    return min(_MOST_AGAIN_S, _FIRST_AGAIN_S * _GROWTH ** max(0, recent - 1))


@dataclass(slots=True)
class Place:
    """One process and what became of its forerunners."""

    process: subprocess.Popen[bytes] | None = None
    ends: list[float] = field(default_factory=list)
    start_at: float = 0.0
    down: bool = False
    starts: int = 0


class Supervisor:
    """Keeps processes with the same arguments running.

    Args:
        arguments: of `aitask`, for each process.
        env: of each process.
        number: of processes.
        stays_down: told the exit code once one is given up, on this thread; then called again now and then with None.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        number: int,
        *,
        env: dict[str, str],
        stays_down: Callable[[int | None], None] = lambda code: None,
    ) -> None:
        self._arguments = arguments
        self._env = env
        self._places = [Place() for _ in range(number)]
        self._stays_down = stays_down
        self._stop = threading.Event()
        # Whoever is orphaned reads the end of this pipe: a kill -9 of this process leaves nobody behind.
        self._lifeline, self._held = os.pipe()
        self._parent = os.getppid()

    def run(self) -> int:
        """Keep them running until SIGTERM, SIGINT or SIGHUP. Returns the exit code.

        A first start that ends in a usage error, or for want of a server, ends them all: another would end alike.
        """
        _on_signals(self._asked)
        code = 0
        try:
            while not self._stop.is_set():
                code = next((ended for place in self._places if (ended := self._look(place))), 0)
                if code:
                    break
                if any(place.down for place in self._places):
                    self._stays_down(None)
                if "HONCHO_PROCESS_NAME" in os.environ and os.getppid() != self._parent:
                    # honcho is gone, with the terminal that it ran in.
                    break
                self._stop.wait(_LOOK_S)
        finally:
            _end([place.process for place in self._places if place.process is not None])
        return code

    def _asked(self, sign: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _look(self, place: Place) -> int:
        """See to one place. Returns the exit code that ends them all, or 0."""
        if place.process is None:
            if not place.down and time.monotonic() >= place.start_at and not self._stop.is_set():
                place.process = self._start()
                place.starts += 1
            return 0
        ended = place.process.poll()
        if ended is None:
            return 0
        if place.starts == 1 and ended in (Exit.USAGE, Exit.UNAVAILABLE):
            return ended
        self._note_end(place, place.process.pid, ended)
        place.process = None
        return 0

    def _note_end(self, place: Place, pid: int, ended: int) -> None:
        now = time.monotonic()
        if ended == 0:
            # Somebody stopped it in good order; that is no failure.
            place.start_at = now + _FIRST_AGAIN_S
            log.info("the process %d was stopped and is started again", pid)
            return
        place.ends.append(now)
        del place.ends[:-MOST_ENDS]
        wait_s = again_after(place.ends, now)
        if wait_s is None:
            place.down = True
            minutes = int(WITHIN_S / 60)
            log.error("the process %d %s: %d ends in %d min, it stays down", pid, how(ended), MOST_ENDS, minutes)
            self._stays_down(ended)
            return
        place.start_at = now + wait_s
        log.warning("the process %d %s and is started again in %.0f s", pid, how(ended), wait_s)

    def _start(self) -> subprocess.Popen[bytes]:
        command = this_program(*self._arguments, "--lifeline", str(self._lifeline))
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self._env, pass_fds=(self._lifeline,))


def how(ended: int) -> str:
    """Say how a process ended."""
    if ended >= 0:
        return f"ended with exit code {ended}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-ended).name}"
    return f"was ended by signal {-ended}"


def hold_lifeline(fd: int | None) -> None:
    """End this process in good order when the one that supervises it is gone."""
    if fd is None:
        return
    # Nothing that this process starts needs it.
    os.set_inheritable(fd, False)

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(fd, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="aitask-lifeline", daemon=True).start()


def end_on_hangup() -> None:
    """Have SIGHUP, which comes when the terminal closes, do what SIGTERM does; one that nohup has ignored stays so."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda sign, frame: os.kill(os.getpid(), signal.SIGTERM))


def stay_idle(why: str, say: Callable[[str], None]) -> None:
    """Say why there is nothing to do, and wait to be told to stop: an exit would end the whole stack."""
    stop = threading.Event()
    _on_signals(lambda sign, frame: stop.set())
    say(why)
    stop.wait()


def _on_signals(do: Callable[[int, FrameType | None], None]) -> None:
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if sign is not signal.SIGHUP or signal.getsignal(sign) is not signal.SIG_IGN:
            signal.signal(sign, do)


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
