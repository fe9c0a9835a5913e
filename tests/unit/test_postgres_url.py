"""PostgreSQL's URL as people paste it."""

from __future__ import annotations

import pytest
from psycopg2.extensions import parse_dsn

from shared.errors import SettingFault
from shared.postgres_url import hosts_of, parse_postgres_url
from shared.settings import settings_from


@pytest.mark.parametrize(
    ("pasted", "pooled", "ignored"),
    [
        ("postgresql://u:p@h/db?pgbouncer=true", True, ()),
        ("postgresql://u:p@h/db?pgbouncer=true&connection_limit=1&ssl=1", True, ("connection_limit",)),
        ("postgres://u:p@h/db?schema=public", False, ("schema",)),
        ("postgresql+psycopg2://u:p@h:5433/db", False, ()),
        ("postgresql+asyncpg://u:p@h/db?prepared_statement_cache_size=0", False, ("prepared_statement_cache_size",)),
    ],
)  # fmt: skip
def test_parameters_of_other_tools_are_taken_or_ignored(pasted: str, pooled: bool, ignored: tuple[str, ...]) -> None:
    found = parse_postgres_url(pasted)
    assert (found.pooled, found.ignored) == (pooled, ignored)
    assert parse_dsn(found.dsn)["dbname"] == "db"


def test_of_several_hosts_the_one_that_can_be_written_to_is_taken() -> None:
    found = parse_dsn(parse_postgres_url("postgresql://u@h1:1,h2:2/db").dsn)
    assert (found["host"], found["port"], found["target_session_attrs"]) == ("h1,h2", "1,2", "read-write")
    said = parse_dsn(parse_postgres_url("postgresql://u@h1,h2/db?target_session_attrs=any&ssl=true").dsn)
    assert (said["target_session_attrs"], said["sslmode"]) == ("any", "require")
    parts = settings_from({"DB_HOST": "h1:1,h2", "DB_PORT": "7", "REDIS_HOST": "r"})
    assert parse_dsn(parse_postgres_url(parts.database_dsn).dsn)["port"] == "1,7"
    assert hosts_of("::1,[::2]:4", 5) == "[::1]:5,[::2]:4"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:zq@zz@h/db", "%40"),
        ("postgresql://u:zq%zz@h/db", "%25"),
        ("postgresql://u@h:99999/db", "1 to 65535"),
        ("postgresql://u@h/db?hunter=2", "hunter"),
        ("postgresql://u@h/db?schema=mine", "search_path"),
        ("mysql://u@h/db", "postgresql://"),
    ],
)
def test_a_url_that_is_wrong_names_the_variable_and_what_but_no_secret(url: str, said: str) -> None:
    with pytest.raises(SettingFault, match="DATABASE_URL") as caught:
        settings_from({"DATABASE_URL": url, "REDIS_URL": "redis://x"})
    assert said in str(caught.value)
    assert "zq" not in str(caught.value)
