"""Which proxy the environment names for an address. Pure but for the environment that is handed in."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from shared.errors import UsageFault
from shared.redaction import masked_url


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the proxy for a URL, or None: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` but for what `NO_PROXY` names.

    This machine itself is never asked for through a proxy (as Go's net/http has it).

    Raises:
        UsageFault: it is of a kind that we don't speak.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if not host or _loopback(host):
        return None
    name, proxy = _named(parts.scheme, environ)
    if not proxy or _excepted(host, parts.port, _either("no_proxy", environ)):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme.lower() not in ("http", "https"):
        raise UsageFault(
            f"{name} names {masked_url(proxy)}, and only HTTP proxies are spoken",
            remedy=f"set {parts.scheme.upper()}_PROXY to an http:// proxy, or NO_PROXY={host}",
        )
    return proxy


def _named(scheme: str, environ: Mapping[str, str]) -> tuple[str, str]:
    # A web server gives a visitor's `Proxy:` header as HTTP_PROXY (https://httpoxy.org): then only the small letters.
    visited = "REQUEST_METHOD" in environ
    for name in (f"{scheme}_proxy", "all_proxy"):
        value = environ.get(name) or ("" if visited and name == "http_proxy" else environ.get(name.upper(), ""))
        if value.strip():
            return name.upper(), value.strip()
    return "", ""


def _either(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name) or environ.get(name.upper(), "")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _excepted(host: str, port: int | None, no_proxy: str) -> bool:
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        name, _, its_port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if its_port and its_port != str(port):
            continue
        name = name.strip("[]").removeprefix("*").removeprefix(".")
        if entry == "*" or host == name or (name and host.endswith(f".{name}")) or _within(host, name):
            return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
