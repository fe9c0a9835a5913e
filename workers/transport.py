"""The HTTP transport: httpx's requests and responses over aiohttp's connections, with a connector of our own.

httpx's own transport slows badly with many calls at once, its client costs as much again as the call itself, and
aiohttp's default connector holds only 100 connections. So requests go straight to httpx-aiohttp's transport, which
follows no redirect, keeps no cookie, reads no proxy from the environment and retries nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

CONNECT_S = 10.0
# Shorter than the usual 60-75 s of servers and balancers, so that it is we who drop an idle connection.
KEEPALIVE_S = 20.0

# Our own timers bound the call as a whole; here only the connection's making is.
_TIMEOUTS = {"timeout": {"connect": CONNECT_S, "read": None, "write": None, "pool": None}}


class Transport:
    """Holds up to `connections` calls at once."""

    def __init__(self, connections: int) -> None:
        context = ssl.create_default_context()

        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(
                limit=connections, limit_per_host=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60, ssl=context
            )
            return aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
            )

        self._transport = AiohttpTransport(client=session, verify=context)

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield its response, the body still to be read.

        Raises:
            httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError: it did not come to a response.
        """
        request = httpx.Request(method, url, headers=dict(headers), content=body, extensions=dict(_TIMEOUTS))
        response = await self._transport.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()


def chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes; decoded where an upstream compresses although asked not to."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return response.aiter_bytes()
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    return stream.__aiter__()
