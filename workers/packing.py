"""Packed bodies, unpacked as they come: gzip and deflate, br where its package is installed.

We ask for none, since a packed body may grow a thousandfold; some servers pack all the same, or say they do and don't.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from importlib import import_module
from typing import Any, Protocol

from shared.errors import UpstreamError
from shared.kinds import ErrorKind

_GZIP = b"\x1f\x8b"
# What is unpacked at once, so that the size is looked at before it has grown.
_STEP = 256 * 1024
# br's package bounds no step in every version: it gets little to unpack at once.
_SIP = 256
_OURS = {"gzip", "x-gzip", "deflate"}
_NOT_OURS = {"br", "zstd", "compress", "x-compress", "dcb", "dcz"}
# What a body of ours may begin with when it is not packed, whatever its header says.
_PLAIN = tuple(b"{[<:\xef\r\n \t")
_FIELDS = (b"data", b"event", b"id:", b"retry", b"error")


class _Unpacker(Protocol):
    def unpack(self, chunk: bytes) -> Iterator[bytes]: ...


async def unpacked(chunks: AsyncIterable[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Yield the body's bytes, unpacked as its `Content-Encoding` says where the bytes agree.

    Raises:
        UpstreamError: `bad_encoding`, it is packed in a way that can't be read, or is broken.
    """
    unpacker: _Unpacker | None = None
    first = True
    try:
        async for chunk in chunks:
            if first and chunk:
                first, unpacker = False, _unpacker(encoding, chunk)
            if unpacker is None:
                yield chunk
            else:
                for piece in unpacker.unpack(chunk):
                    yield piece
    except zlib.error as error:
        raise _refused(f"its {encoding} is broken: {error}", retryable=True) from None


def _unpacker(encoding: str, first: bytes) -> _Unpacker | None:
    if first.startswith(_GZIP):
        return _Inflater(31)
    names = [name.strip() for name in encoding.lower().split(",") if name.strip() not in ("", "identity")]
    if not names or first[0] in _PLAIN or first.startswith(_FIELDS) or not {*names} & (_OURS | _NOT_OURS):
        return None
    if names[-1] == "deflate":
        # Of the two things that servers call deflate, zlib's format begins so (RFC 1950).
        return _Inflater(15 if first[0] & 0x0F == 8 and first[0] >> 4 <= 7 else -15)
    if names[-1] == "br":
        return _brotli()
    raise _refused(f"it packs its answer with {encoding[:40]}, which was not asked for and can't be read")


def _brotli() -> _Unpacker:
    try:
        made: _Unpacker = _Brotli(import_module("brotli").Decompressor())
    except ImportError:
        raise _refused("it packs its answer with br, which was not asked for: pip install brotli") from None
    return made


class _Inflater:
    def __init__(self, window: int) -> None:
        self._inflate = zlib.decompressobj(window)

    def unpack(self, chunk: bytes) -> Iterator[bytes]:
        # Whoever reads looks at the size after each step, and stops.
        while chunk and not self._inflate.eof:
            yield self._inflate.decompress(chunk, _STEP)
            chunk = self._inflate.unconsumed_tail


class _Brotli:
    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    def unpack(self, chunk: bytes) -> Iterator[bytes]:
        try:
            for at in range(0, len(chunk), _SIP):
                yield self._decompressor.process(chunk[at : at + _SIP])
        except Exception as error:  # the package's one error is of no exported class
            raise _refused(f"its br is broken: {str(error)[:80]}", retryable=True) from None


def _refused(said: str, *, retryable: bool = False) -> UpstreamError:
    # It shows that the endpoint is up, so the breaker is not fed.
    tries = 2 if retryable else None
    return UpstreamError(
        f"the endpoint's answer can't be unpacked: {said}",
        kind=ErrorKind.BAD_ENCODING, retryable=retryable, http_status=200, max_tries=tries,
    )  # fmt: skip
