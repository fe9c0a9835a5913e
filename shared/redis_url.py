"""What a Redis URL says: which servers, how to sign in, and which of its parameters are taken. Pure.

redis://[USER:PASSWORD@]HOST[:6379][/DB]            one server; rediss:// over TLS; unix:///PATH?db=0
redis+sentinel://[…@]HOST[:26379],…/NAME[/DB]       the primary that Sentinel calls NAME; rediss+sentinel://
redis+cluster://[…@]HOST[:6379],…                   a Cluster, found by any of its nodes; rediss+cluster://
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from shared.redaction import cut_off


class Kind(str, Enum):
    """How the servers behind a URL stand to one another."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server has to prove itself; None: the system's way."""

    verify: str = "required"
    check_hostname: bool = True
    ca_file: str | None = None
    ca_directory: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """A Redis URL, read.

    Attributes:
        hosts: servers, nodes or Sentinels as (host, port); none for a Unix socket at `socket`.
        service: what Sentinel calls the primary.
        ignored: parameters that tune other clients and mean nothing here.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    socket: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    ignored: tuple[str, ...] = ()


_SCHEMES = {
    "redis": (Kind.SINGLE, False), "valkey": (Kind.SINGLE, False), "unix": (Kind.SINGLE, False),
    "redis+socket": (Kind.SINGLE, False), "rediss": (Kind.SINGLE, True), "valkeys": (Kind.SINGLE, True),
    "redis+sentinel": (Kind.SENTINEL, False), "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False), "rediss+cluster": (Kind.CLUSTER, True),
}  # fmt: skip
_SOCKETS = ("unix", "redis+socket")
_DB = ("db", "virtual_host")
# What redis-py, Celery, Lettuce, go-redis and Laravel call the name of the primary.
_SERVICE = (
    "service", "service_name", "master_name", "master", "mastername", "master_set", "sentinelmasterid", "sentinel",
    "sentinel_master", "sentinel_master_id", "sentinel_service",
)  # fmt: skip
_TLS = (
    "ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile",
    "ssl_password", "skip_verify", "insecure",
)  # fmt: skip
_SWITCHES = ("ssl", "tls", "cluster")
_SIGN_IN = ("username", "password", "sentinel_username", "sentinel_password")
_TAKEN = frozenset((*_DB, *_TLS, *_SWITCHES, *_SIGN_IN))


def parse(url: str) -> RedisTarget:
    """Read a Redis URL.

    Raises:
        ValueError: it can't be one; the text says why, and never holds a password.
    """
    parts = _split(url)
    if parts.scheme not in _SOCKETS and cut_off(url):
        raise ValueError("has an @ behind its host (escape @, /, : and ?, # in a password as %40 %2F %3A, %3F, %23)")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"must be a URL that starts with {', '.join(s + '://' for s in _SCHEMES)}")
    kind, secure = _SCHEMES[parts.scheme]
    given = {name.lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    secure = secure or _flag(given, "ssl") or _flag(given, "tls")
    if _flag(given, "cluster"):
        kind = Kind.CLUSTER
    user, password = _user(parts)
    socket = unquote(parts.path) if parts.scheme in _SOCKETS else None
    hosts = () if socket else _hosts(parts, 26379 if kind is Kind.SENTINEL else 6379)
    if kind is Kind.SINGLE:
        _only_one(hosts, given, "rediss" if secure else "redis")
    service, db = _place(kind, "" if socket else parts.path, given)
    tls = _tls(given) if secure else None
    return RedisTarget(
        kind=kind, hosts=hosts, socket=socket, db=db, tls=tls, service=service,
        username=given.get("username") or user, password=given.get("password") or password,
        sentinel_username=given.get("sentinel_username"), sentinel_password=given.get("sentinel_password"),
        ignored=_ignored(given, kind, secure=secure),
    )  # fmt: skip


def without_password(target: RedisTarget) -> str:
    """The URL again, for people: without what signs in and without parameters."""
    if target.socket:
        return f"unix://{quote(target.socket)}"
    scheme = ("rediss" if target.tls else "redis") + ("" if target.kind is Kind.SINGLE else f"+{target.kind.value}")
    path = f"/{target.service}" if target.service else ""
    return f"{scheme}://{','.join(_shown(*host) for host in target.hosts)}{path}"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL") from None


def _user(parts: SplitResult) -> tuple[str | None, str | None]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return unquote(user) or None, unquote(password) or None


def _hosts(parts: SplitResult, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for place in parts.netloc.rpartition("@")[2].split(","):
        host, port = _host(place.strip())
        if not host and len(parts.netloc.split(",")) > 1:
            raise ValueError("has a host without a name")
        found.append((host or "localhost", port or default_port))
    return tuple(found)


def _host(place: str) -> tuple[str, int | None]:
    host, colon, port = place.rpartition(":") if "]" not in place.rpartition(":")[2] else (place, "", "")
    host = host if colon else place
    if not colon or not port:
        return host.strip("[]"), None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        # The text may be the rest of a password with an unescaped @ or /, so it is not repeated.
        raise ValueError(
            "has a port that is no number from 1 to 65535 (escape @, / and : in a password as %40 %2F %3A)"
        )
    return host.strip("[]"), int(port)


def _only_one(hosts: tuple[tuple[str, int], ...], given: Mapping[str, str], scheme: str) -> None:
    """Refuse what would quietly be another server than the one that was meant."""
    asked = next((name for name in _SERVICE if name in given), None)
    places = ",".join(_shown(*host) for host in hosts)
    if asked:
        name = given[asked] or "NAME"
        raise ValueError(f"has ?{asked}=…, which asks for Sentinel: write {scheme}+sentinel://{places}/{quote(name)}")
    if len(hosts) > 1:
        raise ValueError(
            f"names several hosts: write {scheme}+cluster://{places} for a Cluster, "
            f"{scheme}+sentinel://{places}/NAME for Sentinels"
        )


def _place(kind: Kind, path: str, given: Mapping[str, str]) -> tuple[str, int]:
    steps = [unquote(step) for step in path.split("/") if step]
    service = next((given[name] for name in _SERVICE if given.get(name)), "")
    if kind is Kind.SENTINEL and not service:
        if not steps:
            raise ValueError("has no name for the primary: write redis+sentinel://HOST:26379/NAME")
        service = steps.pop(0)
    named = next((given[name] for name in _DB if name in given), steps[0] if steps else "")
    db = named or "0"
    if not (db.isascii() and db.isdigit()) or len(steps) > 1:
        raise ValueError(f"has {db!r} where the number of a database belongs")
    if kind is Kind.CLUSTER and int(db):
        raise ValueError("names a database; a Cluster has number 0 only: leave it out")
    return service, int(db)


def _flag(given: Mapping[str, str], name: str, default: bool = False) -> bool:
    said = given.get(name, "").lower()
    if said in ("", "1", "true", "yes", "on", "0", "false", "no", "off"):
        return said in ("1", "true", "yes", "on") if said else default
    raise ValueError(f"has ?{name}=…, which must be true or false")


_VERIFY = {
    "none": "none", "cert_none": "none", "0": "none", "false": "none",
    "optional": "optional", "cert_optional": "optional", "1": "optional",
    "required": "required", "cert_required": "required", "2": "required", "true": "required", "": "required",
}  # fmt: skip


def _tls(given: Mapping[str, str]) -> Tls:
    verify = given.get("ssl_cert_reqs", "").lower().removeprefix("ssl.")
    if verify not in _VERIFY:
        raise ValueError("has ?ssl_cert_reqs=…, which must be required, optional or none")
    trusting = _flag(given, "skip_verify") or _flag(given, "insecure") or _VERIFY[verify] == "none"
    return Tls(
        verify="none" if trusting else _VERIFY[verify],
        # A certificate that is not looked at can't be asked for its name.
        check_hostname=_flag(given, "ssl_check_hostname", not trusting) and not trusting,
        ca_file=given.get("ssl_ca_certs"),
        ca_directory=given.get("ssl_ca_path"),
        certificate=given.get("ssl_certfile"),
        key=given.get("ssl_keyfile"),
        key_password=given.get("ssl_password"),
    )


def _ignored(given: Mapping[str, str], kind: Kind, *, secure: bool) -> tuple[str, ...]:
    """Name what is left out. A TLS parameter that is not known could be a wish to be safer, so it is refused."""
    strange = [name for name in given if name.startswith(("ssl_", "tls_")) and name not in _TLS]
    if strange and secure:
        raise ValueError(f"has ?{strange[0]}=…, which is not known; known are {', '.join(_TLS)}")
    meant = _TAKEN if secure else _TAKEN - set(_TLS)
    meant = meant | set(_SERVICE) if kind is Kind.SENTINEL else meant
    return tuple(name for name in given if name not in meant)
