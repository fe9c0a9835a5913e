"""Soft refusals: an HTTP 200 whose whole text says that the model won't. Pure."""

from __future__ import annotations

# A refusal is a sentence or two; whatever is longer has something to say.
REFUSAL_CHARS = 300
_OPENINGS = ("sorry, ", "i'm sorry, but ", "i'm sorry, ", "抱歉，", "很抱歉，")


def is_refusal(text: str, phrases: tuple[str, ...]) -> bool:
    """Tell whether a short answer is nothing but a refusal: it starts with one of the phrases.

    An answer that merely contains one in a longer text is an answer.
    """
    if len(text) > 4 * REFUSAL_CHARS:
        return False
    said = " ".join(text.split()).lower().replace("’", "'").lstrip("*_> ")
    if len(said) > REFUSAL_CHARS:
        return False
    starts = [said, *(said[len(opening) :] for opening in _OPENINGS if said.startswith(opening))]
    return any(start.startswith(phrase.lower().replace("’", "'")) for start in starts for phrase in phrases)
