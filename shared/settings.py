"""Settings: one frozen object, every field documented. Where the values come from is `shared.loading`'s matter.

A bad value fails at once and names the variable. Nothing is read at import.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shared import homes
from shared import setting_values as values
from shared.errors import SettingFault
from shared.families import BUILT_IN, QUEUE_S, Family, FamilyRow, valid_family_name
from shared.models import Models
from shared.postgres_url import hosts_of
from shared.sources import Note, Sources


def _setting(
    env: str,
    default: Any,
    parse: values.Parse,
    doc: str,
    *,
    secret: bool = False,
    server: bool = False,
    claim: bool = False,
) -> Any:
    """A setting.

    Args:
        secret: it is shown nowhere.
        server: it names a server; one that a directory's file names is said.
        claim: it decides where data lie or who may come in; a directory's file needs trust for it.
    """
    about = {"env": env, "parse": parse, "doc": doc, "secret": secret, "server": server, "claim": claim}
    return field(default=default, repr=not secret, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set, besides each family's endpoint, key, models and limits (`families`)."""

    database_url: str | None = _setting(
        "DATABASE_URL", None, values.postgres_url, "PostgreSQL as one URL; wins over DB_*", secret=True, server=True
    )
    db_host: str | None = _setting(
        "DB_HOST", None, values.text, "PostgreSQL's host; unset: the local default", server=True
    )
    db_port: int = _setting("DB_PORT", 5432, values.whole(1, 65535), "PostgreSQL's port", server=True)
    postgres_user: str = _setting("POSTGRES_USER", "postgres", values.text, "PostgreSQL user")
    postgres_password: str | None = _setting("POSTGRES_PASSWORD", None, values.text, "its password", secret=True)
    postgres_db: str = _setting("POSTGRES_DB", "aitask", values.text, "PostgreSQL database")
    pooled: bool | None = _setting(
        "AITASK_POOLED", None, values.flag, "whether a pooler such as PgBouncer is in between; unset: found out"
    )
    redis_url: str | None = _setting(
        "REDIS_URL", None, values.redis_url, "Redis or Valkey as one URL; wins over REDIS_*", secret=True, server=True
    )
    redis_host: str | None = _setting(
        "REDIS_HOST", None, values.text, "Redis' host; unset: the local default", server=True
    )
    redis_port: int = _setting("REDIS_PORT", 6379, values.whole(1, 65535), "Redis' port", server=True)
    enable_db_log: bool = _setting("ENABLE_DB_LOG", False, values.flag, "write errors to the system log table too")

    data_dir: str | None = _setting(
        "AITASK_DATA_DIR", None, values.text, "where the local default keeps everything", claim=True
    )
    namespace: str = _setting("AITASK_NAMESPACE", "aitask", values.namespace, "first part of every Redis key")
    more_families: tuple[str, ...] = _setting("AITASK_FAMILIES", (), values.names, "families to add, comma-separated")
    worker_id: str = _setting(
        "AITASK_WORKER_ID", "worker", values.namespace, "name of a worker that serves several families"
    )
    slots: int = _setting("AITASK_SLOTS", 64, values.whole(1, 5000), "calls that one worker holds at once")
    lease_s: float = _setting(
        "AITASK_LEASE_S", 30.0, values.seconds(0.5, 3600), "how long a claim lasts without heartbeat"
    )
    deadline_s: float = _setting(
        "AITASK_DEADLINE_S", 86400.0, values.seconds(1, 30 * 86400), "from the first claim to giving up"
    )
    max_failures: int = _setting(
        "AITASK_MAX_FAILURES", 5, values.whole(1, 100), "retryable errors before a task is FAILED"
    )
    max_rescues: int = _setting(
        "AITASK_MAX_RESCUES", 3, values.whole(1, 100), "expired leases before a task is `poison`"
    )
    max_prompt_bytes: int = _setting(
        "AITASK_MAX_PROMPT_BYTES", 1 << 20, values.whole(1, 64 << 20), "longest prompt, in bytes"
    )
    max_answer_bytes: int = _setting(
        "AITASK_MAX_ANSWER_BYTES", 8 << 20, values.whole(1024, 256 << 20), "longest answer, in bytes"
    )
    idle_exit_s: float = _setting(
        "AITASK_IDLE_EXIT_S", 60.0, values.seconds(0.5, 86400), "idle time after which the background worker leaves"
    )
    refusal_phrases: tuple[str, ...] = _setting(
        "AITASK_REFUSAL_PHRASES", (), values.phrases, "more soft-refusal phrases, separated by |"
    )
    gemini_keepalive_s: float = _setting(
        "GEMINI_KEEPALIVE_S",
        240.0,
        values.seconds(0, 86400),
        "how often a signed-in Gemini endpoint is kept warm; 0: never",
    )
    context_bytes: int = _setting(
        "AITASK_CONTEXT_BYTES",
        200_000,
        values.whole(0, 16 << 20),
        "earlier turns sent with a conversation, in bytes",
    )
    gateway_host: str = _setting(
        "AITASK_GATEWAY_HOST", "127.0.0.1", values.text, "where the gateway listens", claim=True
    )
    gateway_port: int = _setting("AITASK_GATEWAY_PORT", 8000, values.whole(0, 65535), "its port; 0: any free one")
    gateway_tokens: tuple[tuple[str, str], ...] = _setting(
        "AITASK_GATEWAY_TOKENS",
        (),
        values.tokens,
        "who may use the gateway: NAME:TOKEN, comma-separated; auto: whoever can read a file of this user's",
        secret=True,
        claim=True,
    )
    gateway_origins: tuple[str, ...] = _setting(
        "AITASK_GATEWAY_ORIGINS",
        (),
        values.origins,
        "web pages that may call the gateway (CORS), comma-separated",
        claim=True,
    )
    gateway_connections: int = _setting(
        "AITASK_GATEWAY_CONNECTIONS", 2048, values.whole(1, 60_000), "connections to the gateway at once"
    )
    gateway_watchers: int = _setting(
        "AITASK_GATEWAY_WATCHERS", 1024, values.whole(1, 60_000), "requests that wait for answers at once"
    )
    gateway_head_s: float = _setting(
        "AITASK_GATEWAY_HEAD_S", 10.0, values.seconds(0.1, 3600), "how long a request's head may take to come"
    )
    gateway_body_s: float = _setting(
        "AITASK_GATEWAY_BODY_S", 30.0, values.seconds(0.1, 3600), "how long a request's body may take to come"
    )
    gateway_rate: int = _setting(
        "AITASK_GATEWAY_RATE", 0, values.whole(0, 10_000_000), "requests a minute for each token; 0: any number"
    )
    plain_http: tuple[str, ...] = _setting(
        "AITASK_PLAIN_HTTP", (), values.names, "hosts that may be sent a key over plain http, comma-separated"
    )
    models_file: str | None = _setting(
        "AITASK_MODELS_FILE",
        None,
        values.path,
        "your own rows about models; unset: ~/.config/aitask/models.json",
        claim=True,
    )
    log_level: str = _setting(
        "AITASK_LOG_LEVEL", "info", values.choice("debug", "info", "warning", "error"), "least level logged"
    )

    families: tuple[Family, ...] = field(default=(), metadata={})
    models: Models = field(default_factory=Models, metadata={})
    demo: bool = field(default=False, metadata={})
    origin: str | None = field(default=None, compare=False, metadata={})
    sources: Sources = field(default_factory=Sources, compare=False, repr=False, metadata={})
    notes: tuple[Note, ...] = field(default=(), compare=False, repr=False, metadata={})

    @property
    def local_database(self) -> bool:
        """Whether PostgreSQL comes from the local default."""
        return self.database_url is None and self.db_host is None

    @property
    def local_redis(self) -> bool:
        """Whether Redis comes from the local default."""
        return self.redis_url is None and self.redis_host is None

    @property
    def local(self) -> bool:
        """Whether nothing is configured, so that the local default serves."""
        return self.local_database and self.local_redis

    @property
    def database_dsn(self) -> str:
        """The database as a URL."""
        if self.database_url is not None:
            return self.database_url
        password = f":{quote(self.postgres_password, safe='')}" if self.postgres_password else ""
        user, name = quote(self.postgres_user, safe=""), quote(self.postgres_db, safe="")
        host = self.db_host or "localhost"
        if host.startswith("/"):
            return f"postgresql://{user}{password}@/{name}?host={quote(host, safe='')}&port={self.db_port}"
        return f"postgresql://{user}{password}@{hosts_of(host, self.db_port)}/{name}"

    @property
    def redis_dsn(self) -> str:
        """Redis as a URL."""
        return self.redis_url or f"redis://{self.redis_host or 'localhost'}:{self.redis_port}/0"

    @property
    def data_path(self) -> Path:
        """The data directory of the local default; `--demo` has one of its own inside it."""
        base = Path(self.data_dir).expanduser().absolute() if self.data_dir else homes.data()
        return base / "demo" if self.demo else base

    def family(self, name: str) -> Family | None:
        """Return the family of that name, or None."""
        return next((family for family in self.families if family.name == name), None)

    def fingerprint(self, version: str, *, secret: bytes = b"") -> str:
        """A short hash that changes when a worker started with these settings would behave otherwise.

        Args:
            secret: what the hash is keyed with, for it is kept and keys are part of what it is of.
        """
        told = [f.name for f in dataclasses.fields(self) if f.compare and not f.name.startswith("gateway_")]
        seen = [version, *(repr(getattr(self, name)) for name in told)]
        seen += [family.api_key or "" for family in self.families]
        return hmac.new(secret, "\0".join(seen).encode(), hashlib.sha256).hexdigest()[:16]


def setting_fields() -> list[dataclasses.Field[Any]]:
    """The fields that have an environment variable, in their order."""
    return [f for f in dataclasses.fields(Settings) if "env" in f.metadata]


def family_variables(row: FamilyRow | str) -> dict[str, str]:
    """The variables that set one family, by purpose."""
    prefix = row.prefix if isinstance(row, FamilyRow) else row.upper().replace("-", "_")
    # The worker's name goes by the family, the rest by the prefix people know (LLM_SERVICE_URL, QWEN_WORKER_ID).
    name = row.name.upper() if isinstance(row, FamilyRow) else prefix
    return {
        "endpoint": f"{prefix}_SERVICE_URL",
        "api_key": f"{prefix}_API_KEY",
        "patterns": f"{prefix}_MODELS",
        "default_model": f"{prefix}_DEFAULT_MODEL",
        "timeout_s": f"{prefix}_TIMEOUT_S",
        "idle_timeout_s": f"{prefix}_IDLE_TIMEOUT_S",
        "first_token_s": f"{prefix}_FIRST_TOKEN_S",
        "queue_s": f"{prefix}_QUEUE_S",
        "limit": f"{prefix}_LIMIT",
        "think": f"{prefix}_THINK",
        "refusals": f"{prefix}_REFUSALS",
        "prefixes": f"{prefix}_PREFIXES",
        "takes": f"{prefix}_TAKES",
        "worker_id": f"{name}_WORKER_ID",
    }


def setting_names(families: str) -> set[str]:
    """All names that are settings, given the value of AITASK_FAMILIES."""
    added = [name for name in values.names(families) if valid_family_name(name)]
    rows: list[FamilyRow | str] = [*BUILT_IN, *added]
    return {f.metadata["env"] for f in setting_fields()} | {n for row in rows for n in family_variables(row).values()}


_FAMILY_PARSE: dict[str, values.Parse] = {
    "endpoint": values.url("http", "https"),
    "api_key": values.key,
    "patterns": values.names,
    "default_model": values.text,
    "timeout_s": values.seconds(0.1, 86400),
    "idle_timeout_s": values.seconds(0.1, 86400),
    "first_token_s": values.seconds(0.1, 86400),
    "queue_s": values.seconds(0, 86400),
    "limit": values.whole(1, 5000),
    "think": values.choice("auto", "open", "none"),
    "refusals": values.phrases,
    "prefixes": values.phrases,
    "takes": values.names,
    "worker_id": values.namespace,
}


def _parsed(environ: Mapping[str, str], name: str, parse: values.Parse, default: Any) -> Any:
    value = environ.get(name, "").strip()
    if not value:
        return default
    try:
        return parse(value)
    except ValueError as error:
        raise SettingFault(f"{name} {error}", remedy="see .env.example") from None


def _built_in(row: FamilyRow, environ: Mapping[str, str], models: Models) -> Family:
    names = family_variables(row)
    given = {key: _parsed(environ, name, _FAMILY_PARSE[key], None) for key, name in names.items()}
    return Family(
        name=row.name,
        prefix=row.prefix,
        patterns=row.patterns,
        routed=given["patterns"] or (),
        default_model=given["default_model"] or models.default(row.name) or row.name,
        endpoint=given["endpoint"] or row.endpoint,
        api_key=given["api_key"],
        needs_key=row.needs_key and given["endpoint"] is None,
        timeout_s=given["timeout_s"] or row.timeout_s,
        idle_timeout_s=given["idle_timeout_s"] or row.idle_timeout_s,
        first_token_s=given["first_token_s"],
        queue_s=QUEUE_S if given["queue_s"] is None else given["queue_s"],
        limit=given["limit"],
        options=row.options,
        behaviour=row.name,
        think=given["think"] or row.think,
        refusals=(*row.refusals, *(given["refusals"] or ())),
        prefixes=given["prefixes"] or row.prefixes,
        takes=given["takes"] or row.takes,
        worker_id=given["worker_id"] or f"{row.name}-worker",
    )


def _added(name: str, environ: Mapping[str, str], models: Models) -> Family:
    if not valid_family_name(name):
        raise SettingFault(f"AITASK_FAMILIES names {name!r}", remedy="a letter, then letters, digits, - or _")
    names = family_variables(name)
    given = {key: _parsed(environ, var, _FAMILY_PARSE[key], None) for key, var in names.items()}
    if given["endpoint"] is None:
        raise SettingFault(
            f"{names['endpoint']} is not set", remedy=f"AITASK_FAMILIES names {name}; give it an endpoint"
        )
    patterns = given["patterns"] or (f"{name}*",)
    plain = [p for p in patterns if not re.search(r"[*?\[]", p)]
    return Family(
        name=name,
        prefix=name.upper().replace("-", "_"),
        patterns=(),
        routed=patterns,
        default_model=given["default_model"] or (plain[0] if plain else models.default(name) or name),
        endpoint=given["endpoint"],
        api_key=given["api_key"],
        timeout_s=given["timeout_s"] or 300.0,
        idle_timeout_s=given["idle_timeout_s"] or 120.0,
        first_token_s=given["first_token_s"],
        queue_s=QUEUE_S if given["queue_s"] is None else given["queue_s"],
        limit=given["limit"],
        think=given["think"] or "auto",
        refusals=given["refusals"] or (),
        prefixes=given["prefixes"] or (),
        takes=given["takes"],
        worker_id=given["worker_id"] or f"{name}-worker",
    )


def _families(environ: Mapping[str, str], added: tuple[str, ...], models: Models) -> tuple[Family, ...]:
    built_in = {row.name for row in BUILT_IN}
    for name in added:
        if name in built_in:
            raise SettingFault(f"AITASK_FAMILIES names {name}, which is built in", remedy="leave it out")
    return (*(_added(name, environ, models) for name in added), *(_built_in(row, environ, models) for row in BUILT_IN))


def settings_from(environ: Mapping[str, str], models: Models | None = None) -> Settings:
    """Make settings from variables alone, and what is known of models.

    Raises:
        SettingFault: a value is bad; the message names the variable.
    """
    values = {f.name: _parsed(environ, f.metadata["env"], f.metadata["parse"], f.default) for f in setting_fields()}
    known = models or Models()
    return Settings(**values, families=_families(environ, values["more_families"], known), models=known)


def for_demo(settings: Settings) -> Settings:
    """The same settings on the demo's own servers; configured servers and keys are left behind."""
    families = tuple(
        dataclasses.replace(family, api_key=None, needs_key=False, withheld="", endpoint="http://127.0.0.1:9")
        for family in settings.families
    )
    return dataclasses.replace(
        settings, database_url=None, db_host=None, redis_url=None, redis_host=None,
        postgres_password=None, families=families, demo=True,
    )  # fmt: skip


def with_endpoint(settings: Settings, endpoint: str) -> Settings:
    """The same settings with every family pointed at one endpoint."""
    families = tuple(
        dataclasses.replace(family, endpoint=endpoint, api_key="simulated", needs_key=False, withheld="")
        for family in settings.families
    )
    return dataclasses.replace(settings, families=families)


def with_servers(settings: Settings, *, database_url: str, redis_url: str, origin: str | None = None) -> Settings:
    """The same settings with these servers; what is asked of local ones has an origin."""
    return dataclasses.replace(settings, database_url=database_url, redis_url=redis_url, origin=origin)
