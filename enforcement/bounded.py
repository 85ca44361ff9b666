"""Reading a peer's body without believing that it ends."""

from __future__ import annotations

from typing import Final

import aiohttp

from ledger.errors import MalformedError

__all__ = ["read_bounded"]

_CHUNK_BYTES: Final = 64 << 10


async def read_bounded(stream: aiohttp.StreamReader, max_bytes: int) -> bytes:
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
