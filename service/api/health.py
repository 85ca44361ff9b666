"""Liveness, readiness and metrics.

Where one log has the process to itself, they are for everybody. Where there are several, strangers hear whether the
service works, a token's holder how his own log is, and the operator's token opens all of it: names and figures of one
tenant are no other's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.common import HostingDep, authenticated, bearer_of, json_response
from service.auth import Permission, require
from service.health import Check
from service.hosting import Hosting
from service.problems import UnauthenticatedError
from service.tls import certificate_checks
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives", response_description="It lives.")
async def healthz() -> Response:
    """Answer."""
    return json_response({"status": "ok"})


@router.get(
    "/readyz", summary="The service can take and prove records", response_description="Every part that matters is well."
)
async def readyz(request: Request, hosting: HostingDep) -> Response:
    """Look at every part; 503 if one that matters is not well. With several logs: of the token's log, or of all."""
    if hosting.only is not None:
        return await _of_one(hosting.only, certificate_checks(hosting.certificates))
    token = bearer_of(request)
    if token is None or hosting.is_operator(token):
        return await _of_all(hosting, named=token is not None)
    await authenticated(request)
    return await _of_one(request.state.services)


async def _of_one(services: Services, more: Sequence[Check] = ()) -> Response:
    checks = (*await services.readiness.look(services), *more)
    ready = _ready(checks)
    body = {"ready": ready, "simulated": services.identity.simulated, "checks": [asdict(check) for check in checks]}
    return json_response(body, 200 if ready else 503)


def _ready(checks: Sequence[Check]) -> bool:
    return all(check.ok for check in checks if check.vital)


async def _of_all(hosting: Hosting, *, named: bool) -> Response:
    """Say whether any log can be served: one that cannot is no reason to take the others out of rotation."""
    states = await hosting.look()
    ready, all_ready = any(state.ready for state in states), all(state.ready for state in states)
    detail = "all logs are ready" if all_ready else "a log is not ready; the operator's token shows which"
    body: dict[str, object] = {
        "ready": ready,
        "checks": [asdict(Check(name="logs", ok=all_ready, vital=False, detail=detail))],
    }
    if named:
        body["certificates"] = [asdict(check) for check in certificate_checks(hosting.certificates)]
        body["logs"] = [asdict(state) for state in states]
    return json_response(body, 200 if ready else 503)


@router.get("/metrics", summary="Prometheus metrics", response_description="The metrics, as text.")
async def metrics(request: Request, hosting: HostingDep) -> Response:
    """Return the exposition text. With several logs: of the token's log, or of all for the operator's token."""
    token = bearer_of(request)
    if hosting.only is not None:
        services = hosting.only
    elif token is None:
        raise UnauthenticatedError("a token is needed where several logs are served")
    elif hosting.is_operator(token):
        return Response(await asyncio.to_thread(hosting.render_metrics), media_type=CONTENT_TYPE_LATEST)
    else:
        require(await authenticated(request), Permission.READ_LOG)
        services = request.state.services
    text = await asyncio.to_thread(services.metrics.render, services)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
