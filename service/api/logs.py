"""The log itself, as C2SP tlog-tiles: checkpoint, tiles, entry bundles."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from ledger.errors import MalformedError, NotFoundError
from ledger.tiles import BUNDLE_LEVEL, CHECKPOINT_PATH, TILE_WIDTH, TileCoordinate, parse_tile_path
from service.api.common import PROBLEMS, authenticated, json_response, log_of_path
from service.api.description import asks
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.problems import Problem
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["log"], responses=PROBLEMS, route_class=ServiceRoute)

_LogId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


def _cache(services: Services, directives: str) -> str:
    return f"{'public' if services.settings.public_log else 'private'}, {directives}"


@router.get(
    "/logs/{log_id}/checkpoint",
    summary="The newest checkpoint",
    response_description="The checkpoint, a signed note.",
    openapi_extra=asks(Permission.READ_LOG),
)
async def get_checkpoint(request: Request, log_id: _LogId) -> Response:
    """Return the exposed checkpoint, a signed note."""
    services = await log_of_path(request, log_id, Permission.READ_LOG, public=True)
    data = await asyncio.to_thread(services.tiles.get, log_id, CHECKPOINT_PATH)
    headers = {"Cache-Control": _cache(services, "max-age=1")}
    return Response(data, media_type="text/plain; charset=utf-8", headers=headers)


@router.get(
    "/logs/{log_id}/minimum-index",
    summary="The minimum index",
    response_description="Entries below it are no longer served; with the record and the policy that say so.",
    openapi_extra=asks(Permission.READ_LOG),
)
async def get_minimum_index(request: Request, log_id: _LogId) -> Response:
    """Return the leaf index under which entry bundles are no longer served, 0 if the log was never pruned."""
    services = await log_of_path(request, log_id, Permission.READ_LOG, public=True)
    minimum, leaf = await asyncio.to_thread(services.minimum_index.look)
    policy = services.pruner.policy
    answer = {
        "log_id": log_id,
        "minimum_index": minimum,
        "recorded_leaf": leaf,
        "policy": policy.digest,
        "classes": [name for name in policy.classes if name.startswith("log:")],
    }
    return json_response(answer, headers={"Cache-Control": _cache(services, "max-age=1")})


@router.get(
    "/logs/{log_id}/tile/{path:path}",
    summary="A tile or an entry bundle",
    response_description="The tile's or entry bundle's bytes.",
    openapi_extra=asks(Permission.READ_LOG),
)
async def get_tile(request: Request, log_id: _LogId, path: str) -> Response:
    """Return a tile's or bundle's bytes; they never change, also of a partial that was collected meanwhile.

    Bundles are for whole-log auditors; that is recorded.
    """
    try:
        coordinate = parse_tile_path(f"tile/{path}")
    except MalformedError:
        raise NotFoundError("no such tile") from None
    is_bundle = coordinate.level == BUNDLE_LEVEL
    permission = Permission.READ_ENTRIES if is_bundle else Permission.READ_LOG
    # INVARIANT 12: log endpoints need a token unless the operator makes the log public; entries always do.
    services = await log_of_path(request, log_id, permission, public=not is_bundle)
    if is_bundle:
        await asyncio.to_thread(_require_served, services, coordinate)
    data = await asyncio.to_thread(services.prover.file, coordinate)
    if is_bundle:
        await _record_export(services, await authenticated(request), coordinate, data)
    cache = "private, no-store" if is_bundle else _cache(services, "max-age=31536000, immutable")
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": cache})


def _require_served(services: Services, coordinate: TileCoordinate) -> None:
    """Answer 404 for a bundle that ends at or before the minimum index (tlog-tiles, "Pruning")."""
    minimum = services.minimum_index.current()
    if coordinate.number * TILE_WIDTH + coordinate.width <= minimum:
        detail = f"entries below leaf {minimum} are no longer served: the log was pruned by its published minimum index"
        raise Problem(404, "pruned", "No longer served", detail, minimum_index=minimum)


async def _record_export(services: Services, caller: Caller, coordinate: TileCoordinate, data: bytes) -> None:
    """Record that somebody takes records of the log away, before he has them."""
    digest = hashlib.sha256(data).hexdigest()
    draft = services.access.draft(
        caller, "export_entries", "log", target_id=coordinate.path, items=coordinate.width, digest=digest
    )
    await services.access.record([draft])
