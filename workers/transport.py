"""The HTTP client: httpx's interface over aiohttp's transport, with a connector of our own.

httpx's own transport slows badly with many calls at once; aiohttp's default connector holds only 100 connections.
"""

from __future__ import annotations

import ssl

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

CONNECT_S = 10.0
# Shorter than the usual 60-75 s of servers and balancers, so that it is we who drop an idle connection.
KEEPALIVE_S = 20.0


def make_client(connections: int) -> httpx.AsyncClient:
    """Make a client that holds up to `connections` calls at once, follows no redirect and retries nothing."""
    context = ssl.create_default_context()

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=connections, limit_per_host=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60, ssl=context
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Our own timers bound the call: total, and idle by payload only.
            timeout=aiohttp.ClientTimeout(total=None),
        )

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session, verify=context),
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=False,
    )
