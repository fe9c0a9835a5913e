"""The prompt: standard input, then the argument."""

from __future__ import annotations

import sys

from shared.errors import UsageFault


def read_prompt(argument: str | None, *, most_bytes: int) -> str:
    """Return the prompt, of at most about `most_bytes`: a little more is read so that the limit is seen to be passed.

    Raises:
        UsageFault: standard input is not UTF-8 text.
    """
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            data = sys.stdin.buffer.read(most_bytes + 1)
        except OSError:
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
