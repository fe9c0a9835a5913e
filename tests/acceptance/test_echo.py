"""An upstream that says the key back, in every place of an answer: nothing of it is kept, logged or shown."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.stand import Stand, wait_for

PIECE = 8
STEP, PAUSE_S = 600, 0.1
Reply = tuple[int, str, str, dict[str, str]]


def in_base64(text: str) -> list[str]:
    return [base64.b64encode(b"\0" * ahead + text.encode()).decode() for ahead in range(3)]


def spelt(key: str, form: str) -> str:
    """The key as the form says: whole, in capitals, spaced, in base64, or cut (`from7`, `to12`)."""
    if form.startswith("from"):
        return key[int(form[4:]) :]
    if form.startswith("to"):
        return key[: int(form[2:])]
    if form.startswith("base64at"):
        return in_base64(key)[int(form[-1])]
    ways: dict[str, Callable[[], str]] = {
        "whole": lambda: key,
        "upper": key.upper,
        "lower": key.lower,
        "spaced": lambda: " ".join(key),
        "basic": lambda: base64.b64encode(f":{key}".encode()).decode(),
    }
    return ways[form]()


FORMS = [
    *("whole", "upper", "lower", "spaced", "basic", "base64at0", "base64at1", "base64at2"),
    *(f"from{at}" for at in range(1, 33)),
    *(f"to{at}" for at in range(9, 40, 2)),
]


def told(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}})


def answered(text: str = "Fine.", finish: str = "stop", model: str = "m") -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "model": model, "choices": [choice]})


def streamed(text: str) -> str:
    pieces = [{"delta": {"content": text[at : at + 3]}, "finish_reason": None} for at in range(0, len(text), 3)]
    pieces.append({"delta": {}, "finish_reason": "stop"})
    events = [json.dumps({"object": "chat.completion.chunk", "model": "m", "choices": [one]}) for one in pieces]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


JSON, HTML, EVENTS = "application/json", "text/html", "text/event-stream"
PLACES: dict[str, Callable[[str], Reply]] = {
    "error": lambda said: (400, JSON, told(f"Bad key {said}, my friend"), {}),
    # Cut where a message is: the key lies across its end.
    "long": lambda said: (400, JSON, told(f"{'x' * (500 - len(said) // 2)} {said} and more"), {}),
    "title": lambda said: (400, HTML, f"<html><title>No {said}</title></html>", {}),
    "head": lambda said: (200, JSON, json.dumps({"received": said}), {}),
    "finish": lambda said: (200, JSON, answered(finish=said), {}),
    "model": lambda said: (200, JSON, answered(model=said), {}),
    "after": lambda said: (400, JSON, told("no"), {"Retry-After": said, "X-Request-Id": said}),
    "location": lambda said: (302, HTML, "", {"Location": f"/elsewhere/{said}?key={said}"}),
    "answer": lambda said: (200, JSON, answered(f"It is {said}, as you know."), {}),
    "stream": lambda said: (200, EVENTS, streamed(f"It is {said}, as you know."), {}),
}
# What holds the family back is asked once, and last.
HOLDS: dict[str, Callable[[str], Reply]] = {
    "nojson": lambda said: (200, JSON, f'{{"authorization": "Bearer {said}", nonsense', {}),
    "unauthorized": lambda said: (401, JSON, told(f"Incorrect API key provided: {said}"), {}),
    "limited": lambda said: (429, JSON, told(f"Slow down, {said}"), {"Retry-After": said}),
}


class Echo:
    """Says the key back that it is called with, where and how the model's name says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.looked: list[str] = []
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                echo.looked.append(self.path)
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                _, place, form = str(body["model"]).split("-")
                echo.asked.append(place)
                self._say(*{**PLACES, **HOLDS}[place](spelt(self._key(), form)))

            def do_GET(self) -> None:
                echo.looked.append(self.path)
                self._say(400, JSON, told(f"Bad key {self._key()}"), {})

            def _key(self) -> str:
                return (self.headers["authorization"] or "").removeprefix("Bearer ")

            def _say(self, status: int, kind: str, body: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                # A stream takes its time, so that its pieces are shown while they come.
                for at in range(0, len(body), STEP):
                    self.wfile.write(body[at : at + STEP].encode())
                    time.sleep(PAUSE_S if kind == EVENTS else 0)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.server.shutdown()
    made.server.server_close()


def pieces_of(key: str, text: str) -> list[str]:
    """What of the key, or of its base64, stands in a text, whatever its case and white space."""
    bare = re.sub(r"\s", "", text).lower()
    known = {one[at : at + PIECE].lower() for one in spellings(key) for at in range(len(one) - PIECE + 1)}
    return sorted(piece for piece in known if piece in bare)


def spellings(key: str) -> list[str]:
    """The key, and its base64 without the characters that hold bits of what stands around it."""
    return [key, *(one.rstrip("=")[(0, 2, 3)[ahead] : -1] for ahead, one in enumerate(in_base64(key)))]


def rows(stand: Stand) -> dict[str, str]:
    """Everything in every table, as text."""
    tables = stand.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    return {name: str(stand.query(f'SELECT t::text FROM "{name}" t')) for (name,) in tables}


def redis_keys(stand: Stand) -> dict[str, str]:
    """Everything under the namespace, as text."""
    reads = {"string": "get", "hash": "hgetall", "set": "smembers", "stream": "xrange"}
    found = {}
    with stand.streams() as streams:
        for key in streams.client.scan_iter(f"{stand.namespace}:*"):
            kind = as_text(streams.client.type(key))
            value = getattr(streams.client, reads[kind])(key)
            # What a watcher puts together of its entries, too.
            joined = "".join(as_text(v) for _, said in value for v in said.values()) if kind == "stream" else ""
            live = "".join(as_text(said.get("x", said.get(b"x", ""))) for _, said in value) if kind == "stream" else ""
            found[as_text(key)] = f"{value} {joined} {live}"
    return found


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def asked(stand: Stand, place: str, forms: list[str]) -> str:
    return stand.submit("Which key?", *(f"gemini-{place}-{form}" for form in forms)).batch_id


def shown(stand: Stand, batch_ids: list[str]) -> dict[str, str]:
    """What the commands say, on standard output and error."""
    commands: list[tuple[str, ...]] = [("show", "--json", batch_id) for batch_id in batch_ids]
    commands += [("ls",), ("ls", "--json"), ("logs",), ("explain",), ("ps", "--json"), ("doctor",), ("models",)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda one: stand.aitask(*one), commands))
    # Each has something to say: what fails with a traceback, or says nothing, shows nothing either.
    assert all(result.out and "Traceback" not in result.err for result in results), results
    return {" ".join(command): r.out + r.err for command, r in zip(commands, results, strict=True)}


def test_nothing_of_a_key_that_an_upstream_repeats_is_kept_or_shown(stand: Stand, echo: Echo) -> None:
    seed = uuid.uuid4().hex
    print(f"seed {seed}")
    key = "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=40))
    assert pieces_of(key, spelt(key, "spaced").upper())
    assert pieces_of(key, spelt(key, "base64at1"))
    stand.more = {
        "GEMINI_SERVICE_URL": echo.url, "GEMINI_API_KEY": key,
        "ENABLE_DB_LOG": "true", "AITASK_MAX_FAILURES": "1",
    }  # fmt: skip
    stand.start_worker()
    batches = {place: asked(stand, place, FORMS) for place in PLACES}
    for batch_id in batches.values():
        stand.finished(batch_id, timeout_s=30)
    looked = redis_keys(stand)
    for place in HOLDS:
        batches[place] = asked(stand, place, ["whole"])
        tried = "SELECT 1 FROM attempt a JOIN task t ON t.id = a.task_id WHERE t.batch_id = %s"
        wait_for(partial(stand.query, tried, batches[place]), what=f"a try of {place}")
    assert set(echo.asked) == {*PLACES, *HOLDS}
    assert any(":live:" in name and "It is" in text for name, text in looked.items()), [*looked]
    looked |= {f"table {name}": text for name, text in rows(stand).items()}
    assert "my friend" in looked["table attempt"]
    assert "as you know" in looked["table task"]
    assert looked["table system_log"] != "[]"
    looked |= {"the worker's log": stand.logs(), **shown(stand, list(batches.values()))}
    assert {*echo.looked} == {"/v1/chat/completions", "/v1/models"}, "a redirect was followed"
    found = {name: pieces for name, text in looked.items() if (pieces := pieces_of(key, text))}
    assert not found, f"{sum(map(len, found.values()))} pieces of the key: {found}"
