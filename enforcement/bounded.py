"""Reading a peer's body without believing that it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Protocol

from ledger.errors import MalformedError

__all__ = ["read_bounded"]

_CHUNK_BYTES: Final = 64 << 10


class _Chunks(Protocol):
    def iter_chunked(self, n: int) -> AsyncIterator[bytes]: ...


async def read_bounded(stream: _Chunks, max_bytes: int) -> bytes:
    """Return a body.

    Args:
        stream: The body as it arrives.
        max_bytes: Longest body accepted.

    Raises:
        MalformedError: It is longer.
    """
    body = bytearray()
    async for chunk in stream.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise MalformedError(f"a body has more than {max_bytes} bytes")
    return bytes(body)
