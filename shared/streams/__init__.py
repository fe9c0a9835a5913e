"""The task streams: hints in, hints out. Everything here may fail without any task being lost.

`keys` names every key, `clients` makes every client, `door` translates what they raise; `sender` and `reader` are the
two sides of the streams, `hints` what goes through them.
"""

from shared.streams.dead_letters import DEAD_LETTER_CAP, DeadLetter
from shared.streams.door import group_gone, translating
from shared.streams.facts import RedisFacts, costs
from shared.streams.hints import FIELD, WATERMARK_GRACE_S, Hint, PendingEntry, Watermark, parse
from shared.streams.installation import Ownership
from shared.streams.keys import Keys
from shared.streams.reader import HintReader
from shared.streams.sender import Streams

__all__ = [
    "DEAD_LETTER_CAP", "FIELD", "WATERMARK_GRACE_S", "DeadLetter", "Hint", "HintReader", "Keys", "Ownership",
    "PendingEntry", "RedisFacts", "Streams", "Watermark", "costs", "group_gone", "parse", "translating",
]  # fmt: skip
