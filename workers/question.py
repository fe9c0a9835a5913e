"""Whether the model saw the whole question: Ollama drops the start of one that is longer than its context, in silence.

Sources: https://docs.ollama.com/context-length, https://docs.ollama.com/api/ps
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from yarl import URL

from shared.domain import Claimed
from shared.families import Family
from workers.transport import Transport

log = logging.getLogger("aitask.question")

# An upstream that counts fewer tokens than one for so many bytes of a longer prompt has not seen all of it.
_LONG_BYTES = 8 * 1024
_MOST_BYTES_A_TOKEN = 16
# Where nothing plausible is counted, a prompt is taken to have a token for so many bytes.
_BYTES_A_TOKEN = 4
_PLAUSIBLE_BYTES_A_TOKEN = 6
# A shorter prompt fits into any context.
_LOOK_FROM_BYTES = 2048
_LOOK_S = 2.0
_KNOWN_S = 60.0
_NOT_THERE_S = 600.0
_REPLY_BYTES = 8 << 20


def size_of(task: Claimed) -> int:
    """How long the whole question is, in bytes: the prompt, and what goes before it."""
    texts = (task.prompt, task.system or "", *(message["content"] for message in task.context))
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def is_cut(size: int, tokens: int | None, context: int | None) -> bool:
    """Tell whether a model saw only part of its question.

    Args:
        size: the question's bytes.
        tokens: of the question, as the upstream counted them; None or 0: it did not.
        context: the model's, in tokens; None: not known.
    """
    if tokens and size > _LONG_BYTES and tokens * _MOST_BYTES_A_TOKEN < size:
        return True
    if context is None:
        return False
    if tokens and tokens * _PLAUSIBLE_BYTES_A_TOKEN >= size:
        return tokens >= context
    return size > context * _BYTES_A_TOKEN


class Contexts:
    """The contexts of Ollama's models, asked for and kept for a while. Endpoints that are none are left in peace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[tuple[str, str], tuple[float, int | None]] = {}
        self._none_at: dict[str, float] = {}

    async def of(self, family: Family, model: str, size: int) -> int | None:
        """Return the context that a model answers with, in tokens, or None: not known, or of no interest."""
        root = _root(family)
        now = time.monotonic()
        if root is None or size < _LOOK_FROM_BYTES or self._none_at.get(root, 0.0) > now:
            return None
        until, known = self._known.get((root, model), (0.0, None))
        if until < now:
            known = await self._asked(root, family, model)
            if len(self._known) > 1000:
                self._known.clear()
            self._known[root, model] = (now + _KNOWN_S, known)
        return known

    async def _asked(self, root: str, family: Family, model: str) -> int | None:
        try:
            return await asyncio.wait_for(self._look(root, family, model), _LOOK_S)
        except Exception as error:  # whatever it is, the answer is there and only this is not known
            log.debug("an endpoint does not tell its context: %s", error)
            self._none_at[root] = time.monotonic() + _NOT_THERE_S
            return None

    async def _look(self, root: str, family: Family, model: str) -> int | None:
        running = await self._reply(family, "GET", f"{root}/api/ps", None)
        if not isinstance(running, dict) or not isinstance(running.get("models"), list):
            self._none_at[root] = time.monotonic() + _NOT_THERE_S
            return None
        found = in_running(running, model)
        return found or in_shown(await self._reply(family, "POST", f"{root}/api/show", {"model": model}))

    async def _reply(self, family: Family, method: str, url: str, body: Any) -> Any:
        headers = {"User-Agent": "aitask", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        if family.api_key:
            headers["Authorization"] = f"Bearer {family.api_key}"
        data = None if body is None else json.dumps(body).encode()
        async with self._transport.open(method, URL(url), headers, data) as response:
            if response.status != 200:
                return None
            text = await response.content.read(_REPLY_BYTES)
            while not response.content.at_eof() and len(text) < _REPLY_BYTES:
                text += await response.content.read(_REPLY_BYTES)
        return json.loads(text)


def in_running(said: Any, model: str) -> int | None:
    """The context that a model was loaded with, by `/api/ps`."""
    names = {model.lower(), f"{model.lower()}:latest"}
    for one in said["models"]:
        if isinstance(one, dict) and names & {str(one.get("name")).lower(), str(one.get("model")).lower()}:
            return _tokens(one.get("context_length"))
    return None


def in_shown(said: Any) -> int | None:
    """The context that a model is loaded with at most, by `/api/show`: its own setting, or what it was trained for."""
    if not isinstance(said, dict):
        return None
    for line in str(said.get("parameters") or "").splitlines():
        match = re.fullmatch(r"\s*num_ctx\s+(\d{1,9})\s*", line)
        if match:
            return int(match[1])
    info = said.get("model_info")
    found = (
        [value for name, value in info.items() if name.endswith(".context_length")] if isinstance(info, dict) else []
    )
    return _tokens(found[0]) if found else None


def _tokens(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _root(family: Family) -> str | None:
    """Where Ollama's own interface would be; None for a family that is not called like it."""
    if family.behaviour != "qwen" and (family.behaviour != "generic" or family.api_key):
        return None
    parts = urlsplit(family.endpoint)
    path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
