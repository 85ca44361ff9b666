"""The gateway's surroundings, each in a process of its own: ``python -m benchmarks.upstream stub | pass-through URL``.

The stub is an MCP server that does nothing but answer; the pass-through is a proxy that does nothing but forward. Both
print the port that they chose as their first line, and count what they saw at ``GET /count``.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp
import msgspec
from aiohttp import web

__all__ = ["main"]


class _Call(msgspec.Struct):
    id: msgspec.Raw


_DECODER = msgspec.json.Decoder(_Call)
_ANSWER = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"refunded"}],"isError":false}}'


_STREAMED = b'"a streamed benchmark"'
"""What the arguments of a call hold that is to be answered by a stream."""
_STREAM = b": working\n\nevent: message\ndata: %b\n\n"


async def _stream(request: web.BaseRequest, answer: bytes) -> web.StreamResponse:
    """Answer by a comment at once, which is no message and is not judged, and the result right after it."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    comment, separator, event = (_STREAM % answer).partition(b"\n\n")
    await response.write(comment + separator)
    await response.write(event)
    await response.write_eof()
    return response


class _Stub:
    """Answers every call with the same result, as JSON or by a stream."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/count":
            return web.json_response({"count": self.count})
        body = await request.read()
        call = _DECODER.decode(body)
        self.count += 1
        if _STREAMED in body:
            return await _stream(request, _ANSWER % bytes(call.id))
        return web.Response(body=_ANSWER % bytes(call.id), content_type="application/json")


class _PassThrough:
    """Forwards every call: what any HTTP proxy written with aiohttp must do."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        async with self._session.post(self._url, data=await request.read(), headers=headers) as answer:
            if answer.content_type == "text/event-stream":
                passed = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
                await passed.prepare(request)
                async for chunk in answer.content.iter_any():
                    await passed.write(chunk)
                await passed.write_eof()
                return passed
            body = await answer.read()
            return web.Response(status=answer.status, body=body, content_type=answer.content_type)


async def _serve(kind: str, upstream: str = "") -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        handler = _Stub() if kind == "stub" else _PassThrough(upstream, session)
        server = web.Server(handler, access_log=None)
        running = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        sys.stdout.write(json.dumps({"port": running.sockets[0].getsockname()[1]}) + "\n")
        sys.stdout.flush()
        await running.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    asyncio.run(_serve(*sys.argv[1:]))


if __name__ == "__main__":
    main()
