"""Secrets out of text: the one place where a key is taken out of what leaves a call. Pure.

An upstream may repeat the key that it was sent: whole, cut, in capitals, spaced, or in base64 as it stands in a header.
So it is looked for by its pieces: whatever shares `PIECE` characters in a row with a secret is part of it.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from shared.errors import AitaskError

# So many characters of a secret in a row are taken for a part of it.
PIECE = 8
MASK = "[key]"
# So many different words of an upstream are remembered as clean.
_WORDS_KEPT = 256
# Shorter ones are everywhere in any text; nothing can be kept secret by them.
_SHORTEST = 4
# A word in small letters ("simulated", "ollama") is a placeholder, or at least no key by its pieces.
_WORD = re.compile(r"[a-z]{1,15}")
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|credential|^sig(nature)?$|^code$", re.I)
# Also with a password in which a `/`, `?` or `#` stands as it is: up to the last @, where a colon shows a password.
_USER_PART = re.compile(r"(?<=://)(?:[^/?#\s@]*:\S*|[^/?#\s]*)@")
# Options of servers' URLs whose value may hold an @ as it is.
_MAY_HOLD_AT = re.compile(r"user|name|pass|host|options|file|path|cert|key", re.I)
# What may stand between the characters of a spaced secret: white space, controls, and characters of no width.
_BETWEEN = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f"
    "\ufeff\ufff9-\ufffb\ufffd]+"
)
# How the keys of the known vendors begin: no secret, and a model may well write about it.
_PUBLIC = re.compile(r"^(?:sk-(?:proj|ant-api\d\d|or-v\d|svcacct|admin)-|sk-|AIzaSy|gsk_|hf_|xai-|pplx-|nvapi-|r8_)")
# In a model's words only keys of this length are looked for: shorter ones may be words.
_LONG = 16
_ASCII_LOWER = str.maketrans({chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)})
_PUNCTUATION = re.compile(r"[\W_]+")


class Redactor:
    """Takes some secrets out of any text."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        found = sorted({secret for secret in secrets if secret and len(secret) >= _SHORTEST}, key=len, reverse=True)
        whole = [secret for secret in found if len(secret) < PIECE or _WORD.fullmatch(secret)]
        pieced = [secret for secret in found if secret not in whole]
        words = "|".join(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])" for secret in whole)
        self._whole = re.compile(words, re.I) if whole else None
        self._spelt = _Needles(spelt for secret in pieced for spelt in _spellings(secret))
        # Once more by letters and digits alone, for whatever else was put in between.
        bare = (_PUNCTUATION.sub("", spelt) for secret in pieced for spelt in (secret, *_in_base64(secret)))
        self._bare = _Needles(bare)
        own = [_PUBLIC.sub("", secret) for secret in pieced]
        own_long = [secret for secret in own if len(secret) >= _LONG]
        self._own = _Needles(spelt for s in own_long for spelt in (s, *_in_base64(s)))
        self._words: dict[str, str] = {}

        self._bare_own = _Needles(_PUNCTUATION.sub("", p) for s in own_long for p in (s, *_in_base64(s)))
        self._grams = frozenset(piece[at : at + 4] for piece in self._bare_own.pieces for at in range(PIECE - 3))

    def __call__(self, text: str) -> str:
        """Return the text with every piece of a secret replaced."""
        if self._whole is not None:
            text = self._whole.sub(MASK, text)
        if not self._spelt.pieces:
            return text
        return _without(_without(text, self._spelt, _BETWEEN), self._bare, _PUNCTUATION)

    def word(self, said: str) -> str:
        """The same for a short word of an upstream's own, which it says again and again."""
        known = self._words.get(said)
        if known is None:
            if len(self._words) >= _WORDS_KEPT:
                self._words.clear()
            known = self._words[said] = self(said)
        return known

    def answer(self, text: str) -> str:
        """The same for a model's own words, of which none may be lost: only what a long key alone can be."""
        return self(text) if self._own.hinted("".join(text.split()).lower()) else text

    @property
    def guards(self) -> bool:
        """Whether there is a key that is looked for in a model's own words."""
        return bool(self._grams)

    def may_begin(self, before: str, text: str) -> tuple[bool, str]:
        """Whether some four characters in a row of a long key stand in a text; and its last three, for the next one.

        Every live piece is asked this: nothing is looked at that was before.
        """
        kept = before + (text if text.isalnum() else _PUNCTUATION.sub("", text)).lower()
        grams = self._grams
        for at in range(len(kept) - 3):
            if kept[at : at + 4] in grams:
                return True, kept[-3:]
        return False, kept[-3:]

    def may_end(self, text: str) -> bool:
        """Whether a text ends in four characters that stand in a long key."""
        return _PUNCTUATION.sub("", text[-64:]).lower()[-4:] in self._grams

    def answer_behind(self, shown: str, text: str) -> str:
        """A model's words without a key, also one whose beginning has been shown already."""
        whole = _without(shown + text, self._bare_own, _PUNCTUATION)
        same = (at for at, (one, other) in enumerate(zip(whole, shown, strict=False)) if one != other)
        return whole[next(same, len(shown)) :]

    def clean(self, error: BaseException) -> None:
        """Take the secrets out of an error, and of those that it came from: their traces are logged."""
        for one in (error, *_behind(error)):
            if isinstance(one, AitaskError):
                one.message, one.remedy = self(one.message), self(one.remedy)
            one.args = tuple(self(arg) if isinstance(arg, str) else arg for arg in one.args)
        if any(self(str(one)) != str(one) for one in _behind(error)):
            error.__cause__ = error.__context__ = None


def _behind(error: BaseException) -> list[BaseException]:
    """The errors that an error came from."""
    found: list[BaseException] = []
    todo = [error.__cause__, error.__context__]
    while todo:
        one = todo.pop()
        if one is not None and one is not error and one not in found:
            found.append(one)
            todo += [one.__cause__, one.__context__]
    return found


def secrets_of(url: str) -> Iterator[str]:
    """The parts of a URL that nobody else should read: user, password, and what the query names a key."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    user = parts.netloc.rpartition("@")[0]
    if "@" in url and "@" not in parts.netloc:
        found = _USER_PART.search(url)
        user = found[0][:-1] if found else ""
    user, _, rest = user.partition(":")
    for secret in (rest, user):
        if secret:
            yield from {secret, unquote(secret)}
    if user and rest:
        yield f"{unquote(user)}:{unquote(rest)}"
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        if value and _SECRET_NAME.search(name):
            yield from {value, unquote(value)}


def cut_off(url: str) -> bool:
    """Whether a password seems to be cut off by a `/`, `?` or `#`: its rest would be shown as a name."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "@" in url
    if "@" in parts.netloc or ":" not in parts.netloc:
        return False
    pairs = (pair.partition("=") for pair in parts.query.split("&"))
    strange = any("@" in name or ("@" in value and not _MAY_HOLD_AT.search(name)) for name, _, value in pairs)
    return strange or "@" in parts.path + parts.fragment


def masked_url(url: str) -> str:
    """Return a URL as it may be shown: without user, password, and what the query names a key."""
    shown = _USER_PART.sub("***@", url)
    try:
        parts = urlsplit(shown)
    except ValueError:
        return shown
    pairs = [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []
    hidden = [name + sign + ("***" if value and _SECRET_NAME.search(name) else value) for name, sign, value in pairs]
    return urlunsplit(parts._replace(query="&".join(hidden))) if hidden else shown


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield secret.encode("utf-8", "replace").hex()
    yield from _in_base64(secret)


def _in_base64(secret: str) -> Iterator[str]:
    """How it looks inside of base64 text, wherever in a group of three bytes it begins."""
    data = secret.encode("utf-8", "replace")
    for ahead in range(3):
        spelt = base64.b64encode(b"\0" * ahead + data).decode().rstrip("=")
        # The first character may hold bits of what stands before, the last ones of what comes behind.
        spelt = spelt[(0, 2, 3)[ahead] : len(spelt) - (1 if (ahead + len(data)) % 3 else 0)]
        yield spelt
        yield spelt.replace("+", "-").replace("/", "_")


class _Needles:
    """What is looked for: every `PIECE` characters in a row of some spellings of secrets.

    Attributes:
        pieces: all of them, in small letters.
        hints: four characters in a row, so few that every text can be asked for them: each piece holds one.
    """

    def __init__(self, spellings: Iterable[str]) -> None:
        lowered = {spelt.lower() for spelt in spellings if len(spelt) >= PIECE}
        self.pieces = frozenset(s[at : at + PIECE] for s in lowered for at in range(len(s) - PIECE + 1))
        self.hints = tuple({s[at : at + 4] for s in lowered for at in range(0, len(s) - 3, PIECE - 3)})

    def hinted(self, lowered: str) -> bool:
        """Whether there may be a piece in it."""
        for hint in self.hints:  # noqa: SIM110 - each answer passes here, and a generator costs twice as much
            if hint in lowered:
                return True
        return False


def _without(text: str, needles: _Needles, between: re.Pattern[str]) -> str:
    """Replace what the pieces cover in a text, looked at without what may stand in between."""
    kept, place = _squeezed(text, between)
    if not needles.hinted(kept):
        return text
    pieces = needles.pieces
    spans: list[tuple[int, int]] = []
    for start in range(len(kept) - PIECE + 1):
        if kept[start : start + PIECE] in pieces:
            end = start + PIECE
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    for start, end in reversed(spans):
        text = f"{text[: place(start)]}{MASK}{text[place(end - 1) + 1 :]}"
    return text


def _squeezed(text: str, between: re.Pattern[str]) -> tuple[str, Callable[[int], int]]:
    """Return the text in small letters without what stands between, and where each character of that stood."""
    # str.lower() may change the length of what is not ASCII.
    lowered = text.lower() if text.isascii() else text.translate(_ASCII_LOWER)
    runs: list[str] = []
    starts, shifts = [0], [0]
    at = length = 0
    for match in between.finditer(lowered):
        runs.append(lowered[at : match.start()])
        length += match.start() - at
        at = match.end()
        starts.append(length)
        shifts.append(at - length)
    runs.append(lowered[at:])
    return "".join(runs), lambda index: index + shifts[bisect_right(starts, index) - 1]
