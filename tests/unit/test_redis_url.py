"""What a Redis URL says."""

from __future__ import annotations

import datetime as dt

import pytest

from shared.errors import SettingFault
from shared.redis_url import Kind, RedisTarget, Tls, parse, without_password
from shared.settings import settings_from
from shared.streams import Keys
from shared.streams.hints import safe_until


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://h", RedisTarget(Kind.SINGLE, (("h", 6379),))),
        ("redis://:p%40w@h:1/3", RedisTarget(Kind.SINGLE, (("h", 1),), db=3, password="p@w")),
        ("redis://u:a@b@[::1]:7", RedisTarget(Kind.SINGLE, (("::1", 7),), username="u", password="a@b")),
        ("unix:///a%20b.sock?db=2", RedisTarget(Kind.SINGLE, socket="/a b.sock", db=2)),
        ("rediss://h", RedisTarget(Kind.SINGLE, (("h", 6379),), tls=Tls())),
        (
            "rediss://h?ssl_cert_reqs=none",
            RedisTarget(Kind.SINGLE, (("h", 6379),), tls=Tls("none", check_hostname=False)),
        ),
        ("rediss://h?ssl_ca_certs=/ca.pem", RedisTarget(Kind.SINGLE, (("h", 6379),), tls=Tls(ca_file="/ca.pem"))),
        ("redis://h?ssl_cert_reqs=none", RedisTarget(Kind.SINGLE, (("h", 6379),), ignored=("ssl_cert_reqs",))),
        (
            "redis://h?socket_timeout=5&decode_responses=true",
            RedisTarget(Kind.SINGLE, (("h", 6379),), ignored=("socket_timeout", "decode_responses")),
        ),
        (
            "redis+sentinel://u:p@a,b:1/main/2?sentinel_password=s",
            RedisTarget(
                Kind.SENTINEL, (("a", 26379), ("b", 1)), db=2, username="u", password="p", service="main",
                sentinel_password="s",
            ),
        ),
        ("redis+sentinel://a/2?master_name=m", RedisTarget(Kind.SENTINEL, (("a", 26379),), db=2, service="m")),
        ("redis+cluster://a:1,b:2", RedisTarget(Kind.CLUSTER, (("a", 1), ("b", 2)))),
    ],
)  # fmt: skip
def test_a_url_is_read(url: str, target: RedisTarget) -> None:
    assert parse(url) == target


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h:1?sentinel=x", "redis+sentinel://h:1/x"),
        ("redis://a,b", "redis+sentinel://a:6379,b:6379/NAME"),
        ("redis+sentinel://a", "has no name for the primary"),
        ("redis://hunter2:hunter2/x@h:99999", "%40 %2F %3A"),
        ("redis://h/zero", "number of a database"),
        ("redis+cluster://h/1", "has number 0 only"),
        ("rediss://h?ssl_ca_cert=x", "ssl_ca_cert="),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional or none"),
        ("http://h", "must be a URL that starts with"),
        ("redis://[h", "is not a URL"),
    ],
)
def test_a_url_that_can_t_be_meant_is_named_with_what_to_write(url: str, said: str) -> None:
    with pytest.raises(SettingFault, match="REDIS_URL") as caught:
        settings_from({"DATABASE_URL": "postgresql://h/d", "REDIS_URL": url})
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_url_for_people_has_no_password() -> None:
    assert without_password(parse("rediss+sentinel://u:hunter2@a,b/m?sentinel_password=hunter2")) == (
        "rediss+sentinel://a:26379,b:26379/m"
    )
    assert "hunter2" not in repr(parse("redis://:hunter2@h"))


def test_key_names_are_decided_once() -> None:
    assert Keys("n").tasks("qwen") == "n:tasks:qwen"
    assert Keys("n").live("t", 2) == "n:live:t:2"
    assert Keys("n", clustered=True).tasks("qwen", "bulk") == "n:tasks:{qwen}:bulk"
    assert Keys("n", origin="o1").tasks("qwen") == "n:tasks:qwen@o1"


@pytest.mark.parametrize("keys", [Keys("n"), Keys("n", clustered=True), Keys("n", origin="o")])
def test_only_our_own_task_streams_have_a_family(keys: Keys) -> None:
    assert keys.family_of(keys.tasks("qwen")) == "qwen"
    assert keys.family_of(keys.tasks("qwen", "bulk")) == "qwen"
    for other in ("", "queue:celery", "n:tasks:", "n:tasks:a b", "m:tasks:qwen", "n:tasks:qwen:x", keys.dead_letters):
        assert keys.family_of(other) is None


def test_an_id_ahead_of_the_clock_takes_no_hint_for_gone() -> None:
    now = dt.datetime.fromtimestamp(1000, dt.timezone.utc)
    assert safe_until(now, None) == now
    assert safe_until(now, b"900000-0") == dt.datetime.fromtimestamp(900, dt.timezone.utc)
    for ahead in (b"1000001-0", b"18446744073709551614-0"):
        assert safe_until(now, ahead).timestamp() == 0
