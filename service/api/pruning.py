"""Pruning: the log's minimum index is moved forward. Where it stands is told beside the checkpoint (`logs`)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import Field

from ledger.canonical import MAX_SAFE_INTEGER
from ledger.pruning import PruneOrder
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission

__all__ = ["router"]

router = APIRouter(tags=["erasure and retention"], responses=PROBLEMS, route_class=ServiceRoute)


class PruneRequest(RequestBody):
    """Up to where."""

    below: Annotated[
        int, Field(ge=0, le=MAX_SAFE_INTEGER, strict=True, description="the new minimum index, a multiple of 256")
    ]
    dry_run: Annotated[bool, Field(description="only say whether it could be done")] = False


@router.post(
    "/v1/minimum-index",
    summary="Prune the log by its minimum index",
    response_description="Entries below the index are no longer served, or would not be.",
)
async def prune(
    services: ServicesDep, caller: Annotated[Caller, Depends(permitted(Permission.ERASE))], wanted: PruneRequest
) -> Response:
    """Move the minimum index forward; that it was moved, by whom and under which policy, is recorded.

    Refused unless every record below it is past the time that the retention policy states for the log, and while a
    legal hold covers one of them. Nothing is deleted.
    """
    order = PruneOrder(below=wanted.below, actor=services.access.actor(caller), actor_role=caller.role.value)
    done = await services.pruner.prune(order, dry_run=wanted.dry_run)
    return json_response(
        {
            "dry_run": wanted.dry_run,
            "before": done.before,
            "below": done.below,
            "recorded_leaf": done.recorded_leaf,
            "policy": services.pruner.policy.digest,
        }
    )
