"""The witness over HTTP: ``POST <prefix>/add-checkpoint``, ``GET /healthz``. Nobody needs a token to be witnessed.

What is answered is `ledger.witnesses.server`'s part; here are sizes, threads, and the error that has no answer there.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ledger.errors import LedgerError
from ledger.ports import AddCheckpointService

__all__ = ["create_witness_app"]

_log = structlog.get_logger()


async def _read(request: Request, most_bytes: int) -> bytes | None:
    """Return the body, or None if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            return None
    return bytes(body)


def create_witness_app(witness: AddCheckpointService, *, max_request_bytes: int, max_seconds: float) -> Starlette:
    """Return the application of one witness.

    Args:
        witness: Answers.
        max_request_bytes: Largest request body.
        max_seconds: Longest time that a body may take to arrive.
    """

    async def add_checkpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(max_seconds):
                body = await _read(request, max_request_bytes)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("the request took too long\n", 408)
        if body is None:
            return PlainTextResponse("the request is too large\n", 413)
        try:
            reply = await asyncio.to_thread(witness.add_checkpoint, body)
        except LedgerError as error:
            # Nothing was cosigned. What failed is for the operator's log, not for a stranger.
            _log.error("witness_failed", error=type(error).__name__)
            return PlainTextResponse("nothing was cosigned\n", 500)
        _log.info("witness_answered", status=reply.status)
        return Response(reply.body, reply.status, {"Content-Type": reply.media_type})

    async def healthz(_: Request) -> Response:
        await asyncio.sleep(0)
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
        ]
    )
