"""The steps of a policy bundle's life: tested, reviewed, activated, rolled back, retired; and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import Field

from ledger.errors import ConflictError
from policies.bundle_lives import BundleLife, RecordedEvent, RegistryState
from policies.signatures import MAX_SIGNATURE_BYTES
from service.api.bundles import Revision, state_view, step_view
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundle_effect import Effect, effects
from service.bundles import actor_of
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["bundles"], responses=PROBLEMS, route_class=ServiceRoute)

_Reviewer = Annotated[Caller, Depends(permitted(Permission.REVIEW_BUNDLES))]
_Activator = Annotated[Caller, Depends(permitted(Permission.ACTIVATE_BUNDLES))]
_Comment = Annotated[str | None, Field(max_length=1000, description="recorded, in the vault")]


class StepRequest(RequestBody):
    """Why a bundle is activated, rolled back or retired."""

    comment: _Comment = None


class ReviewRequest(RequestBody):
    """What somebody else than a bundle's author says of it."""

    verdict: Literal["approved", "rejected"]
    comment: _Comment = None


def _life(life: BundleLife, *, solo: bool) -> dict[str, object]:
    run = life.test_run
    return {
        "revision": life.revision,
        "name": life.name,
        "engine": life.engine,
        "stage": life.stage,
        "obstacle": life.unready(reviewed=not solo),
        "author": life.author.pseudonym,
        "published_leaf": life.published_leaf,
        "signature": life.signature,
        "tests": None
        if run is None
        else {
            "leaf_index": run.leaf_index,
            "cases": run.cases,
            "failures": run.failures,
            "uncovered_rules": run.uncovered_rules,
            "uncovered": run.uncovered,
            "engine_version": run.engine_version,
        },
        "approvals": [{"leaf_index": item.leaf_index, "actor": item.actor.pseudonym} for item in life.approvals],
        "rejection": None
        if life.rejection is None
        else {"leaf_index": life.rejection.leaf_index, "actor": life.rejection.actor.pseudonym},
    }


def _told(services: Services, state: RegistryState, revision: str) -> Response:
    solo = services.settings.bundle_review == "solo"
    return json_response({**_life(state.lives[revision], solo=solo), **state_view(state)})


@router.get(
    "/v1/bundles/{revision}/status",
    summary="How far a bundle has come",
    response_description="Its stage, what stands in its way, and its recorded steps.",
)
async def bundle_status(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.READ_BUNDLES))], revision: Revision
) -> Response:
    """Return a bundle's stage, test run, reviews, every step about it, and where an activation has taken effect."""
    life = await services.bundles.life(revision)
    steps = [item for item in await services.bundles.history() if item.event.revision == revision]
    solo = services.settings.bundle_review == "solo"
    effect = await _effect(services, steps) if life.active else []
    return json_response({**_life(life, solo=solo), "effect": effect, "history": [step_view(item) for item in steps]})


async def _effect(services: Services, steps: Sequence[RecordedEvent]) -> list[Effect]:
    activation = [item for item in steps if item.event.action in ("activated", "rolled_back")][-1]
    log_id, catalog, reader = services.identity.log_id, services.catalog, services.reader
    return await asyncio.to_thread(effects, activation, log_id, catalog, reader)


@router.post(
    "/v1/bundles/{revision}/tests",
    summary="Run a bundle's own test cases again",
    response_description="What came of it; recorded.",
)
async def run_bundle_tests(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.REVIEW_BUNDLES))], revision: Revision
) -> Response:
    """Run the test cases of a published bundle, as at publication, with the engine of now."""
    state = await services.bundles.test(revision)
    return _told(services, state, revision)


async def _require_another(services: Services, caller: Caller, revision: str) -> None:
    """Refuse who published a bundle, by whichever of his logins and machines; whoever that was, it never changes.

    Raises:
        ConflictError: It was he.
    """
    life = (await services.bundles.state()).lives.get(revision)
    if life is not None and life.author.pseudonym in await services.people.pseudonyms_of(caller):
        raise ConflictError("the bundle's author cannot approve it")


@router.post(
    "/v1/bundles/{revision}/review",
    summary="Approve or reject a bundle",
    response_description="How far it has come by that.",
)
async def review_bundle(
    services: ServicesDep, caller: _Reviewer, revision: Revision, review: ReviewRequest
) -> Response:
    """Record a review of exactly this revision; its author may reject it, and not approve it."""
    keys = services.keys
    if review.verdict == "approved":
        await _require_another(services, caller, revision)
    state = await services.bundles.review(
        revision,
        actor_of(caller, keys),
        review.verdict,
        review.comment,
        known_as=keys.pseudonyms_by_key("actor", caller.actor),
    )
    return _told(services, state, revision)


@router.post(
    "/v1/bundles/{revision}/signature",
    summary="Hand in a signature over a bundle",
    response_description="How far the bundle has come.",
)
async def sign_bundle(
    services: ServicesDep,
    request: Request,
    caller: Annotated[Caller, Depends(permitted(Permission.PUBLISH_BUNDLES))],
    revision: Revision,
) -> Response:
    """Keep a DSSE envelope over a published bundle; it is verified if the service knows who must have signed."""
    envelope = await read_body(request, MAX_SIGNATURE_BYTES)
    state = await services.bundles.sign(revision, envelope, actor_of(caller, services.keys))
    return _told(services, state, revision)


@router.get(
    "/v1/bundles/{revision}/signature",
    summary="A bundle's signature",
    response_description="The DSSE envelope that was handed in last.",
)
async def get_bundle_signature(
    services: ServicesDep,
    _caller: Annotated[Caller, Depends(permitted(Permission.READ_LOG))],
    revision: Revision,
) -> Response:
    """Return the signature as it was handed in; whether it is to be trusted, whoever fetches it must say."""
    return Response(await services.bundles.signature(revision), media_type="application/vnd.dsse.envelope.v1+json")


@router.post(
    "/v1/bundles/{revision}/activation",
    summary="Make a bundle the active one",
    response_description="It is active from now on.",
)
async def activate_bundle(
    services: ServicesDep, caller: _Activator, revision: Revision, step: StepRequest | None = None
) -> Response:
    """Activate a published bundle whose tests pass and which somebody else than its author has approved."""
    comment = step.comment if step else None
    state = await services.bundles.activate(revision, actor_of(caller, services.keys), comment)
    return json_response(state_view(state))


@router.post(
    "/v1/bundles/{revision}/retirement",
    summary="Keep a bundle from ever becoming active again",
    response_description="It is retired.",
)
async def retire_bundle(
    services: ServicesDep, caller: _Activator, revision: Revision, step: StepRequest | None = None
) -> Response:
    """Retire a bundle that is not the active one."""
    comment = step.comment if step else None
    state = await services.bundles.retire(revision, actor_of(caller, services.keys), comment)
    return _told(services, state, revision)


@router.post(
    "/v1/bundles/rollback",
    summary="Make the bundle before this one active again",
    response_description="The bundle before is active again.",
)
async def roll_back_bundle(services: ServicesDep, caller: _Activator, step: StepRequest | None = None) -> Response:
    """Roll back one activation; where a replay shows that denials would become permits, it takes a second person."""
    state = await services.bundles.roll_back(actor_of(caller, services.keys), step.comment if step else None)
    return json_response(state_view(state))
