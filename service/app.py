"""The FastAPI application over the logs that a process serves."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.errors import TallystickError
from service import failures, problems
from service.api import (
    access,
    access_requests,
    approvals,
    authzen,
    bundle_canary,
    bundle_steps,
    bundles,
    containments,
    decisions,
    discoveries,
    drift,
    enrolments,
    erasures,
    exports,
    fleet,
    fleet_windows,
    health,
    holds,
    impacts,
    inventory,
    keys,
    logs,
    modes,
    opa,
    opa_bundles,
    packs,
    pruning,
    replays,
    sessions,
    tools,
    webhooks,
)
from service.api.description import describe
from service.auth import Caller, Role
from service.health import Metrics
from service.hosting import Hosting, alone
from service.version import VERSION
from service.web import routes as web
from service.wiring.services import Services

__all__ = ["AnswerBrokenOffError", "create_app"]

_log = structlog.get_logger()

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
"""No path of ours has these; a router's pattern lets a line feed at a path's end pass as if it were not there."""

_DECISION_POINT: Final = "/access/v1/"

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


class AnswerBrokenOffError(TallystickError):
    """An answer failed after it had begun: the server must break the connection off, or half would pass for whole."""


class _Outermost:
    """Counts and times every request, adds headers that answers should have, and contains what nobody expected.

    An unexpected error ends here: the server, to which it would go next, prints its message (see `failures`).
    """

    def __init__(self, app: ASGIApp, hosting: Hosting) -> None:
        self._app = app
        self._hosting = hosting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [*message.get("headers", ()), *_request_id(scope), *_time(scope)]
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [item for item in _SECURITY_HEADERS if item[0] not in names]
            await send(message)

        try:
            if _CONTROL.search(scope["path"]) is not None:
                await problems.control_characters(scope["path"])(scope, receive, send_with_headers)
                return
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001  # whatever it was, its message must not reach the server's log
            _log.error("request_failed", **failures.describe(error))
            if status is not None:
                raise AnswerBrokenOffError from None
            await problems.internal_error(scope["path"])(scope, receive, send_with_headers)
        finally:
            # The route's pattern, not the path, and no method that was made up: what a caller may choose freely would
            # make ever new time series.
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics = self._metrics(scope)
            metrics.requests.labels(method, route, str(status or 500)).inc()
            metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    def _metrics(self, scope: Scope) -> Metrics:
        """Return the metrics of the log that a request turned out to be for, or of the process."""
        services: Services | None = scope.get("state", {}).get("services")
        return self._hosting.metrics if services is None else services.metrics


def _request_id(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the header by which a caller of the decision point knows its answer again, errors included.

    Source: AuthZEN Authorization API 1.0, section "Request Identification in a Response".
    """
    if not scope["path"].startswith(_DECISION_POINT):
        return []
    return [(name, value) for name, value in scope["headers"] if name == b"x-request-id"][:1]


def _time(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the header by which an enforcer measures its clock: the service's time, POSIX milliseconds."""
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    services: Services | None = state.get("services")
    if caller is None or services is None or caller.role is not Role.ENFORCER:
        return []
    return [(b"tallystick-time", b"%d" % services.clock.now_ms())]


def create_app(served: Services | Hosting) -> FastAPI:
    """Return the application; its lifespan starts and stops what it serves: one log's parts, or a hosting of logs."""
    hosting = served if isinstance(served, Hosting) else alone(served)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await hosting.start()
        try:
            yield
        finally:
            await hosting.stop()

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
    app.state.hosting = hosting
    problems.install(app)
    routers = [
        module.router
        for module in (
            *(
                decisions,
                discoveries,
                drift,
                sessions,
                replays,
                impacts,
                bundle_canary,
                bundles,
                bundle_steps,
                approvals,
                containments,
                opa_bundles,
                packs,
                erasures,
                holds,
                inventory,
                modes,
                tools,
                pruning,
                webhooks,
            ),
            *(fleet_windows, exports, logs, access, enrolments, fleet, keys, health, authzen, access_requests, opa),
        )
    ]
    for router in routers:
        app.include_router(router)
    describe(app, routers)
    web.install(app, hosting)
    app.add_middleware(_Outermost, hosting=hosting)
    return app
