"""What goes wrong between us and an endpoint, in one line with its remedy: the door at which aiohttp's errors end."""

from __future__ import annotations

import ssl

import aiohttp
from yarl import URL

from shared.errors import UpstreamError
from shared.families import Family
from shared.kinds import ErrorKind
from shared.redaction import masked_url

NETWORK = (aiohttp.ClientError, OSError)
_CHARS = 300


def translated(error: Exception, family: Family) -> UpstreamError:
    """Return the error that an error of the network or of HTTP is."""
    said = " ".join(str(error).split())[:_CHARS] or type(error).__name__
    if isinstance(error, aiohttp.InvalidURL):
        return bad_url(said)
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return _tls(error, family, said)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _proxy_refused(error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        why = error.os_error.strerror or said
        return UpstreamError(
            f"can't connect to the proxy {error.host}:{error.port}, which the environment names: {why}",
            kind=ErrorKind.CONNECT, retryable=True,
        )  # fmt: skip
    if isinstance(error, aiohttp.ClientConnectorError):
        why = error.os_error.strerror or said
        return UpstreamError(
            f"can't connect to {error.host}:{error.port}: {why}", kind=ErrorKind.CONNECT, retryable=True
        )
    if isinstance(error, aiohttp.ServerTimeoutError):
        return UpstreamError(
            "the endpoint accepted no connection in time", kind=ErrorKind.CONNECT_TIMEOUT, retryable=True
        )
    return UpstreamError(_broken(error, said), kind=ErrorKind.RESET, retryable=True)


def _broken(error: Exception, said: str) -> str:
    # aiohttp's own words for these two read like a refusal: "400, message='Not enough data …'".
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke in mid-answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what came is no HTTP answer: {' '.join(error.message.split())[:_CHARS]}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the endpoint closed the connection without an answer"
    return f"the connection broke: {said}"


def _tls(error: Exception, family: Family, said: str) -> UpstreamError:
    reason: BaseException | None = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    host = getattr(error, "host", "") or URL(family.endpoint).host
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UpstreamError(
            f"set SSL_CERT_FILE to a file with the certificate of the authority behind {host}, or correct "
            f"{family.prefix}_SERVICE_URL: its certificate can't be verified: {reason.verify_message or said}",
            kind=ErrorKind.CERTIFICATE, retryable=False,
        )  # fmt: skip
    if isinstance(reason, ssl.SSLError) and reason.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        said = f"{host} doesn't speak TLS there; perhaps {family.prefix}_SERVICE_URL must begin with http://"
    return UpstreamError(f"TLS to the endpoint failed: {said}", kind=ErrorKind.TLS, retryable=True)


def _proxy_refused(error: aiohttp.ClientHttpProxyError) -> UpstreamError:
    said = f"the proxy that the environment names refuses to connect: HTTP {error.status} {error.message}"[:_CHARS]
    if error.status == 407:
        said += "; it wants a user and a password in HTTPS_PROXY, or the host in NO_PROXY"
    return UpstreamError(said, kind=ErrorKind.PROXY, retryable=error.status not in (403, 405, 407))


def redirected(status: int, location: str, asked: URL, family: Family) -> UpstreamError:
    """Return the error for a redirect, which isn't followed: the key must not go along, and a POST loses its body."""
    try:
        target = asked.join(URL(location)) if location else None
    except ValueError:
        target = None
    if target is None:
        where = "without saying where to"
    else:
        shown = str(target.with_query(None).with_fragment(None).with_user(None))[:200] if target.host else str(target)
        where = f"to {shown}; set {family.prefix}_SERVICE_URL to where the API itself is"
    return UpstreamError(
        f"the endpoint redirects {where} (HTTP {status})", kind=ErrorKind.REDIRECT, retryable=False, http_status=status
    )


def bad_url(said: str) -> UpstreamError:
    """Return the error for an endpoint that is no URL."""
    return UpstreamError(
        f"the endpoint's URL can't be used: {masked_url(said)}", kind=ErrorKind.BAD_URL, retryable=False
    )
