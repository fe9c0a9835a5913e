"""What `doctor` and `models` find out about an endpoint: what an ask would meet there."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aitask_cli.checks import Level, _endpoint
from aitask_cli.probe import Probe, probe
from aitask_cli.views.shape import families
from shared.families import Family
from shared.settings import settings_from

LIST = json.dumps({"data": [{"id": "models/gemini-3.5-flash-lite"}]})
REFUSED = json.dumps([{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}])
PAGE = (200, "<html><title>Welcome</title>", {"content-type": "text/html"})
NO_MESSAGES = json.dumps({"error": {"message": "[] is too short - 'messages'"}})

Reply = tuple[int, str, dict[str, str]]


class Endpoint:
    """Answers by (method, path) and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], Reply] = {}
        self.asked: list[tuple[str, str]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                endpoint.asked.append((self.command, self.path))
                replies = endpoint.replies
                usual = replies.get((self.command, "*"), (404, "404 page not found", {}))
                status, body, headers = replies.get((self.command, self.path), usual)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = _serve

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def gemini(url: str, key: str = "sk-hunter2") -> Family:
    return settings_from({"GEMINI_SERVICE_URL": url, "GEMINI_API_KEY": key}).families[0]


def looked(endpoint: Endpoint, **replies: Reply) -> tuple[Probe, str]:
    endpoint.replies = {(method, "*"): reply for method, reply in replies.items()}
    family = gemini(endpoint.url)
    found = probe(family)
    check = _endpoint(family, found)
    assert (check.level is Level.OK) == (found.error is None)
    assert "hunter2" not in check.found
    return found, f"{check.found}; {check.remedy}"


def test_an_endpoint_with_a_list_answers_and_is_asked_nothing_else(endpoint: Endpoint) -> None:
    found, said = looked(endpoint, GET=(200, LIST, {}))
    assert found.error is None
    assert "answers, 1 models" in said
    assert endpoint.asked == [("GET", "/v1/models")]


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, NO_MESSAGES),
        (422, NO_MESSAGES),
        (500, NO_MESSAGES),
        (404, '{"error": {"message": "no such model: None"}}'),
    ],
)
def test_an_endpoint_without_a_list_that_refuses_an_empty_request_answers(
    endpoint: Endpoint, status: int, refusal: str
) -> None:
    found, said = looked(endpoint, GET=(404, "", {}), POST=(status, refusal, {}))
    assert (found.error, found.models) == (None, None)
    assert "lists no models" in said


@pytest.mark.parametrize(
    ("get", "post", "parts"),
    [
        ((302, "", {"Location": "https://other.example/v2/models?token=s"}), (302, "", {}),
         ["redirects to https://other.example/v2/models (HTTP 302)",
          'set GEMINI_SERVICE_URL="https://other.example/v2"']),
        ((302, "", {"Location": "https://accounts.example/signin"}), (302, "", {}),
         ["redirects to https://accounts.example/signin", "check GEMINI_SERVICE_URL"]),
        ((404, "", {}), (308, "", {"Location": "/api/chat/completions"}), ["redirects to http", "GEMINI_SERVICE_URL"]),
        ((502, "<html><title>Bad Gateway</title>", {}), (502, "<html><title>Bad Gateway</title>", {}),
         ["HTTP 502: an HTML page (Bad Gateway)", "check GEMINI_SERVICE_URL"]),
        ((404, "", {}), (404, "404 page not found", {}), ["has no /v1/chat/completions (HTTP 404"]),
        ((404, "", {}), (405, "", {}), ["has no /v1/chat/completions (HTTP 405"]),
        ((400, REFUSED, {}), (400, REFUSED, {}), ["it refuses the key (HTTP 400: API key not valid", "GEMINI_API_KEY"]),
        ((401, "{}", {}), (401, "{}", {}), ["it refuses the key (HTTP 401", "check GEMINI_API_KEY"]),
        ((404, "", {}), (401, '{"error": "wrong key sk-hunter2"}', {}),
         ["it refuses the key (HTTP 401: wrong key [key])"]),
        (PAGE, PAGE, ["a web page"]),
        ((429, "{}", {}), (429, "{}", {}), ["HTTP 429", "quota"]),
        ((503, "", {}), (503, "", {}), ["HTTP 503"]),
    ],
)  # fmt: skip
def test_what_an_ask_would_fail_with_is_said(endpoint: Endpoint, get: Reply, post: Reply, parts: list[str]) -> None:
    found, said = looked(endpoint, GET=get, POST=post)
    assert found.error is not None
    for part in parts:
        assert part in said


def test_the_certificates_of_the_workers_count(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: Callable[[Endpoint, Path], Path]
) -> None:
    endpoint.replies = {("GET", "*"): (200, LIST, {})}
    authority = tls(endpoint, tmp_path)
    family = gemini(endpoint.url.replace("http://127.0.0.1", "https://localhost"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    unknown = probe(family)
    assert "can't be reached" in str(unknown.error)
    assert "SSL_CERT_FILE" in unknown.remedy
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert probe(family).error is None


def test_an_endpoint_is_shown_without_its_password_and_its_key(endpoint: Endpoint) -> None:
    url = endpoint.url.replace("//", "//someone:Hunter2-sec/ret@") + "/v1?key=Zq81-quite-private&v=2"
    for pasted in (url.replace("/ret@", "ret@"), url.replace("/ret@", "%2Fret@")):
        family = gemini(pasted)
        for found in (probe(family), Probe((), None), Probe(None, None), Probe(("x",), None)):
            check = _endpoint(family, found)
            shown = f"{check.found} {check.remedy} {families([(family, found)], {})}"
            assert not [piece for piece in ("Hunter2", "ret@", "quite-private") if piece in shown], shown


def test_an_endpoint_that_repeats_the_key_is_quoted_without_it(endpoint: Endpoint) -> None:
    key = "Zq81xv-Rw5tY7uI9oP-3aSdF"
    encoded = base64.b64encode(key.encode()).decode()
    echoes = [key, key.upper(), encoded, " ".join(key), *(key[at:] for at in range(len(key) - 8)), key[:12]]
    for echo in echoes:
        for body in (json.dumps({"error": {"message": f"bad {echo}"}}), f"<html><title>no {echo}</title>"):
            endpoint.replies = {(method, "*"): (403, body, {"content-type": "text/html"}) for method in ("GET", "POST")}
            said = str(probe(gemini(endpoint.url, key)).error)
            bare = re.sub(r"\W", "", said).lower()
            secret = re.sub(r"\W", "", echo).lower()
            assert not [at for at in range(len(secret) - 7) if secret[at : at + 8] in bare], said


@pytest.fixture
def tls() -> Callable[[Endpoint, Path], Path]:
    """Turns an endpoint into one with a certificate of its own; returns that certificate."""

    def turned(endpoint: Endpoint, directory: Path) -> Path:
        import ssl

        key, certificate = directory / "key.pem", directory / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"],
            check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        endpoint.server.socket = context.wrap_socket(endpoint.server.socket, server_side=True)
        return certificate

    return turned
