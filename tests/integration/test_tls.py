"""TLS to PostgreSQL: a server that proves itself, and one that can't, which is refused with the remedy."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import DatabaseUnavailable
from shared.store import schema
from shared.store.engine import Database, Sql
from tests.stand import Stand

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")


class Terminator:
    """A server's TLS in front of a PostgreSQL that was built without: what libpq sees is the protocol's own.

    Source: PostgreSQL's documentation, "SSL Session Encryption" in "Message Flow".
    """

    def __init__(self, stand: Stand, certificate: Path, key: Path, *, has_tls: bool = True) -> None:
        self._path = str(stand.servers.postgres.sockets / ".s.PGSQL.5432")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._has_tls = has_tls
        self.encrypted = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, stand: Stand, **parameters: str) -> str:
        said = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://postgres@localhost:{self.port}/{stand.database}?hostaddr=127.0.0.1&{said}"

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if not self._has_tls:
                client.recv(8)
                client.sendall(b"N")
                self._pass_on(client)
                return
            client.recv(8)
            client.sendall(b"S")
            with self._context.wrap_socket(client, server_side=True) as secure:
                self.encrypted += 1
                self._pass_on(secure)

    def _pass_on(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._path)
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()
        _copy(client, server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    made, key = tmp_path / "server.crt", tmp_path / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


@pytest.fixture
def server(stand: Stand, certificate: tuple[Path, Path]) -> Iterator[Terminator]:
    made = Terminator(stand, *certificate)
    yield made
    made.close()


def test_a_server_that_proves_itself_is_spoken_to_over_tls(
    stand: Stand, server: Terminator, certificate: tuple[Path, Path]
) -> None:
    db = Database(server.url(stand, sslmode="verify-full", sslrootcert=str(certificate[0])))
    schema.check(db)
    assert db.rows(Sql("SELECT 1 AS one")) == [{"one": 1}]
    assert server.encrypted == db.connects == 1
    db.close()


@pytest.mark.parametrize("parameters", [{"sslmode": "verify-full"}, {"ssl": "verify-full"}])
def test_a_certificate_that_proves_nothing_is_refused_for_good_with_the_remedy(
    stand: Stand, server: Terminator, certificate: tuple[Path, Path], tmp_path: Path, parameters: dict[str, str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    strange = other / "root.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=other", "-keyout", str(other / "key"), "-out", str(strange)],
        check=True, capture_output=True,
    )  # fmt: skip
    db = Database(server.url(stand, **parameters, sslrootcert=str(strange)))
    with pytest.raises(DatabaseUnavailable, match="certificate verify failed") as caught:
        db.rows(Sql("SELECT 1"))
    assert not caught.value.waits
    assert "sslmode and sslrootcert" in caught.value.remedy


def test_a_certificate_for_another_name_and_a_missing_root_are_refused_for_good(
    stand: Stand, server: Terminator, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    right = server.url(stand, sslmode="verify-full", sslrootcert=str(certificate[0]))
    for url in (
        right.replace("@localhost", "@elsewhere.example"),
        server.url(stand, sslmode="verify-full", sslrootcert=str(tmp_path / "none")),
    ):
        with pytest.raises(DatabaseUnavailable) as caught:
            Database(url).rows(Sql("SELECT 1"))
        assert not caught.value.waits, caught.value
        assert "sslmode and sslrootcert" in caught.value.remedy


def test_a_server_without_tls_is_refused_for_good_where_it_is_asked_for(
    stand: Stand, certificate: tuple[Path, Path]
) -> None:
    server = Terminator(stand, *certificate, has_tls=False)
    with pytest.raises(DatabaseUnavailable, match="does not support SSL") as caught:
        Database(server.url(stand, sslmode="require")).rows(Sql("SELECT 1"))
    assert not caught.value.waits
    assert "take sslmode out" in caught.value.remedy
    server.close()
