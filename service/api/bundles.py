"""Policy bundles: published, listed, and fetched by enforcers. The steps of their lives are in `bundle_steps`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from policies.bundle_lives import RecordedEvent, RegistryState
from policies.bundles import Bundle, parse_archive
from policies.opa_archive import MAX_OPA_ARCHIVE_BYTES, MEDIA_TYPE, parse_opa_archive
from service.api.bundle_waiting import active_revision, etag, names_revision
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of

__all__ = ["Revision", "archive_response", "router", "state_view", "step_view"]

router = APIRouter(tags=["bundles"], responses=PROBLEMS, route_class=ServiceRoute)

_PACKED = frozenset({"application/gzip", "application/x-gzip", MEDIA_TYPE})
_ARCHIVE_TYPE = "application/vnd.tallystick.bundle+json"
Revision = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def archive_response(bundle: Bundle, headers: dict[str, str]) -> Response:
    """Return a bundle's archive as an answer."""
    return Response(bundle.archive(), media_type=_ARCHIVE_TYPE, headers=headers)


def state_view(state: RegistryState) -> dict[str, object]:
    """Return what bundles there are, as routes tell it."""
    return {
        "active": state.active,
        "previous": state.previous,
        "canary": state.canary,
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
    if event.action == "signed":
        return always | {"signature": event.signature, "signers": event.signers}
    if event.action == "reviewed":
        return always | {"verdict": event.verdict}
    if event.action == "rolled_back":
        always |= {name: getattr(event, name) for name in ("replayed", "loosened", "unknown")}
    if event.source is not None:
        always |= {"source": event.source}
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
    commit: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$", description="of git; recorded")
    ] = None,
) -> Response:
    """Publish an archive, or a tar.gz (`application/gzip`); it is loaded and tested first, and not yet active."""
    data = await read_body(request, MAX_OPA_ARCHIVE_BYTES)
    packed = request.headers.get("content-type", "").partition(";")[0].strip().lower() in _PACKED
    bundle = await asyncio.to_thread(parse_opa_archive if packed else parse_archive, data)
    state = await services.bundles.publish(
        bundle, actor_of(caller, services.keys), source=None if commit is None else f"git:{commit}"
    )
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
    request: Request,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_ACTIVE_BUNDLE))],
) -> Response:
    """Return the bundle that enforcers decide on; with `Prefer: wait=N`, once `If-None-Match` does not name it."""
    found = await active_revision(services, request)
    if found.revision is None:
        raise NotFoundError("no bundle is active")
    if names_revision(request, found.revision):
        return Response(status_code=304, headers=found.headers)
    return archive_response(await services.bundles.bundle(found.revision), found.headers)


@router.get("/v1/bundles/{revision}", summary="A published bundle's archive", response_description="The archive.")
async def get_bundle(
    services: ServicesDep,
    request: Request,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_BUNDLES))],
    revision: Revision,
) -> Response:
    """Return a bundle by its digest, active or not."""
    headers = {"ETag": etag(revision), "Cache-Control": "private, no-cache"}
    bundle = await services.bundles.bundle(revision)
    if names_revision(request, revision):
        return Response(status_code=304, headers=headers)
    return archive_response(bundle, headers)
