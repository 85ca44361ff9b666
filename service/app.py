"""The FastAPI application over a set of services."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.api import access, bundles, decisions, health, logs, packs, replays, sessions
from service.api.description import describe
from service.version import VERSION
from service.web import routes as web
from service.wiring import Services

__all__ = ["create_app"]

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_DESCRIPTION = """
An immutable audit ledger and compliance evidence service for AI agents that call tools over MCP.

Every route but health and login needs `Authorization: Bearer <token>`; a token names one log and one role.
Errors are problem details (RFC 9457).
"""


class _Measured:
    """Counts and times every request, and adds headers that every answer should have and does not set itself."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._metrics = services.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [item for item in _SECURITY_HEADERS if item[0] not in names]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            # The route's pattern, not the path: a path may hold ids, and any path at all if there is no route.
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(scope["method"], route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)


def create_app(services: Services) -> FastAPI:
    """Return the application; its lifespan starts and stops the services."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    app = FastAPI(
        title="Tallystick",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        # The interactive pages of FastAPI load scripts from elsewhere; ours are in `web`.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.services = services
    problems.install(app)
    routers = [module.router for module in (decisions, sessions, replays, bundles, packs, logs, access, health)]
    for router in routers:
        app.include_router(router)
    describe(app, routers)
    web.install(app, services)
    app.add_middleware(_Measured, services=services)
    return app
