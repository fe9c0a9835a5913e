"""Who may ask the gateway, judged by a request's head."""

from __future__ import annotations

import os
import socket

import pytest

from aitask_cli.gateway.admission import local_host, of_a_foreign_page, of_another_type
from aitask_cli.gateway.guard import Rate
from aitask_cli.gateway.peers import known_here, may_call, owner


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:8000"])
def test_this_machine_s_names_are_local(host: str) -> None:
    assert local_host(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "localhost.evil.example", "[::1]evil.com", "localhost:80@evil.com", "localhost:",
        "127.0.0.1.nip.io", "[::1", "localhost:80:80", "user@localhost", "10.0.0.1", "[::2]", "0.0.0.0",
        "localhost evil", "localhost\n", "\xff",
    ],
)  # fmt: skip
def test_odd_and_foreign_host_names_are_not(host: str) -> None:
    assert not local_host(host.encode("latin-1"))


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"origin": "https://evil.example", "host": "localhost:8000"}, True),
        ({"origin": "null", "host": "localhost:8000"}, True),
        ({"origin": "http://localhost:3000", "host": "localhost:8000"}, True),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, False),
        ({"origin": "https://good.example", "host": "x", "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"origin": ""}, True),
    ],
)
def test_a_page_of_somewhere_else_is_refused_unless_it_is_named(headers: dict[str, str], refused: bool) -> None:
    given = {name.encode(): value.encode() for name, value in headers.items()}
    assert (of_a_foreign_page(given, {"https://good.example"}) is not None) is refused


@pytest.mark.parametrize(
    ("kind", "length", "refused"),
    [
        ("application/json", "2", False),
        ("application/json; charset=utf-8", "2", False),
        ("application/merge-patch+json", "2", False),
        ("text/plain", "2", True),
        ("", "2", True),
        ("application/x-www-form-urlencoded", "2", True),
        ("text/plain;application/json", "2", True),
        ("", "0", False),
    ],
)
def test_a_body_must_say_that_it_is_json(kind: str, length: str, refused: bool) -> None:
    given = {b"content-type": kind.encode(), b"content-length": length.encode()}
    assert (of_another_type(given) is not None) is refused


def test_a_token_has_a_minute_s_worth_of_requests_and_gets_them_back_with_time() -> None:
    rate = Rate(3)
    assert [rate.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert rate.take("b", 0.0)
    assert [rate.take("a", 20.5), rate.take("a", 20.5)] == [True, False]
    assert all(Rate(0).take("a", 0.0) for _ in range(1000))


@pytest.mark.skipif(not known_here(), reason="only Linux says whose a connection is")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_s_owner_is_found_and_one_that_has_gone_is_nobody_s(family: int, host: str) -> None:
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen()
        client = socket.create_connection(listening.getsockname()[:2])
        accepted, _ = listening.accept()
        here, there = client.getsockname()[:2], accepted.getsockname()[:2]
        assert owner(here, there) == os.geteuid()
        assert may_call(here, there)
        client.close()
        # A closed socket shows root for its owner.
        assert owner(here, there) is None
        assert not may_call(here, there)
        accepted.close()
