"""Origins: on the local default a task is called with the settings of whoever asked.

An origin is the directory's file of settings with its families' endpoints and TLS settings. Keys, limits, ports and log
levels are no part of it: of one origin the newest settings win.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets

from aitask_cli.local.paths import LocalPaths
from shared.settings import Settings

_TLS = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def secret(paths: LocalPaths) -> bytes:
    """The random value of a data directory that its hashes are keyed with, made with the first use."""
    path = paths.state / "secret"
    fresh = paths.state / f"secret.{os.getpid()}"
    if not path.exists():
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        # Whoever is first has made it.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_bytes()


def origin_of(paths: LocalPaths, settings: Settings) -> str | None:
    """The origin of these settings, noted with its file for people. None for the demo, whose tasks are all alike."""
    if settings.demo:
        return None
    endpoints = sorted((family.name, family.endpoint) for family in settings.families)
    tls = [os.environ.get(name, "") for name in _TLS]
    told = json.dumps([settings.sources.directory_path, endpoints, tls])
    origin = hmac.new(secret(paths), told.encode(), hashlib.sha256).hexdigest()[:16]
    note = paths.state / f"{origin}.origin"
    if not note.exists():
        note.write_text(settings.sources.directory_path)
    return origin


def asked_under(paths: LocalPaths, origin: str) -> str:
    """What an origin is to people: its file of settings."""
    try:
        path = (paths.state / f"{origin}.origin").read_text()
    except (OSError, UnicodeDecodeError):
        return "other settings"
    return path or "settings without a .env"
