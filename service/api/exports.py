"""Decisions for tools that gather security events."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from evidence.ocsf import OCSF_VERSION
from ledger.canonical import MAX_SAFE_INTEGER
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.exports import MAX_LEAVES, ocsf_page
from service.left_out import of_the_pruned as left_out_of_the_pruned

__all__ = ["router"]

router = APIRouter(tags=["exports"], responses=PROBLEMS, route_class=ServiceRoute)


class ExportStretch(BaseModel):
    """Query parameters of an export."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[
        int | None,
        Query(ge=0, le=MAX_SAFE_INTEGER, description="the leaf behind which to go on: `after` of the page before"),
    ] = None
    time_from_ms: Annotated[int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="POSIX milliseconds")] = None
    time_to_ms: Annotated[int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="exclusive")] = None
    leaves: Annotated[int, Query(ge=1, le=MAX_LEAVES, description="how many leaves to look at, at most")] = MAX_LEAVES


@router.get(
    "/v1/exports/ocsf",
    summary="Decisions as OCSF API Activity events, in the order of the log",
    response_description="Events, the leaf to go on behind, and whether more is there by now.",
)
async def export_ocsf(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))],
    wanted: Annotated[ExportStretch, Query()],
) -> Response:
    """Read on behind a leaf, as far as a checkpoint covers the log; a page without events need not be the last."""
    page = await asyncio.to_thread(
        ocsf_page,
        services,
        after=wanted.after,
        from_ms=wanted.time_from_ms,
        to_ms=wanted.time_to_ms,
        leaves=wanted.leaves,
    )
    minimum = await asyncio.to_thread(services.minimum_index.current)
    if page.items:  # who follows the log asks often, and of what nobody was given there is nothing to record
        await services.access.record([services.access.draft(caller, "query", "decisions", items=len(page.items))])
    return json_response(
        {
            "ocsf_version": OCSF_VERSION,
            "items": page.items,
            "after": page.after,
            "complete": page.complete,
            "left_out": left_out_of_the_pruned(minimum),
        }
    )
