"""The prompt: standard input, then the argument."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable

from shared.errors import UsageFault

# As long as what comes before a pipe may take to begin, before somebody wonders.
_SILENT_S = 1.5


def read_prompt(argument: str | None, *, most_bytes: int, say: Callable[[str], None]) -> str:
    """Return the prompt, of at most about `most_bytes`: a little more is read so that the limit is seen to be passed.

    Args:
        say: told when standard input is open and silent, which a person can't see.

    Raises:
        UsageFault: standard input is not UTF-8 text.
    """
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            if not select.select([sys.stdin], [], [], _SILENT_S)[0]:
                alone = "; without any: </dev/null" if argument else ""
                say(f"waiting for the prompt on standard input, which is open and silent{alone}")
            data = sys.stdin.buffer.read(most_bytes + 1)
        except (OSError, ValueError):
            # A background job may have a terminal that it can't read, or a closed descriptor.
            data = b""
        if len(data) <= most_bytes:
            piped = _text(data)
        else:
            raise UsageFault(
                f"the prompt on standard input is over {most_bytes:,} bytes long",
                remedy="shorten it, or raise AITASK_MAX_PROMPT_BYTES",
            )
    parts = [part for part in (piped.rstrip("\n"), argument or "") if part.strip()]
    return "\n\n".join(parts)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageFault(
            f"standard input is not UTF-8 text (byte {error.start})", remedy="convert it, for example with iconv"
        ) from None
