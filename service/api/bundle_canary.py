"""The canary: enforcers evaluate it beside the active bundle; it decides nothing, and differences are recorded."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from service.api.bundle_steps import StepRequest
from service.api.bundle_waiting import etag, names_revision
from service.api.bundles import Revision, archive_response, state_view
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of
from service.canary_reports import EnforcerCounts, canary_report

__all__ = ["router"]

router = APIRouter(tags=["bundles"], responses=PROBLEMS, route_class=ServiceRoute)

_Activator = Annotated[Caller, Depends(permitted(Permission.ACTIVATE_BUNDLES))]


@router.get(
    "/v1/bundles/canary",
    summary="The canary's archive",
    response_description="The archive; its ETag is the revision.",
)
async def get_canary(
    services: ServicesDep,
    request: Request,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_ACTIVE_BUNDLE))],
) -> Response:
    """Return the bundle that enforcers evaluate beside the active one."""
    revision = (await services.bundles.state()).canary
    if revision is None:
        raise NotFoundError("there is no canary")
    headers = {"ETag": etag(revision), "Cache-Control": "private, no-cache"}
    if names_revision(request, revision):
        return Response(status_code=304, headers=headers)
    return archive_response(await services.bundles.bundle(revision), headers)


@router.post(
    "/v1/bundles/{revision}/canary",
    summary="Have a bundle evaluated in shadow",
    response_description="It is the canary from now on, in place of another one.",
)
async def start_canary(
    services: ServicesDep, caller: _Activator, revision: Revision, step: StepRequest | None = None
) -> Response:
    """Have enforcers evaluate a published bundle whose tests pass beside the active one; it decides nothing."""
    comment = step.comment if step else None
    return json_response(
        state_view(await services.bundles.start_canary(revision, actor_of(caller, services.keys), comment))
    )


@router.post(
    "/v1/bundles/canary/end",
    summary="Have nothing evaluated in shadow",
    response_description="There is no canary any more.",
)
async def end_canary(services: ServicesDep, caller: _Activator, step: StepRequest | None = None) -> Response:
    """End the canary, if there is one."""
    comment = step.comment if step else None
    return json_response(state_view(await services.bundles.end_canary(actor_of(caller, services.keys), comment)))


@router.get(
    "/v1/bundles/{revision}/canary",
    summary="What a canary would have decided otherwise",
    response_description="Counts by enforcer, and flips with their latest decisions.",
)
async def get_canary_report(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))], revision: Revision
) -> Response:
    """Return what enforcers recorded of a bundle while it was the canary, now or earlier."""
    life = await services.bundles.life(revision)
    running = (await services.bundles.state()).canary == revision
    report = await asyncio.to_thread(
        canary_report, revision, life.published_leaf, services.identity.log_id, services.catalog, services.reader
    )
    return json_response(
        {
            "revision": revision,
            "name": life.name,
            "running": running,
            "enforcers": [_counts(item) for item in report.enforcers],
            "flips": {name: asdict(flip) for name, flip in report.flips.items()},
            "differing": report.differing,
            "complete": report.complete,
        }
    )


def _counts(item: EnforcerCounts) -> dict[str, object]:
    return {**asdict(item), "compared": item.compared}
