"""Held calls: listed, opened and decided by people; and what gateways are told of that."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field

from ledger.approvals import HeldCall
from ledger.bodies import Decision
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.notes import encode_base64
from service.api.bundle_waiting import gone
from service.api.common import PROBLEMS, RequestBody, ServicesDep, authenticated, json_response, permitted
from service.api.description import asks
from service.api.routing import ServiceRoute
from service.approvals import approver_of
from service.auth import Caller, Permission
from service.bundle_watch import MAX_WAIT_SECONDS
from service.problems import ForbiddenError
from service.wiring.services import Services

__all__ = ["held_view", "router"]

router = APIRouter(tags=["approvals"], responses=PROBLEMS, route_class=ServiceRoute)

_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Follower = Annotated[Caller, Depends(permitted(Permission.FOLLOW_RESTRICTIONS))]
# Whoever tries is judged where it is recorded that he did.
_Anybody = Annotated[Caller, Depends(authenticated)]
_ApprovalId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_NO_VERSION: Final = -1
_MAX_LISTED: Final = 200


class VerdictRequest(RequestBody):
    """What somebody says of a held call, having opened it."""

    verdict: Literal["granted", "denied"]
    binding: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of what was opened")]
    reason: Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]


def held_view(call: HeldCall, decision: Decision | None, now_ms: int) -> dict[str, object]:
    """Return a held call as routes tell it: nothing of its parameters."""
    about: dict[str, object] = {}
    if decision is not None:
        bundle = decision.bundle
        about = {
            "agent": decision.agent,
            "user": decision.user,
            "session": decision.session,
            "server": decision.server,
            "method": decision.method,
            "tool": decision.tool,
            "tool_digest": decision.tool_digest,
            "rules": list(decision.rules),
            "bundle": None if bundle is None else bundle.name,
            "bundle_revision": None if bundle is None else bundle.revision,
        }
    return {
        "approval_id": call.approval_id,
        "decision_id": call.decision_id,
        "enforcer_id": call.enforcer,
        "state": call.state(now_ms).value,
        "cause": call.cause,
        "requested_by": call.requester,
        **about,
        "binding": call.binding,
        "held_ms": call.held_ms,
        "expires_ms": call.expires_ms,
        "needed": call.needed,
        "roles": list(call.roles),
        "granted_by": [
            {"actor": grant.actor, "role": grant.role, "time_ms": grant.time_ms, "leaf_index": grant.leaf_index}
            for grant in call.grants
        ],
        "seen_by": [actor for actor, _ in call.seen],
        "denied_by": call.denied_by,
        "ended": call.ended,
        "ended_reason": call.ended_reason,
        "ended_ms": call.ended_ms,
        "refusals": call.refusals,
        "leaf_index": call.leaf_index,
    }


def _views(services: Services, calls: list[HeldCall]) -> list[dict[str, object]]:
    now_ms = services.clock.now_ms()
    return [held_view(call, services.approvals.decision(call)[1], now_ms) for call in calls]


@router.get(
    "/v1/approvals",
    summary="Held calls",
    response_description="Held calls, newest first.",
)
async def list_approvals(
    services: ServicesDep,
    _caller: _Reader,
    *,
    state: Annotated[
        Literal["waiting", "granted", "denied", "used", "expired", "cancelled", "withheld", "all"],
        Query(description="which"),
    ] = "waiting",
    limit: Annotated[int, Query(ge=1, le=_MAX_LISTED)] = 50,
) -> Response:
    """Return held calls without their parameters, as the log's own records say."""
    now_ms = services.clock.now_ms()
    found = [call for call in await services.approvals.all() if state in ("all", call.state(now_ms).value)]
    items = await asyncio.to_thread(_views, services, found[:limit])
    return json_response({"items": items, "left_out": max(0, len(found) - limit)})


@router.get(
    "/v1/approvals/verdicts",
    summary="What people have said of the calls that this gateway holds",
    response_description="Of each call that it holds and of which somebody has said something, what.",
)
async def follow_verdicts(
    request: Request,
    services: ServicesDep,
    caller: _Follower,
    after: Annotated[int, Query(ge=_NO_VERSION, le=MAX_SAFE_INTEGER, description="version heard last")] = _NO_VERSION,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_SECONDS, description="seconds to wait for news")] = 0,
) -> Response:
    """Return what people have said, with 304 if nobody has said anything since; held back until somebody does."""
    if caller.enforcer_id is None:
        raise ForbiddenError("verdicts are followed by enforcers")
    approvals = services.approvals
    current, held = await approvals.verdicts(caller.enforcer_id), False
    if wait and current.version == after:
        held = await approvals.watch.changed(after, wait, lambda: gone(request))
        current = await approvals.verdicts(caller.enforcer_id)
    headers = {"Cache-Control": "private, no-store", **({"Preference-Applied": "wait"} if held else {})}
    if current.version == after:
        return Response(status_code=304, headers=headers)
    return Response(current.document, media_type="application/json", headers=headers)


@router.get(
    "/v1/approvals/{approval_id}",
    summary="A held call",
    response_description="The held call, without its parameters.",
)
async def get_approval(services: ServicesDep, _caller: _Reader, approval_id: _ApprovalId) -> Response:
    """Return what the log says of a held call."""
    call = await services.approvals.get(approval_id)
    (view,) = await asyncio.to_thread(_views, services, [call])
    return json_response(view)


@router.post(
    "/v1/approvals/{approval_id}/open",
    summary="Open what will run",
    response_description="The held call with its exact message; that it was opened is recorded.",
    openapi_extra=asks(Permission.APPROVE),
)
async def open_approval(services: ServicesDep, caller: _Anybody, approval_id: _ApprovalId) -> Response:
    """Return exactly what will run if enough people agree, laid out with everything in it that hides written out."""
    person = approver_of(caller, await services.people.names_of(caller))
    opened = await services.approvals.open(approval_id, person)
    view = held_view(opened.call, opened.decision, services.clock.now_ms())
    shown = {"text": opened.shown.text, "hidden": list(opened.shown.hidden)}
    said = None if opened.said is None else {"text": opened.said.text, "hidden": list(opened.said.hidden)}
    return json_response({**view, "message": encode_base64(opened.message), "shown": shown, "said": said})


@router.post(
    "/v1/approvals/{approval_id}/verdict",
    summary="Agree to a held call, or deny it",
    response_description="The held call with the verdict.",
    openapi_extra=asks(Permission.APPROVE),
)
async def decide_approval(
    services: ServicesDep, caller: _Anybody, approval_id: _ApprovalId, said: VerdictRequest
) -> Response:
    """Record a verdict on exactly what was opened; every attempt that is refused is recorded too."""
    person = approver_of(caller, await services.people.names_of(caller))
    call = await services.approvals.decide(approval_id, said.verdict, person, binding=said.binding, comment=said.reason)
    (view,) = await asyncio.to_thread(_views, services, [call])
    return json_response(view)
