"""A key goes only where its source says: to an endpoint of the same or a more trusted source. Pure.

The same holds for the passwords of servers. A key over plain http is refused to public hosts.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.errors import SettingFault
from shared.families import Family
from shared.sources import Note, Source, Sources

# RFC 1918, 6598, 3927, 4193, 4291: what no router of the internet passes on.
_PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10",
    )
]  # fmt: skip
# Names that the public DNS never has: RFC 6762, 8375, and ICANN's reservation of .internal.
_PRIVATE_NAMES = (".local", ".internal", ".home.arpa")
_HERE = ("localhost", "127.0.0.1", "::1")
# Of libpq: each makes the server that is asked another than the one a password is kept for.
_DIVERTING = {"hostaddr", "passfile", "service", "servicefile"}


class Reach(Enum):
    """How far away a host is, as far as its name tells."""

    MACHINE = "this machine"
    PRIVATE = "a private network"
    PUBLIC = "the internet"


def reach(host: str) -> Reach:
    """Say how far away a host is. A number in any spelling that a resolver takes for an address is that address."""
    name = host.lower().rstrip(".")
    address = _address(name)
    if address is None:
        if name == "localhost" or name.endswith(".localhost"):
            return Reach.MACHINE
        return Reach.PRIVATE if "." not in name or name.endswith(_PRIVATE_NAMES) else Reach.PUBLIC
    if address.is_loopback:
        return Reach.MACHINE
    return Reach.PRIVATE if any(address in net for net in _PRIVATE) else Reach.PUBLIC


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(name)) if name.isascii() and " " not in name else None
        except OSError:
            return None
    return getattr(found, "ipv4_mapped", None) or found


def judged(family: Family, names: Mapping[str, str], sources: Sources, built_in: str | None) -> Family:
    """The family with its key, or without it where it must not go to the endpoint.

    Args:
        names: the family's variables, by purpose.
        built_in: the endpoint it has without any setting, None for a family that is added.
    """
    credential = family.api_key or urlsplit(family.endpoint).password
    if not credential:
        return family
    key, endpoint = names["api_key"] if family.api_key else names["endpoint"], names["endpoint"]
    to = Source.DEFAULT if _same(family.endpoint, built_in) else sources.source(endpoint)
    if to.rank < sources.source(key).rank and sources.source(key) is not Source.DEFAULT:
        why = f"{sources.line(key)} is not sent to {sources.line(endpoint)}: put the two in the same place"
    elif _plain_to_strangers(family.endpoint, sources.source(key), sources):
        host = urlsplit(family.endpoint).hostname
        why = f"{sources.line(key)} is not sent to {host} over plain http: use https, or set AITASK_PLAIN_HTTP={host}"
    else:
        return family
    endpoint_alone = family.endpoint if family.api_key else _without_user(family.endpoint)
    return replace(family, api_key=None, endpoint=endpoint_alone, withheld=why)


def plain_http_note(family: Family, sources: Sources) -> Note | None:
    """What is said once of a key that goes over plain http to a private network."""
    parts = urlsplit(family.endpoint)
    if not family.api_key or parts.scheme != "http" or _allowed(parts.hostname or "", sources, Source.DIRECTORY):
        return None
    if reach(parts.hostname or "") is not Reach.PRIVATE:
        return None
    key = f"{family.prefix}_API_KEY"
    text = f"{key} goes to {parts.hostname} over plain http, where others can read it"
    text += f" (AITASK_PLAIN_HTTP={parts.hostname} says that this is meant)"
    return Note(f"plain http {family.prefix} {parts.netloc}", parts.hostname or "", text)


def _plain_to_strangers(endpoint: str, key: Source, sources: Sources) -> bool:
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return parts.scheme == "http" and reach(host) is Reach.PUBLIC and not _allowed(host, sources, key)


def _allowed(host: str, sources: Sources, key: Source) -> bool:
    """Whether AITASK_PLAIN_HTTP, from a source no less trusted than the key's, names the host."""
    allowed = {part.strip().lower() for part in sources.values.get("AITASK_PLAIN_HTTP", "").split(",")}
    return host.lower() in allowed and sources.source("AITASK_PLAIN_HTTP").rank >= key.rank


def _same(endpoint: str, built_in: str | None) -> bool:
    return built_in is not None and endpoint.rstrip("/") == built_in.rstrip("/")


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose password is a setting of its own: the names that say which server, and its usual port."""

    password: str
    host: str
    port: str
    usual_port: str
    url: str


SERVERS = (Server("POSTGRES_PASSWORD", "DB_HOST", "DB_PORT", "5432", "DATABASE_URL"),)


def check_servers(sources: Sources, environ: Mapping[str, str]) -> None:
    """See to it that no password goes to a server from a less trusted source than its own.

    Args:
        environ: in which libpq would find a password by itself.

    Raises:
        SettingFault: one would; the message names both lines.
    """
    for server in SERVERS:
        if sources.values.get(server.url):
            continue
        _check(sources, server.password, sources.source(server.password), _destination(server, sources))
    _check_libpq(sources, environ)


def _destination(server: Server, sources: Sources) -> str | None:
    """The line that sends us to a server of the directory's choice, or None when the user or the built-in does."""
    values = sources.values
    usual = values.get(server.host, "") in _HERE and values.get(server.port, server.usual_port) == server.usual_port
    if usual or not values.get(server.host):
        return None
    lines = [server.host, *([server.port] if values.get(server.port, server.usual_port) != server.usual_port else [])]
    return min(lines, key=lambda name: sources.source(name).rank)


def _check(sources: Sources, password: str, of: Source, destination: str | None, line: str = "") -> None:
    if destination is None or of is Source.DEFAULT or sources.source(destination).rank >= of.rank:
        return
    raise SettingFault(
        f"{line or sources.line(password)} is not sent to {sources.line(destination)}",
        remedy="put the two in the same place",
    )


def _check_libpq(sources: Sources, environ: Mapping[str, str]) -> None:
    """libpq sends PGPASSWORD to whatever server is named without a password."""
    url = sources.values.get("DATABASE_URL", "")
    if url:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        given = parts.password is not None or "password" in options
        destination: str | None = "DATABASE_URL"
        if sources.source("DATABASE_URL") is Source.DIRECTORY and _DIVERTING & set(options):
            odd = sorted(_DIVERTING & set(options))[0]
            raise SettingFault(
                f"{sources.line('DATABASE_URL')} has {odd}, which may send a password elsewhere",
                remedy="put the line in the environment or ~/.config/aitask/.env",
            )
    else:
        given = bool(sources.values.get("POSTGRES_PASSWORD"))
        destination = _destination(SERVERS[0], sources)
    if environ.get("PGPASSWORD") and not given:
        _check(sources, "PGPASSWORD", Source.ENVIRONMENT, destination, "PGPASSWORD of the environment")


def shown(url: str) -> str:
    """A URL without anything in it that may be secret."""
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    host = parts.hostname or unquote(dict(parse_qsl(parts.query)).get("host", "")) or parts.path
    return f"{parts.scheme}://{host}{port}"
