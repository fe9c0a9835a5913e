"""PostgreSQL's URL as people paste it: several hosts, TLS, and the parameters of other people's tools. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from shared.redaction import cut_off

# https://www.postgresql.org/docs/17/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_LIBPQ_NAMES = (
    "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout "
    "client_encoding options application_name fallback_application_name keepalives keepalives_idle "
    "keepalives_interval keepalives_count tcp_user_timeout sslmode sslnegotiation sslcompression sslcert "
    "sslkey sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version "
    "ssl_max_protocol_version krbsrvname gsslib gssencmode gssdelegation service target_session_attrs "
    "load_balance_hosts"
)
_LIBPQ = frozenset(_LIBPQ_NAMES.split())
# What Prisma, asyncpg, JDBC, SQLAlchemy and hosting pages put there for their own use.
_OTHERS_NAMES = (
    "connection_limit pool_timeout pool_size max_overflow pool_recycle socket_timeout statement_cache_size "
    "prepared_statement_cache_size prepared_statement_name_func prepare_threshold preparethreshold "
    "prepared_statements sslaccept sslidentity charset encoding supa workaround async_fallback uselibpqcompat "
    "command_timeout pool_mode min_size max_size server_settings reconnect single_use_connections"
)
_OTHERS = frozenset(_OTHERS_NAMES.split())
_SSL = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
_URL = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^/?#]*)(?P<rest>[^?#]*)(?:\?(?P<query>.*))?"
)
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(\d*))?")  # fmt: skip


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A URL that libpq takes, and what was said beside it.

    `pooled` is whether it says that a pooler stands in between, `ignored` names the parameters that mean nothing here.
    """

    dsn: str
    pooled: bool
    ignored: tuple[str, ...]
    hosts: int


def parse_postgres_url(url: str) -> PostgresUrl:
    """Read a URL of PostgreSQL.

    Raises:
        ValueError: it is none, or a parameter is unknown; the text names it and no secret.
    """
    parts = _URL.fullmatch(url)
    if parts is None or not (parts["hosts"] or parts["user"] or parts["rest"]):
        raise ValueError("must be a URL that starts with postgresql://")
    if "@" in parts["hosts"]:
        raise ValueError("has an @ in its user or password: write it as %40")
    if cut_off(url):
        raise ValueError("has an @ behind its host: write @ / ? and # in a password as %40 %2F %3F %23")
    if _BARE_PERCENT.search(url):
        raise ValueError("has a % without two digits behind it: write it as %25")
    hosts = [_host(one) for one in parts["hosts"].split(",")]
    kept, pooled, ignored = _sifted(parse_qsl(parts["query"] or "", keep_blank_values=True))
    hosts += [""] * (max((value.count(",") for name, value in kept if name == "host"), default=0))
    if len(hosts) > 1 and not any(name == "target_session_attrs" for name, _ in kept):
        # Of several hosts, the one that can be written to: after a switch-over the first may be a standby.
        kept.append(("target_session_attrs", "read-write"))
    user = f"{parts['user']}@" if parts["user"] is not None else ""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in kept)
    dsn = f"postgresql://{user}{parts['hosts']}{parts['rest']}{'?' if query else ''}{query}"
    return PostgresUrl(dsn, pooled, tuple(ignored), len(hosts))


def hosts_of(host: str, port: int) -> str:
    """The part of a URL that names one or several hosts; each may have a port of its own."""
    named = []
    for one in host.split(","):
        one = one.strip()
        if one.startswith("["):
            named.append(one if "]:" in one else f"{one}:{port}")
        elif one.count(":") > 1:
            named.append(f"[{one}]:{port}")
        else:
            named.append(one if ":" in one else f"{one}:{port}")
    return ",".join(named)


def _host(text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("is not a URL: each host is NAME or NAME:PORT, an IPv6 address in brackets")
    if found[2] and not 1 <= int(found[2]) <= 65535:
        raise ValueError("is not a URL: a port is a number from 1 to 65535")
    return text


def _sifted(pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], bool, list[str]]:
    kept: list[tuple[str, str]] = []
    ignored: list[str] = []
    pooled = False
    for name, value in pairs:
        if name == "pgbouncer":
            pooled = value.lower() in ("true", "1", "yes")
        elif name == "ssl" and value.lower() in (*_SSL, "require", "verify-ca", "verify-full", "prefer", "disable"):
            kept.append(("sslmode", _SSL.get(value.lower(), value.lower())))
        elif name == "schema" and value != "public":
            raise ValueError(f"has schema={_shown(value)}; set the user's search_path instead, and take it out")
        elif name in _LIBPQ:
            kept.append((name, value))
        elif name == "schema" or name.lower() in _OTHERS:
            ignored.append(name)
        else:
            raise ValueError(f"has a parameter {_shown(name)}, which PostgreSQL does not know; take it out")
    return kept, pooled, ignored


def _shown(text: str) -> str:
    return "".join(char for char in text[:40] if char.isprintable()) or "without a name"
