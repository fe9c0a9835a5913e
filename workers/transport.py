"""The HTTP transport: one aiohttp session with a connector of our own.

httpx's own transport slows badly with many calls at once; over aiohttp its requests and responses cost as much again
as the call itself (`docs/performance.md`). aiohttp's default connector holds only 100 connections. The session follows
no redirect, keeps no cookie, reads no proxy from the environment and retries nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import aiohttp
from yarl import URL

CONNECT_S = 10.0
# Shorter than the usual 60-75 s of servers and balancers, so that it is we who drop an idle connection.
KEEPALIVE_S = 20.0


class Transport:
    """Holds up to `connections` calls at once."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def open(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request; the block gets its response, the body still to be read.

        Raises:
            aiohttp.ClientError, OSError, ValueError: it did not come to a response.
        """
        if self._session is None:
            self._session = self._made()
        return self._session.request(method, url, headers=headers, data=body, allow_redirects=False)

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
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeouts)
