"""Policy bundles: published, activated, rolled back, and fetched by enforcers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response
from pydantic import Field

from ledger.errors import NotFoundError
from policies.bundles import MAX_BUNDLE_BYTES, Bundle, parse_archive
from policies.registry import Actor, RegistryState
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.wiring import Services

__all__ = ["router"]

router = APIRouter(tags=["bundles"], responses=PROBLEMS, route_class=ServiceRoute)

_ARCHIVE_TYPE = "application/vnd.tallystick.bundle+json"
_Revision = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def _actor(services: Services, caller: Caller) -> Actor:
    return Actor(services.access.actor(caller), caller.role.value)


def _archive(bundle: Bundle, if_none_match: str | None) -> Response:
    tag = f'"{bundle.revision}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if if_none_match is not None and tag in [item.strip() for item in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(bundle.archive(), media_type=_ARCHIVE_TYPE, headers=headers)


def _state(state: RegistryState) -> dict[str, object]:
    return {
        "active": state.active,
        "previous": state.previous,
        "published": [{"revision": revision, "name": name} for revision, name in state.published.items()],
    }


@router.post(
    "/v1/bundles",
    status_code=201,
    summary="Publish a bundle",
    response_description="The published bundles, with this one, which is not yet active by that.",
)
async def publish_bundle(
    request: Request,
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.PUBLISH_BUNDLES))],
) -> Response:
    """Publish an archive; it is loaded and checked first, and not yet active."""
    bundle = parse_archive(await read_body(request, 2 * MAX_BUNDLE_BYTES))
    state = await services.bundles.publish(bundle, _actor(services, caller))
    return json_response({"revision": bundle.revision, "name": bundle.manifest.name, **_state(state)}, 201)


@router.get(
    "/v1/bundles", summary="Published bundles and their history", response_description="Bundles, and the steps of each."
)
async def list_bundles(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.READ_BUNDLES))]
) -> Response:
    """Return which bundles there are, which is active, and every recorded step."""
    events = [
        {
            "leaf_index": item.leaf_index,
            "time_ms": item.time_ms,
            "action": item.event.action,
            "name": item.event.name,
            "revision": item.event.revision,
            "previous_revision": item.event.previous_revision,
            "actor": item.event.actor,
            "actor_role": item.event.actor_role,
        }
        for item in await services.bundles.history()
    ]
    return json_response({**_state(await services.bundles.state()), "history": events})


@router.get(
    "/v1/bundles/active",
    summary="The active bundle's archive",
    response_description="The archive; its ETag is the revision.",
)
async def get_active_bundle(
    services: ServicesDep,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_ACTIVE_BUNDLE))],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return the bundle that enforcers decide on; its revision is the ETag."""
    bundle = await services.bundles.active_bundle()
    if bundle is None:
        raise NotFoundError("no bundle is active")
    return _archive(bundle, if_none_match)


@router.get("/v1/bundles/{revision}", summary="A published bundle's archive", response_description="The archive.")
async def get_bundle(
    services: ServicesDep,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_BUNDLES))],
    revision: _Revision,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a bundle by its digest, active or not."""
    return _archive(await services.bundles.bundle(revision), if_none_match)


class StepRequest(RequestBody):
    """Why a bundle is activated or rolled back."""

    comment: Annotated[str | None, Field(max_length=1000, description="recorded, in the vault")] = None


@router.post(
    "/v1/bundles/{revision}/activation",
    summary="Make a bundle the active one",
    response_description="It is active from now on.",
)
async def activate_bundle(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ACTIVATE_BUNDLES))],
    revision: _Revision,
    step: StepRequest | None = None,
) -> Response:
    """Activate a published bundle; enforcers take it up at their next poll."""
    comment = step.comment if step else None
    state = await services.bundles.activate(revision, _actor(services, caller), comment)
    return json_response(_state(state))


@router.post(
    "/v1/bundles/rollback",
    summary="Make the bundle before this one active again",
    response_description="The bundle before is active again.",
)
async def roll_back_bundle(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ACTIVATE_BUNDLES))],
    step: StepRequest | None = None,
) -> Response:
    """Roll back one activation."""
    state = await services.bundles.roll_back(_actor(services, caller), step.comment if step else None)
    return json_response(_state(state))
