"""What a model is told of the turns before: the prompts, and its own answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from shared.store.conversations import Turn

Message = dict[str, str]


def context_for(key: tuple[str, str], turns: Sequence[Turn], *, most_bytes: int) -> tuple[Message, ...]:
    """Return the earlier messages for one (family, model), oldest first: the newest whole turns that fit the budget.

    Turns in which the model was not asked are left out; of one that it has not answered (yet), only the prompt is told.
    """
    chosen: list[list[Message]] = []
    left = most_bytes
    for turn in reversed(turns):
        if key not in turn.answers:
            continue
        messages = [{"role": "user", "content": turn.prompt}]
        answer = turn.answers[key]
        if answer:
            messages.append({"role": "assistant", "content": answer})
        left -= sum(len(message["content"].encode()) for message in messages)
        if left < 0:
            break
        chosen.append(messages)
    return tuple(message for messages in reversed(chosen) for message in messages)
