"""Saying once what the settings have to be said about."""

from __future__ import annotations

from collections.abc import Callable

from shared.loading import TOLD
from shared.memory import Memory
from shared.settings import Settings


def announce(settings: Settings, say: Callable[[str], None]) -> None:
    """Say each note that has not been said before; without a writable home, each time."""
    memory = Memory()
    for note in settings.notes:
        if not memory.knows(TOLD, note.about, note.digest):
            say(note.text)
            memory.learn(TOLD, note.about, note.digest)
