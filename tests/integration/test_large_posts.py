"""Bodies of several megabytes on the way to the service: whole, with their length, and without holding up the rest."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from enforcement.batches import QueuedRecord
from enforcement.ledger_client import ServiceClient, encode_submission
from enforcement.ports import Posted
from ledger.ports import Opening


def test_a_body_of_several_megabytes_arrives_whole_and_with_its_length() -> None:
    opening = Opening("message", bytes(16), bytes(3 << 20))
    large = QueuedRecord(position=1, record_id="id-1", epoch="0" * 32, seq=1, entry=b"{}", openings=(opening,))

    async def post() -> tuple[object, list[tuple[str, bytes]]]:
        taken: list[tuple[str, bytes]] = []

        async def take(request: web.Request) -> web.Response:
            taken.append((request.headers["Content-Length"], await request.read()))
            return web.Response(
                body=json.dumps({"results": [{"record_id": "id-1", "leaf_index": 5}]}).encode(), status=201
            )

        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/decisions", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with ServiceClient(url, "token", timeout_seconds=20) as client:
                return await client.post([large]), taken
        finally:
            await runner.cleanup()

    posted, taken = asyncio.run(post())
    line = encode_submission(large)
    assert posted == Posted((5,))
    assert taken == [(str(len(line)), line)]
