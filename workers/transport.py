"""The HTTP transport: one aiohttp session with a connector of our own.

httpx's own transport slows badly with many calls at once; over aiohttp its requests and responses cost as much again
as the call itself (`docs/performance.md`). aiohttp's default connector holds only 100 connections. The session follows
no redirect, keeps no cookie, reads no `.netrc` and retries nothing; a proxy it takes from the process's environment.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import aiohttp
from yarl import URL

from shared.errors import UpstreamError, UsageFault
from shared.kinds import ErrorKind
from shared.proxies import proxy_for

CONNECT_S = 10.0
# Shorter than the usual 60-75 s of servers and balancers, so that it is we who drop an idle connection.
KEEPALIVE_S = 20.0
# Gateways send policies and debug headers of any length; aiohttp's own limit is 8,190 bytes.
HEADER_BYTES = 64 * 1024


class Transport:
    """Holds up to `connections` calls at once."""

    def __init__(self, connections: int, environ: Mapping[str, str] = os.environ) -> None:
        self._connections = connections
        self._environ = environ
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[URL, str | None] = {}

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def open(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request; the block gets its response, the body still to be read, packed as it came.

        Raises:
            UpstreamError: the environment names a proxy that can't be used.
            aiohttp.ClientError, OSError, ValueError: it did not come to a response.
        """
        if self._session is None:
            self._session = self._made()
        if url not in self._proxies:
            self._proxies[url] = self.proxy(url)
        return self._session.request(
            method, url, headers=headers, data=body, allow_redirects=False, proxy=self._proxies[url]
        )

    def proxy(self, url: URL) -> str | None:
        """The proxy that the environment names for a URL.

        Raises:
            UpstreamError: it can't be used.
        """
        try:
            return proxy_for(str(url), self._environ)
        except (UsageFault, ValueError) as error:
            raise UpstreamError(f"the proxy can't be used: {error}", kind=ErrorKind.PROXY, retryable=False) from None

    def proxy_of(self, url: str) -> str:
        """The proxy for a URL, or nothing where there is none that can be used."""
        try:
            return proxy_for(url, self._environ) or ""
        except (UsageFault, ValueError):
            return ""

    def _made(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections,
            limit_per_host=0,
            keepalive_timeout=KEEPALIVE_S,
            ttl_dns_cache=60,
            ssl=ssl.create_default_context(),
        )
        # Our own timers bound the call as a whole; here only the connection's making is.
        timeouts = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeouts,
            # `workers/packing.py` unpacks, by what the bytes are.
            auto_decompress=False,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )
