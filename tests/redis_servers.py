"""Valkeys of a test's own on loopback: single ones, behind Sentinel, and as a Cluster."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from aitask_cli.local.valkey import wheel_binary
from tests.stand import wait_for

SLOTS = 16384


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass
class Valkeys:
    """Processes in a directory of their own, by port."""

    directory: Path
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *arguments: str, port: int | None = None) -> int:
        """Start a server and wait until it answers. Returns its port."""
        port = port or free_port()
        home = self.directory / f"v{port}"
        home.mkdir(exist_ok=True)
        self.running[port] = subprocess.Popen(
            [str(wheel_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home),
             "--repl-diskless-sync-delay", "0", *arguments],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: self._answers(port), what=f"Valkey on {port}")
        return port

    def sentinel(self, primary: int, name: str = "main") -> int:
        """Start one Sentinel that promotes by itself."""
        port = free_port()
        conf = self.directory / f"sentinel-{port}.conf"
        conf.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self.directory}\nsentinel monitor {name} 127.0.0.1 {primary} 1\n"
            f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n"
        )
        self.running[port] = subprocess.Popen(
            [str(wheel_binary()), str(conf), "--sentinel"], stdout=subprocess.DEVNULL, cwd=self.directory
        )
        wait_for(lambda: self._answers(port), what="Sentinel")
        wait_for(lambda: self.at(port).sentinel_slaves(name), what="the replica's being known")
        return port

    def cluster(self, nodes: int = 3) -> list[int]:
        """Make a Cluster of primaries, the slots in equal ranges. Returns the nodes' ports."""
        ports = []
        for _ in range(nodes):
            bus = free_port()
            more = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "5000")
            ports.append(self.start(*more))
            self.at(ports[0]).execute_command("CLUSTER MEET", "127.0.0.1", ports[-1], bus)
        for number, port in enumerate(ports):
            first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            self.at(port).execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for port in ports:
            wait_for(lambda port=port: self._knows(port, nodes), what="the Cluster")  # type: ignore[misc]
        return ports

    def move_slot(self, slot: int, source: int, target: int) -> None:
        """Move a slot with its keys, as redis-cli --cluster reshard does."""
        ids = {port: self.at(port).execute_command("CLUSTER MYID") for port in (source, target)}
        self.at(target).execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        self.at(source).execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        while keys := self.at(source).execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            self.at(source).execute_command("MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)
        for port in (target, source):
            self.at(port).execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])

    def _knows(self, port: int, nodes: int) -> bool:
        said = self.at(port).execute_command("CLUSTER INFO")
        text = said.decode() if isinstance(said, bytes) else str(said)
        known = self.at(port).execute_command("CLUSTER SLOTS")
        return ("cluster_state:ok" in text or "'cluster_state': 'ok'" in text) and len(known) == nodes

    def at(self, port: int) -> Any:
        """A client of one server."""
        return redis.Redis(port=port, socket_timeout=5)

    def _answers(self, port: int) -> bool:
        try:
            return bool(self.at(port).ping())
        except redis.RedisError:
            return False

    def kill(self, port: int) -> None:
        process = self.running.pop(port)
        process.kill()
        process.wait(10)

    def stop(self) -> None:
        for port in list(self.running):
            self.kill(port)


@contextlib.contextmanager
def valkeys(directory: Path) -> Iterator[Valkeys]:
    """Servers that end with the test."""
    made = Valkeys(directory)
    try:
        yield made
    finally:
        made.stop()
