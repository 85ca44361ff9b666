"""Containments: ordered by one person, released by two, reviewed by another; and the set that gateways follow."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field, model_validator

from ledger.bodies import Containment
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.containments import MAX_CONTAINMENT_MS, Order
from ledger.records import new_record_id
from ledger.restrictions import NO_VERSION, Scope
from service.api.bundle_waiting import gone
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundle_watch import MAX_WAIT_SECONDS
from service.containments import MAX_REACH_SECONDS
from service.problems import ForbiddenError
from service.reach import Gateway

__all__ = ["router"]

router = APIRouter(tags=["containment"], responses=PROBLEMS, route_class=ServiceRoute)

_Orderer = Annotated[Caller, Depends(permitted(Permission.CONTAIN))]
_Second = Annotated[Caller, Depends(permitted(Permission.END_CONTAINMENTS))]
_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Follower = Annotated[Caller, Depends(permitted(Permission.FOLLOW_RESTRICTIONS))]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_OrderId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Comment = Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]
_MAX_SECONDS: Final = MAX_CONTAINMENT_MS // 1000


class ContainmentRequest(RequestBody):
    """What is to be stopped: an agent, a session, a server, a tool of a server, or everything; one of these."""

    agent: _Name | None = None
    session: Annotated[str | None, Field(pattern=r"^[0-9a-f]{32}$", description="as records have it")] = None
    server: _Name | None = None
    tool: Annotated[_Name | None, Field(description="with its server")] = None
    all: bool = False
    seconds: Annotated[int, Field(ge=1, le=_MAX_SECONDS, description="how long; then it ends by itself")]
    reason: _Comment

    @model_validator(mode="after")
    def _one_thing(self) -> ContainmentRequest:
        if self.tool is not None and self.server is None:
            raise ValueError("a tool is named with its server")
        if [self.agent, self.session, self.server, self.all or None].count(None) != 3:  # noqa: PLR2004  # all but one
            raise ValueError("name one of agent, session, server (with or without tool) and all")
        return self

    @property
    def scope(self) -> Literal["all", "agent", "session", "server", "tool"]:
        """What is to be stopped."""
        if self.all:
            return "all"
        if self.agent is not None:
            return "agent"
        if self.session is not None:
            return "session"
        return "server" if self.tool is None else "tool"


class ReleaseRequest(RequestBody):
    """Why something is to be released."""

    reason: _Comment


class ReviewRequest(RequestBody):
    """What a review found."""

    verdict: Annotated[
        Literal["justified", "unfounded"], Field(description="unfounded ends nothing by itself: have it released")
    ]
    comment: _Comment


def order_view(order: Order, now_ms: int) -> dict[str, object]:
    """Return a containment, or the block that a kill left, as routes tell it."""
    restriction = order.restriction
    scope: Scope = restriction.scope
    return {
        "id": order.order_id,
        "kind": restriction.kind,
        "scope": scope,
        "agent": restriction.agent,
        "user": restriction.user,
        "session": restriction.session,
        "server": restriction.server,
        "tool": restriction.tool,
        "leaf_index": order.leaf,
        "since_ms": restriction.since_ms,
        "until_ms": restriction.until_ms,
        "ordered_by": order.ordered_by,
        "ordered_role": order.ordered_role,
        "release_requested_by": order.requested_by,
        "state": order.ended or "in_force",
        "ended_ms": order.ended_ms,
        "review_due_ms": order.review_due_ms,
        "review_overdue": order.is_overdue(now_ms),
        "reviewed_ms": order.reviewed_ms,
        "reviewed_by": order.reviewed_by,
        "verdict": order.verdict,
    }


def _gateways(found: list[Gateway]) -> dict[str, object]:
    items = [
        {
            "enforcer_id": gateway.enforcer_id,
            "state": gateway.state,
            "version": gateway.version,
            "seen_ms": gateway.seen_ms,
        }
        for gateway in found
    ]
    return {"gateways": items, "reached": all(gateway.state != "unreached" for gateway in found)}


@router.post(
    "/v1/containments",
    status_code=201,
    summary="Stop an agent, a session, a tool, a server, or everything",
    response_description="It is recorded, and on its way to every gateway.",
)
async def order_containment(services: ServicesDep, caller: _Orderer, wanted: ContainmentRequest) -> Response:
    """Contain something for a time. One person may: a containment permits nothing. It is to be reviewed in 24 hours."""
    now_ms = services.clock.now_ms()
    event = Containment(
        action="ordered",
        containment_id=new_record_id(now_ms, secrets.token_bytes(10)),
        actor=services.access.actor(caller),
        actor_role=caller.role.value,
        scope=wanted.scope,
        agent=wanted.agent,
        server=wanted.server,
        tool=wanted.tool,
        session=wanted.session,
        until_ms=now_ms + 1000 * wanted.seconds,
    )
    order = await services.containments.order(event, wanted.reason)
    return json_response(order_view(order, services.clock.now_ms()), 201)


@router.get(
    "/v1/containments",
    summary="What is stopped",
    response_description="What is in force, or all there ever was; oldest first.",
)
async def list_containments(
    services: ServicesDep,
    _caller: _Reader,
    state: Annotated[Literal["in_force", "to_review", "all"], Query(description="which")] = "in_force",
) -> Response:
    """Return containments and the blocks that kills left behind, as the log's own records say."""
    found = await services.containments.state()
    orders = list(found.orders)
    if state != "all":
        orders = found.in_force() if state == "in_force" else found.to_review()
    now_ms = services.clock.now_ms()
    return json_response(
        {
            "version": found.current.version,
            "digest": found.current.digest,
            "items": [order_view(order, now_ms) for order in orders],
        }
    )


@router.get(
    "/v1/containments/{order_id}",
    summary="A containment, and which gateways have it in force",
    response_description="The containment, and the gateways that it has reached and not reached.",
)
async def get_containment(
    services: ServicesDep,
    _caller: _Reader,
    order_id: _OrderId,
    wait: Annotated[float, Query(ge=0, le=MAX_REACH_SECONDS, description="seconds to wait for the unreached")] = 0.0,
) -> Response:
    """Return how far a containment has come; what ended has nowhere to go any more, so that nobody is waited for."""
    order = (await services.containments.state()).get(order_id)
    found = await services.containments.reach(order, wait_seconds=0.0 if order.ended else wait)
    return json_response({**order_view(order, services.clock.now_ms()), **_gateways(found)})


@router.post(
    "/v1/containments/{order_id}/release",
    summary="Ask for an early release, or confirm it",
    response_description="What was done: release_requested, or released.",
)
async def release_containment(
    services: ServicesDep, caller: _Second, order_id: _OrderId, wanted: ReleaseRequest
) -> Response:
    """Bring a release forward, of a kill's block too: the first call asks for it, one by somebody else confirms it."""
    action, order = await services.containments.release(
        order_id,
        actor=services.access.actor(caller),
        actor_role=caller.role.value,
        key_id=services.keys.pseudonym_key_id,
        comment=wanted.reason,
        also=await services.people.pseudonyms_of(caller),
    )
    return json_response({**order_view(order, services.clock.now_ms()), "action": action})


@router.post(
    "/v1/containments/{order_id}/review",
    summary="Review a containment",
    response_description="The containment with its review.",
)
async def review_containment(
    services: ServicesDep, caller: _Second, order_id: _OrderId, wanted: ReviewRequest
) -> Response:
    """Record what somebody else than who ordered it finds of a containment, in force or over."""
    order = await services.containments.review(
        order_id,
        names=await services.people.pseudonyms_of(caller),
        actor_role=caller.role.value,
        verdict=wanted.verdict,
        comment=wanted.comment,
    )
    return json_response(order_view(order, services.clock.now_ms()))


# --- what gateways ask -----------------------------------------------------------------------------------------------


@router.get(
    "/v1/restrictions",
    summary="The set of restrictions, once it is another one",
    response_description="The set in force: what is stopped, whole, in canonical JSON.",
)
async def follow_restrictions(
    request: Request,
    services: ServicesDep,
    caller: _Follower,
    after: Annotated[int, Query(ge=NO_VERSION, le=MAX_SAFE_INTEGER, description="version in force")] = NO_VERSION,
    digest: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$", description="of the set in force; none: no set")] = "",
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_SECONDS, description="seconds to wait for another set")] = 0,
) -> Response:
    """Return the set in force, with 304 if the caller has it after all. The question is the gateway's acknowledgement.

    It is answered at once if the set is another one than the caller's, and else held.
    """
    if caller.enforcer_id is None:
        raise ForbiddenError("restrictions are followed by enforcers")
    containments = services.containments
    current, held = (await containments.state()).current, False
    # Who has another set under a version that is not past, from before a restore, has none that counts.
    in_force = after if digest == current.digest or after < current.version else NO_VERSION
    await asyncio.to_thread(containments.note, caller.enforcer_id, in_force)
    if wait and digest == current.digest:
        held = await containments.watch.changed(current.version, wait, lambda: gone(request))
        current = (await containments.state()).current
    headers = {"ETag": f'"{current.digest}"', "Cache-Control": "private, no-cache"}
    if held or (wait and digest != current.digest):
        headers["Preference-Applied"] = "wait"
    if digest == current.digest:
        return Response(status_code=304, headers=headers)
    return Response(current.document, media_type="application/json", headers=headers)
