"""Where the local default keeps things, all of it private to the user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aitask_cli.local import locks
from shared.errors import Unavailable

# sun_path holds 108 bytes on Linux and 104 on macOS, the final NUL included.
MAX_SOCKET_PATH = 100
LONGEST_SOCKET = ".s.PGSQL.5432.lock"


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, and those of its parents that are missing.

    Raises:
        Unavailable: it can't be made, or what is there is another's or open to others.
    """
    try:
        for missing in reversed([parent for parent in path.parents if not parent.exists()]):
            # Whatever the umask: nobody else may put something in their place.
            missing.mkdir(mode=0o700, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise Unavailable(
            f"{path} can't be made: {error.strerror}", remedy="set AITASK_DATA_DIR to a directory of yours"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        # It can't be removed by everybody: in /tmp another user's stays.
        remedy = "set AITASK_DATA_DIR to another directory of yours, with a short path"
        raise Unavailable(f"{path} is not a directory of yours", remedy=remedy)
    if found.st_mode & 0o077:
        raise Unavailable(f"{path} is open to others", remedy=f"run: chmod 700 {path}")
    return path


def _is_anothers(path: Path) -> bool:
    """Tell whether something is there that is no directory of ours."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid()


def short_hash(path: Path) -> str:
    """A name for a path, the same in every process."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class LocalPaths:
    """The places under one data directory."""

    base: Path

    @classmethod
    def create(cls, base: Path) -> LocalPaths:
        """Make what is missing. A data directory that exists keeps its mode: what is inside is private."""
        paths = cls(base)
        if not base.exists():
            private_directory(base)
        for path in (paths.state, paths.log, paths.valkey):
            private_directory(path)
        with locks.exclusive(paths.state / "sockets.lock"):
            if paths.sockets.parent != base and _is_anothers(paths.sockets):
                # In /tmp everybody may take a name, and nobody else can give it back: another one is chosen, made new
                # and 0700, and noted.
                chosen = tempfile.mkdtemp(prefix=f"aitask-{os.geteuid()}-", dir="/tmp")  # nosec B108
                paths._chosen.write_text(chosen)
            private_directory(paths.sockets)
        return paths

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def log(self) -> Path:
        return self.base / "log"

    @property
    def valkey(self) -> Path:
        return self.base / "valkey"

    @property
    def sockets(self) -> Path:
        """The directory of the sockets: a short one when the data directory's own path is too long for them."""
        wanted = socket_directory(self.base / "run")
        if wanted.parent == self.base:
            return wanted
        with contextlib.suppress(OSError):
            return Path(self._chosen.read_text())
        return wanted

    @property
    def _chosen(self) -> Path:
        """What says where the sockets are when their usual place was another's."""
        return self.state / "sockets"

    @property
    def start_lock(self) -> Path:
        return self.state / "start.lock"

    @property
    def use_lock(self) -> Path:
        return self.state / "use.lock"

    def worker_lock(self, origin: str | None) -> Path:
        return self.state / f"worker{f'-{origin}' if origin else ''}.lock"

    def worker_file(self, origin: str | None) -> Path:
        return self.worker_lock(origin).with_suffix(".json")

    @property
    def worker_locks(self) -> list[Path]:
        """The locks of the background workers of every origin."""
        return sorted(self.state.glob("worker*.lock"))

    @property
    def worker_files(self) -> list[Path]:
        """What is noted of every background worker, also of those that make way."""
        return sorted(self.state.glob("worker*.json"))

    @property
    def simulator_file(self) -> Path:
        return self.state / "simulator.json"


def socket_directory(wanted: Path) -> Path:
    """Return the directory itself, or a short one in its stead when socket paths in it would be too long."""
    # A comma separates directories and hosts in PostgreSQL's options and addresses.
    if len(os.fsencode(wanted / LONGEST_SOCKET)) <= MAX_SOCKET_PATH and "," not in str(wanted):
        return wanted
    # A socket's path is short. Made 0700 and looked at (`private_directory`): one that is another's is refused.
    return Path("/tmp") / f"aitask-{os.geteuid()}-{short_hash(wanted)}"  # nosec B108
