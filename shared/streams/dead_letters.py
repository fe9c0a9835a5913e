"""Dead letters: entries that named no task, kept whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from shared.errors import UsageFault
from shared.streams.keys import Keys

DEAD_LETTER_CAP = 10_000
_LAST_ID = b"18446744073709551615-18446744073709551615"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that named no task, whole: its stream, its id there, its fields, and why it is here."""

    id: str
    stream: str
    entry_id: str
    reason: str
    fields: Mapping[bytes, bytes]


def refuse_full(stream: Mapping[str, Any]) -> None:
    """Raise where XINFO STREAM shows that no id is left: XADD would fail."""
    if stream["last-generated-id"] == _LAST_ID:
        raise ResponseError("the stream of dead letters has used up its ids: remove or rename it")


class DeadLetters:
    """What operators do with dead letters."""

    @property
    def keys(self) -> Keys:
        raise NotImplementedError

    def at(self, key: str) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def dead_letters(self, *, most: int = DEAD_LETTER_CAP) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        with self.at(self.keys.dead_letters) as client:
            found: Any = client.xrange(self.keys.dead_letters, count=most)
        return [_dead_letter(entry_id, fields) for entry_id, fields in found]

    def retry_dead_letter(self, letter: DeadLetter) -> None:
        """Put an entry back into its stream as it was, and then its letter away.

        Raises:
            UsageFault: the letter names a key that is no task stream of ours; others use this Redis too.
        """
        if self.keys.family_of(letter.stream) is None:
            raise UsageFault(
                f"dead letter {letter.id} names {letter.stream!r}, which is no task stream of ours",
                remedy=f"aitask dlq rm {letter.id} --yes",
            )
        # One after the other: in a MULTI the letter would go even if its stream's key took no entry.
        if letter.fields:
            with self.at(letter.stream) as client:
                client.xadd(letter.stream, dict[Any, Any](letter.fields))
        self.remove_dead_letter(letter.id)

    def remove_dead_letter(self, letter_id: str) -> bool:
        """Delete a dead letter. Returns whether there was one."""
        with self.at(self.keys.dead_letters) as client:
            return bool(client.xdel(self.keys.dead_letters, letter_id))


def _dead_letter(entry_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    original = {name[6:]: value for name, value in fields.items() if name.startswith(b"field:")}
    return DeadLetter(entry_id.decode(), text(b"stream"), text(b"entry"), text(b"reason"), original)
