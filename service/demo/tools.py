"""The demonstration's MCP servers, built with the official SDK: ``python -m service.demo.tools``.

Four servers in one process, each below its own path (``/finance/mcp``, …). ``/counters`` tells how often each tool
really ran: that is how the demonstration shows that a denied call never arrived. The port is printed as one JSON line.

They end with whoever started them, however he ended: their standard input is a pipe of which he holds the other end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

__all__ = ["create_app", "main"]


def _finance(ran: Counter[str]) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("finance")

    @server.tool(name="Payroll-DB", description="Read a month of the payroll.")
    def payroll(month: str) -> dict[str, Any]:
        ran["finance/Payroll-DB"] += 1
        return {"month": month, "employees": 214, "gross_total": "1204331.07"}

    @server.tool(description="Refund a customer.")
    def refund_customer(customer_id: str, amount: Decimal) -> dict[str, str]:
        ran["finance/refund_customer"] += 1
        return {"customer_id": customer_id, "refunded": str(amount)}

    @server.tool(description="Transfer funds to an account.")
    def transfer_funds(account: str, amount: Decimal) -> dict[str, str]:
        ran["finance/transfer_funds"] += 1
        return {"account": account, "transferred": str(amount)}

    return server


def _support(ran: Counter[str]) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("support")

    @server.tool(description="Export customers with their contact data.")
    def export_customers(limit: int) -> dict[str, int]:
        ran["support/export_customers"] += 1
        return {"exported": limit}

    return server


def _healthcare(ran: Counter[str]) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("healthcare")

    @server.tool(description="Read patient records.")
    def get_patient_records(limit: int) -> list[dict[str, str]]:
        ran["healthcare/get_patient_records"] += 1
        return [{"patient": f"P-{number:05d}", "note": "seen, well"} for number in range(min(limit, 100))]

    return server


def _retail(ran: Counter[str]) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("retail")

    @server.tool(description="Set the price of an article.")
    def update_price(
        sku: str | None = None, price: Decimal | None = None, item: dict[str, Any] | None = None
    ) -> dict[str, str]:
        ran["retail/update_price"] += 1
        given = {"sku": sku, "price": price, **(item or {})}
        return {"sku": str(given["sku"]), "price": str(given["price"])}

    return server


def create_app() -> Starlette:
    """Return the four servers and their counters as one application."""
    ran: Counter[str] = Counter()
    # The servers listen on the loopback address for this demonstration's own gateway; they check no Host header.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    apps = {
        build.__name__.removeprefix("_"): build(ran).streamable_http_app(transport_security=security)
        for build in (_finance, _support, _healthcare, _retail)
    }

    async def counters(_request: Request) -> JSONResponse:
        return JSONResponse(dict(ran))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    routes = [Route("/counters", counters), *[Mount(f"/{name}", app) for name, app in apps.items()]]
    return Starlette(routes=routes, lifespan=lifespan)


async def _serve() -> None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(), log_config=None, access_log=False))
    sys.stdout.write(json.dumps({"port": listening.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    watching = asyncio.create_task(_stop_with_parent(server))
    await server.serve(sockets=[listening])
    watching.cancel()


async def _stop_with_parent(server: uvicorn.Server) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    server.should_exit = True


def main() -> None:
    """Serve until the process is ended."""
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
