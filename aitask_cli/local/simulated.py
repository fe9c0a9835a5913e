"""The demo's upstream as a background process: the simulator on a loopback port."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from aitask_cli.local.identity import Process, lives, living, send
from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.process import start_and_wait, start_detached, this_program, wait_until

_START_S = 30.0


@dataclass(frozen=True, slots=True)
class _Running:
    process: Process
    port: int


class Simulated:
    """One simulator for a demo data directory."""

    name = "the simulator"

    def __init__(self, paths: LocalPaths, env: dict[str, str]) -> None:
        self.env = env
        self.file = paths.simulator_file
        self.cwd = paths.base
        self.log = paths.log / "simulator.log"

    @property
    def url(self) -> str:
        """The endpoint. Its port is known only once it runs."""
        running = self._running()
        return f"http://127.0.0.1:{running.port}" if running else "http://127.0.0.1:9"

    def _running(self) -> _Running | None:
        """What the file says, if what answers on that port says the same."""
        try:
            noted = json.loads(self.file.read_text())
            connection = HTTPConnection("127.0.0.1", noted["port"], timeout=2)
            with contextlib.closing(connection):
                connection.request("GET", "/health")
                said = json.loads(connection.getresponse().read())
            process = living(noted)
            return _Running(process, noted["port"]) if process and said.get("pid") == process.pid else None
        except (OSError, HTTPException, ValueError, KeyError, AttributeError):
            return None

    def alive(self) -> bool:
        """Tell whether it answers."""
        return self._running() is not None

    def start(self) -> None:
        """Start it on a port of the system's choice."""
        self.file.unlink(missing_ok=True)
        argv = this_program("simulator", "--port", "0", "--ready-file", str(self.file))
        start_and_wait(
            lambda: start_detached(argv, log=self.log, cwd=self.cwd, env={**self.env, "PYTHONUNBUFFERED": "1"}),
            self.alive,
            name=self.name,
            log=self.log,
            timeout_s=_START_S,
        )

    def stop(self) -> None:
        """Stop it, open answers and all."""
        running = self._running()
        if running is None:
            return
        send(running.process, signal.SIGTERM)
        wait_until(lambda: not lives(running.process), timeout_s=10.0)
        self.file.unlink(missing_ok=True)
