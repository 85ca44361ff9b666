"""Policy bundles: published, listed, and fetched by enforcers. The steps of their lives are in `bundle_steps`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from policies.bundle_lives import RecordedEvent, RegistryState
from policies.bundles import MAX_BUNDLE_BYTES, Bundle, parse_archive
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of

__all__ = ["Revision", "router", "state_view", "step_view"]

router = APIRouter(tags=["bundles"], responses=PROBLEMS, route_class=ServiceRoute)

_ARCHIVE_TYPE = "application/vnd.tallystick.bundle+json"
Revision = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def _archive(bundle: Bundle, if_none_match: str | None) -> Response:
    tag = f'"{bundle.revision}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if if_none_match is not None and tag in [item.strip() for item in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(bundle.archive(), media_type=_ARCHIVE_TYPE, headers=headers)


def state_view(state: RegistryState) -> dict[str, object]:
    """Return what bundles there are, as routes tell it."""
    return {
        "active": state.active,
        "previous": state.previous,
        "published": [
            {"revision": revision, "name": life.name, "stage": life.stage} for revision, life in state.lives.items()
        ],
    }


def step_view(item: RecordedEvent) -> dict[str, object]:
    """Return a recorded step, as routes tell it; what a step does not say is left out."""
    event = item.event
    always: dict[str, object] = {
        "leaf_index": item.leaf_index,
        "time_ms": item.time_ms,
        "action": event.action,
        "name": event.name,
        "revision": event.revision,
        "previous_revision": event.previous_revision,
        "actor": event.actor,
        "actor_role": event.actor_role,
    }
    if event.action == "tested":
        members = ("engine_version", "cases", "failures", "uncovered_rules", "uncovered")
        return always | {name: getattr(event, name) for name in members}
    if event.action == "reviewed":
        return always | {"verdict": event.verdict}
    return always | ({"unreviewed": True} if event.unreviewed else {})


def _published(bundle: Bundle, state: RegistryState) -> dict[str, object]:
    life = state.lives[bundle.revision]
    told = {"revision": bundle.revision, "name": bundle.manifest.name, "stage": life.stage, "obstacle": life.unready()}
    return {**told, **state_view(state)}


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
    """Publish an archive; it is loaded and its test cases are run first. It is a draft, and not yet active."""
    bundle = parse_archive(await read_body(request, 2 * MAX_BUNDLE_BYTES))
    state = await services.bundles.publish(bundle, actor_of(caller, services.keys))
    return json_response(_published(bundle, state), 201)


@router.get(
    "/v1/bundles", summary="Published bundles and their history", response_description="Bundles, and the steps of each."
)
async def list_bundles(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.READ_BUNDLES))]
) -> Response:
    """Return which bundles there are, which is active, and every recorded step."""
    events = [step_view(item) for item in await services.bundles.history()]
    return json_response({**state_view(await services.bundles.state()), "history": events})


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
    revision: Revision,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a bundle by its digest, active or not."""
    return _archive(await services.bundles.bundle(revision), if_none_match)
