"""What a connection that could not be made is worth: an end with the remedy, or a wait."""

from __future__ import annotations

import psycopg2
import pytest

from shared.store.faults import not_connected

AT = 'connection to server at "h" (10.0.0.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('FATAL:  password authentication failed for user "u"', "check the password"),
        ("fe_sendauth: no password supplied", "give DATABASE_URL a password"),
        ('FATAL:  database "d" does not exist', "createdb"),
        ('FATAL:  role "u" does not exist', "check the user"),
        ('FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", no encryption', "pg_hba.conf"),
        ("SSL error: certificate verify failed", "sslmode and sslrootcert"),
        ('server certificate for "a" does not match host name "b"', "sslmode and sslrootcert"),
        ('root certificate file "/none" does not exist', "sslmode and sslrootcert"),
        ("server does not support SSL, but SSL was required", "take sslmode out"),
    ],
)
def test_a_refusal_that_does_not_pass_has_its_remedy(said: str, remedy: str) -> None:
    found = not_connected(psycopg2.OperationalError(AT + said))
    assert not found.waits, found
    assert remedy in found.remedy


@pytest.mark.parametrize(
    "said",
    [
        "Connection refused",
        "FATAL:  the database system is starting up",
        "FATAL:  sorry, too many clients already",
        # Another language: libpq hands on no code before there is a connection, so nothing is known but the words.
        "FATAL:  Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen",
    ],
)
def test_what_may_pass_is_waited_for_and_quoted(said: str) -> None:
    found = not_connected(psycopg2.OperationalError(AT + said))
    assert found.waits
    assert said in found.message
