"""Bundles as a stock OPA pulls them: tar.gz, with an entity tag, and held until there is another one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from policies.opa_archive import MEDIA_TYPE
from service.api.bundle_waiting import active_revision, etag, names_revision
from service.api.bundles import Revision
from service.api.common import PROBLEMS, ServicesDep, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission

__all__ = ["router"]

router = APIRouter(tags=["bundles"], responses=PROBLEMS, route_class=ServiceRoute)


@router.get(
    "/v1/opa/bundles/active.tar.gz",
    summary="The active bundle, for a stock OPA",
    response_description="The bundle as tar.gz; its ETag is the revision.",
)
async def get_active_opa_bundle(
    services: ServicesDep,
    request: Request,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_ACTIVE_BUNDLE))],
) -> Response:
    """Return the active bundle as OPA loads it; with `Prefer: wait=N`, once it is another than `If-None-Match` says."""
    found = await active_revision(services, request)
    if found.revision is None:
        raise NotFoundError("no bundle is active")
    if names_revision(request, found.revision):
        # OPA takes the type, also of this answer, for a word on whether it may ask us to wait.
        return Response(status_code=304, media_type=MEDIA_TYPE, headers=found.headers)
    data = await services.opa_archives.archive(await services.bundles.bundle(found.revision))
    return Response(data, media_type=MEDIA_TYPE, headers=found.headers)


@router.get(
    "/v1/opa/bundles/{revision}.tar.gz",
    summary="A published bundle, for a stock OPA",
    response_description="The bundle as tar.gz.",
)
async def get_opa_bundle(
    services: ServicesDep,
    request: Request,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_BUNDLES))],
    revision: Revision,
) -> Response:
    """Return a bundle by its digest, active or not, as OPA loads it."""
    bundle = await services.bundles.bundle(revision)
    headers = {"ETag": etag(revision), "Cache-Control": "private, no-cache"}
    if names_revision(request, revision):
        return Response(status_code=304, media_type=MEDIA_TYPE, headers=headers)
    return Response(await services.opa_archives.archive(bundle), media_type=MEDIA_TYPE, headers=headers)
