"""The wire by kinds: time limits, proxies, packed bodies, ways of asking, charsets and broken connections."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from shared.errors import UpstreamError, UsageFault
from shared.families import Family
from shared.kinds import ErrorKind
from shared.proxies import proxy_for
from shared.settings import settings_from
from workers.answer import Answer
from workers.attempt import endpoint_down
from workers.content import charset_of, decoded
from workers.faults import redirected, translated
from workers.packing import unpacked
from workers.timer import CallTimer
from workers.transport import Transport
from workers.upstream import UpstreamClient, _Refusal
from workers.ways import BELIEVED_S, STREAMED, WHOLE, WITH_USAGE, Ways, plainer_way

FAMILY: Family = settings_from({"GEMINI_SERVICE_URL": "https://models.example/v1"}).families[0]
LONG_S = 5.0


def ended(use: Callable[[CallTimer], Any], **limits: float) -> UpstreamError:
    """The error of a call that waits for ever under these limits."""

    async def call() -> None:
        with CallTimer(**limits) as timer:  # type: ignore[arg-type]
            use(timer)
            await asyncio.sleep(LONG_S)

    with pytest.raises(UpstreamError) as raised:
        asyncio.run(call())
    return raised.value


def test_a_call_without_a_first_word_ends_by_the_limit_of_the_first_word() -> None:
    error = ended(lambda timer: None, total_s=LONG_S, idle_s=LONG_S, first_s=0.02)
    assert error.kind == ErrorKind.IDLE_TIMEOUT
    assert "no word of an answer came for 0.02 s" in error.message


def test_after_the_first_word_the_limit_between_words_holds() -> None:
    # A call's own timer is set again only when it fires, so the first limit is the shorter one.
    error = ended(lambda timer: timer.rearm(), total_s=LONG_S, idle_s=0.04, first_s=0.02)
    assert error.kind == ErrorKind.IDLE_TIMEOUT
    assert "nothing came for 0.04 s" in error.message


def test_signs_of_life_put_the_first_word_off_and_no_longer_than_the_queue_may_take() -> None:
    async def call() -> None:
        with CallTimer(total_s=0.1, idle_s=0.05, queue_s=0.2) as timer:
            while True:
                timer.queued()
                await asyncio.sleep(0.01)

    async def timed() -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamError, match=r"nothing but signs of life|no word of an answer"):
            await call()
        return asyncio.get_running_loop().time() - began

    # Longer than each of the other limits, which count only what is no queueing.
    assert asyncio.run(timed()) >= 0.2


def test_what_comes_whole_has_the_whole_limit_alone() -> None:
    error = ended(lambda timer: timer.whole(), total_s=0.06, idle_s=0.01, first_s=0.01)
    assert error.kind == ErrorKind.TIMEOUT
    assert "no whole answer within 0.06 s" in error.message


PROXY = {"HTTPS_PROXY": "http://proxy.example:3128"}


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://models.example/v1", PROXY, "http://proxy.example:3128"),
        ("https://models.example/v1", {"https_proxy": "proxy.example:3128"}, "http://proxy.example:3128"),
        ("https://models.example/v1", {"ALL_PROXY": "http://all.example"}, "http://all.example"),
        ("http://models.example/v1", PROXY, None),
        ("https://localhost/v1", PROXY, None),
        ("https://127.3.2.1/v1", PROXY, None),
        ("https://[::1]/v1", PROXY, None),
        ("https://models.example/v1", {**PROXY, "NO_PROXY": ".example"}, None),
        ("https://models.example/v1", {**PROXY, "NO_PROXY": "*"}, None),
        ("https://models.example:8443/v1", {**PROXY, "NO_PROXY": "models.example:8443"}, None),
        ("https://models.example/v1", {**PROXY, "NO_PROXY": "models.example:8443"}, "http://proxy.example:3128"),
        ("https://notmodels.example/v1", {**PROXY, "NO_PROXY": "models.example"}, "http://proxy.example:3128"),
        ("https://10.1.2.3/v1", {**PROXY, "NO_PROXY": "10.0.0.0/8"}, None),
        # A visitor's `Proxy:` header.
        ("http://models.example/v1", {"HTTP_PROXY": "http://evil.example", "REQUEST_METHOD": "GET"}, None),
    ],
)
def test_an_address_has_the_proxy_that_the_environment_names(url: str, environ: dict[str, str], proxy: str) -> None:
    assert proxy_for(url, environ) == proxy


def test_a_proxy_that_is_not_spoken_is_named_without_its_password() -> None:
    with pytest.raises(UsageFault) as raised:
        proxy_for("https://models.example/v1", {"ALL_PROXY": "socks5://me:hunter2@proxy.example"})
    assert "ALL_PROXY" in raised.value.message
    assert "socks5://***@proxy.example" in raised.value.message
    assert "NO_PROXY=models.example" in raised.value.remedy


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


def steps_of(body: bytes, encoding: str, *, enough: int = sys.maxsize) -> list[bytes]:
    async def read() -> list[bytes]:
        read: list[bytes] = []
        async for piece in unpacked(chunks(body), encoding):
            read.append(piece)
            if sum(map(len, read)) >= enough:
                break
        return read

    return asyncio.run(read())


def packed(body: bytes, window: int = 31) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(("window", "encoding"), [(31, "gzip"), (31, ""), (15, "deflate"), (-15, "deflate")])
def test_a_packed_body_is_read_by_its_bytes(window: int, encoding: str) -> None:
    body = json.dumps({"choices": ["Grüße"] * 100}).encode()
    assert b"".join(steps_of(packed(body, window), encoding)) == body
    assert b"".join(steps_of(body, encoding)) == body


def test_a_body_that_grows_a_thousandfold_grows_in_small_steps_and_stops_where_its_reader_does() -> None:
    steps = steps_of(packed(b"\0" * (64 << 20)), "gzip", enough=1 << 20)
    assert max(map(len, steps)) <= 256 << 10
    assert sum(map(len, steps)) <= (1 << 20) + (256 << 10)


@pytest.mark.parametrize(("encoding", "said"), [("br", "br, which"), ("zstd", "zstd"), ("gzip, zstd", "zstd")])
def test_a_packing_that_cant_be_read_is_refused_by_name_and_feeds_no_breaker(
    encoding: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(UpstreamError) as raised:
        steps_of(b"\x8b\x02\x80", encoding)
    assert raised.value.kind == ErrorKind.BAD_ENCODING
    assert said in raised.value.message
    assert not raised.value.retryable
    assert not endpoint_down(raised.value)


def test_a_broken_gzip_is_no_traceback_and_feeds_no_breaker() -> None:
    with pytest.raises(UpstreamError, match="its gzip is broken") as raised:
        steps_of(packed(b"x" * 1000)[:10] + b"\xff" * 20, "gzip")
    assert not endpoint_down(raised.value)


def test_a_plainer_way_is_believed_for_ten_minutes_and_then_the_best_is_tried_again() -> None:
    now = [100.0]
    ways = Ways(lambda: now[0])
    assert ways.best("e") == WITH_USAGE
    ways.worked("e", STREAMED)
    ways.refuses("e", "m", frozenset({"top_k"}))
    now[0] += BELIEVED_S - 1
    assert (ways.best("e"), ways.best("another"), ways.dropped("e", "m")) == (STREAMED, WITH_USAGE, {"top_k"})
    now[0] += 2
    assert (ways.best("e"), ways.dropped("e", "m")) == (WITH_USAGE, frozenset())
    assert BELIEVED_S == 600


class Choosy(UpstreamClient):
    """Its endpoint refuses token counts; what the plainer way comes to is in `then`."""

    then: list[Answer | UpstreamError]

    async def _call(self, task: Any, behaviour: Any, way: int, dropped: frozenset[str], *more: Any) -> Answer:
        if way == WITH_USAGE:
            raise _Refusal(UpstreamError("no", kind="http_400", retryable=False), way=STREAMED, dropped=dropped)
        found = self.then.pop(0)
        if isinstance(found, UpstreamError):
            raise found
        return found


def test_a_refusal_is_believed_only_once_the_plainer_way_has_worked() -> None:
    client = Choosy(Transport(1, {}), max_answer_bytes=1)
    behaviour: Any = SimpleNamespace(family=FAMILY, classify=lambda error: error)
    task: Any = SimpleNamespace(model="m")

    def asked() -> int:
        asyncio.run(client.complete(task, behaviour, lambda piece: None))
        return client._ways.best(FAMILY.endpoint)

    client.then = [UpstreamError("overloaded", kind="http_503", retryable=True), Answer("fine")]
    with pytest.raises(UpstreamError, match="overloaded"):
        asked()
    assert client._ways.best(FAMILY.endpoint) == WITH_USAGE
    assert asked() == STREAMED


def refusal(message: str, param: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "param": param}})


@pytest.mark.parametrize(
    ("status", "message", "param", "way"),
    [
        (400, "Unknown parameter", "stream_options", STREAMED),
        (400, "Unknown parameter", "stream_options.include_usage", STREAMED),
        (400, "Unsupported value", "stream", WHOLE),
        (400, "stream_options is not allowed", None, STREAMED),
        (400, "Streaming is not supported", None, WHOLE),
        (400, "Invalid response from the upstream server", None, None),
        (400, "The upstream does not support it; downstream either", None, None),
        (400, "Invalid value", "temperature", None),
        (401, "Streaming is not supported", None, None),
        (503, "Streaming is not supported", None, None),
    ],
)
def test_only_a_refusal_of_streaming_leads_to_a_plainer_way(
    status: int, message: str, param: str | None, way: int | None
) -> None:
    assert plainer_way(status, refusal(message, param), message, WITH_USAGE) == way


@pytest.mark.parametrize("charset", ["punycode", "undefined", "idna", "rot13", "unicode_escape", "zlib", "nonsense"])
def test_a_charset_that_is_not_on_the_list_is_not_tried(charset: str) -> None:
    assert charset_of(f"text/plain; charset={charset}") is None
    assert decoded(b"caf\xe9", f"application/json; charset={charset}") == "caf�"


@pytest.mark.parametrize(("charset", "body"), [("latin1", b"caf\xe9"), ('"GBK"', "北京".encode("gbk"))])
def test_a_charset_on_the_list_is_read_where_the_body_is_no_utf_8(charset: str, body: bytes) -> None:
    assert decoded(body, f"text/plain; charset={charset}; x=y") in ("café", "北京")
    assert decoded("né".encode(), f"text/plain; charset={charset}") == "né"


def key_of_a_connection() -> Any:
    return SimpleNamespace(host="models.example", port=443, ssl=True, is_ssl=True)


def test_a_certificate_that_cant_be_verified_is_permanent_and_says_the_remedy_first() -> None:
    why = ssl.SSLCertVerificationError("certificate verify failed")
    why.verify_message = "self-signed certificate"
    error = translated(aiohttp.ClientConnectorCertificateError(key_of_a_connection(), why), FAMILY)
    assert (error.kind, error.retryable) == (ErrorKind.CERTIFICATE, False)
    assert error.message.startswith("set SSL_CERT_FILE")
    assert "models.example" in error.message
    assert "GEMINI_SERVICE_URL" in error.message


def test_a_redirect_names_its_target_and_the_setting_but_no_query() -> None:
    error = redirected(301, "//other.example/api?key=hunter2", URL("https://models.example/v1"), FAMILY)
    assert "to https://other.example/api; set GEMINI_SERVICE_URL" in error.message
    assert "hunter2" not in error.message
    assert not error.retryable


def test_an_answer_that_is_cut_does_not_read_like_a_refusal() -> None:
    cut = aiohttp.ClientPayloadError("400, message='Not enough data to satisfy content length header.'")
    error = translated(cut, FAMILY)
    assert (error.kind, error.retryable, error.http_status) == (ErrorKind.RESET, True, None)
    assert "400" not in error.message
    assert "mid-answer" in error.message
