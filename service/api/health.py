"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.common import ServicesDep, json_response

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives", response_description="It lives.")
async def healthz() -> Response:
    """Answer."""
    return json_response({"status": "ok"})


@router.get(
    "/readyz", summary="The service can take and prove records", response_description="Every part that matters is well."
)
async def readyz(services: ServicesDep) -> Response:
    """Look at every part; 503 if one that matters is not well."""
    checks = await services.readiness.look(services)
    ready = all(check.ok for check in checks if check.vital)
    body = {"ready": ready, "simulated": services.identity.simulated, "checks": [asdict(check) for check in checks]}
    return json_response(body, 200 if ready else 503)


@router.get("/metrics", summary="Prometheus metrics", response_description="The metrics, as text.")
async def metrics(services: ServicesDep) -> Response:
    """Return the exposition text."""
    text = await asyncio.to_thread(services.metrics.render, services)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
