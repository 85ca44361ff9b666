"""The way to a server: what was judged once is sent once, whatever becomes of the connection."""

from __future__ import annotations

import asyncio

import pytest

from enforcement.config import Limits, ServerSettings
from enforcement.upstream import Upstream, Verb
from ledger.errors import UpstreamError
from tests.support.mcp_messages import headers_of

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
def test_nothing_is_sent_again_on_another_connection(verb: Verb) -> None:
    """RFC 9110 section 9.2.2 would let a client repeat GET and DELETE; an intermediary has its client for that."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            heads.append(head.split(b" ")[0])
            if len(heads) > 1:
                break
            await reader.readexactly(2)
            writer.write(ANSWER)
        writer.close()

    async def play() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening, Upstream(Limits(), {}) as upstream:
            port = listening.sockets[0].getsockname()[1]
            server = ServerSettings(name="finance", url=f"http://127.0.0.1:{port}/mcp")
            async with upstream.send(server, headers_of(), b"{}") as answer:
                await answer.read()
            with pytest.raises(UpstreamError, match="upstream_disconnected"):
                async with upstream.send(server, headers_of(), b"{}", verb=verb):
                    pass

    asyncio.run(play())
    assert heads == [b"POST", verb.encode()]
