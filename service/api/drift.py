"""Behaviour of agents: baselines and departures from them, what people say, and what gateways are to do about it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import Field

from ledger.catalog import MAX_PAGE
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of
from service.drift import Disposition, Seen, without_baseline
from service.drift_book import DriftLife
from service.problems import ForbiddenError

__all__ = ["router"]

router = APIRouter(tags=["behaviour"], responses=PROBLEMS, route_class=ServiceRoute)

_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Reviewer = Annotated[Caller, Depends(permitted(Permission.REVIEW_DRIFT))]
_Follower = Annotated[Caller, Depends(permitted(Permission.FOLLOW_RESTRICTIONS))]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_DriftId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Comment = Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]


class AcknowledgeRequest(RequestBody):
    """That somebody has seen a departure."""

    comment: _Comment


class CloseRequest(RequestBody):
    """What a departure was."""

    disposition: Disposition
    comment: _Comment


class BaselineRequest(RequestBody):
    """What a gateway is to do about its baseline of an agent."""

    action: Literal["accept", "reset"]
    agent: _Name
    enforcer: _Name
    digest: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{64}$", description="to accept: of the candidate that was looked at")
    ] = None
    comment: _Comment


def drift_view(life: DriftLife) -> dict[str, object]:
    """Return a departure as routes tell it."""
    flag = life.flag
    return {
        "id": flag.drift_id,
        "state": life.state,
        "agent": flag.agent,
        "enforcer_id": life.enforcer,
        "detector": flag.detector,
        "subject": flag.subject,
        "previous": flag.previous,
        "value_milli": flag.value_milli,
        "threshold_milli": flag.threshold_milli,
        "calls": flag.calls,
        "decisions": list(flag.decisions),
        "baseline_version": flag.baseline_version,
        "baseline_since_ms": flag.since_ms,
        "baseline_until_ms": flag.until_ms,
        "thresholds": flag.thresholds,
        "explained": flag.explained,
        "explained_by": flag.explained_by,
        "unflagged": flag.unflagged,
        "leaf_index": life.leaf,
        "time_ms": life.time_ms,
        "changed_ms": life.changed_ms,
        "acknowledged_by": life.seen_by,
        "closed_by": life.closed_by,
        "disposition": life.disposition,
    }


def baseline_view(seen: Seen) -> dict[str, object]:
    """Return a baseline, or how far one is from being one, as routes tell it."""
    life, last = seen.baseline, seen.baseline.last
    offered = life.offered
    return {
        "agent": life.agent,
        "enforcer_id": life.enforcer,
        "state": life.state,
        "version": last.baseline_version,
        "calls": last.calls,
        "days": last.days,
        "needed_calls": last.needed_calls,
        "needed_days": last.needed_days,
        "since_ms": last.since_ms,
        "until_ms": last.until_ms,
        "tools": last.tools,
        "blind": list(last.blind),
        "thresholds": last.thresholds,
        "leaf_index": life.leaf,
        "time_ms": life.time_ms,
        "last_call_ms": seen.last_call_ms,
        "silent": seen.silent,
        "offered": None
        if offered is None
        else {"digest": offered.digest, "calls": offered.calls, "days": offered.days, "added": list(offered.added)},
    }


@router.get("/v1/drift", summary="Departures", response_description="The departures, those that are open first.")
async def list_drift(
    services: ServicesDep,
    _caller: _Reader,
    *,
    state: Annotated[Literal["open", "all"], Query(description="which")] = "open",
    agent: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")] = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
) -> Response:
    """Return what gateways flagged, as the log's own records say. None flagged says nothing where no baseline is."""
    lives = [life for life in await services.behaviour.drifts() if agent in {None, life.flag.agent}]
    found = [life for life in lives if state == "all" or life.state != "closed"]
    return json_response(
        {
            "items": [drift_view(life) for life in found[offset : offset + limit]],
            "open": sum(life.state != "closed" for life in lives),
            "next_offset": offset + limit if offset + limit < len(found) else None,
        }
    )


@router.get(
    "/v1/drift/baselines",
    summary="What is known of agents' behaviour",
    response_description="A baseline for each agent and gateway, those that are not ready first.",
)
async def list_baselines(
    services: ServicesDep,
    _caller: _Reader,
    agent: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")] = None,
) -> Response:
    """Return baselines as gateways report them; ``unknown`` are agents that call and of which none has any.

    They are known once all calls were counted; ``complete`` says whether they are.
    """
    found = await services.behaviour.baselines(agent)
    inventory = await services.inventory.look()
    unknown = without_baseline(found, inventory)
    return json_response(
        {
            "items": [baseline_view(seen) for seen in found],
            "unknown": [name for name in unknown if agent in {None, name}],
            "complete": inventory.counted.complete,
        }
    )


@router.post(
    "/v1/drift/baselines",
    status_code=201,
    summary="Accept the baseline that a gateway offers, or have it forget one",
    response_description="It is recorded, and the gateway does it when it asks next.",
)
async def order_baseline(services: ServicesDep, caller: _Reviewer, wanted: BaselineRequest) -> Response:
    """Record what a person orders about a baseline: none moves by itself."""
    actor = actor_of(caller, services.keys)
    behaviour = services.behaviour
    if wanted.action == "accept":
        leaf = await behaviour.accept(wanted.agent, wanted.enforcer, wanted.digest or "", actor, wanted.comment)
    else:
        leaf = await behaviour.reset(wanted.agent, wanted.enforcer, actor, wanted.comment)
    return json_response({"agent": wanted.agent, "enforcer_id": wanted.enforcer, "leaf_index": leaf}, 201)


@router.get(
    "/v1/drift/orders",
    summary="What this gateway is to do about its baselines",
    response_description="The latest orders, oldest first, those that were carried out among them.",
)
async def follow_orders(services: ServicesDep, caller: _Follower) -> Response:
    """Return the orders for the gateway whose token asks."""
    if caller.enforcer_id is None:
        raise ForbiddenError("orders about baselines are followed by enforcers")
    items = [
        {
            "order_id": order.order_id,
            "action": order.event.action,
            "agent": order.event.agent,
            "digest": order.event.digest or "",
        }
        for order in await services.behaviour.orders(caller.enforcer_id)
    ]
    return json_response({"items": items})


@router.get("/v1/drift/{drift_id}", summary="One departure", response_description="The departure.")
async def get_drift(services: ServicesDep, _caller: _Reader, drift_id: _DriftId) -> Response:
    """Return a departure with the ids of the decisions that it rests on."""
    return json_response(drift_view(await services.behaviour.drift(drift_id)))


@router.post(
    "/v1/drift/{drift_id}/acknowledge",
    summary="Say that a departure was seen",
    response_description="It is recorded.",
)
async def acknowledge_drift(
    services: ServicesDep, caller: _Reviewer, drift_id: _DriftId, said: AcknowledgeRequest
) -> Response:
    """Record that a person looks after it."""
    leaf = await services.behaviour.acknowledge(drift_id, actor_of(caller, services.keys), said.comment)
    return json_response({"id": drift_id, "state": "acknowledged", "leaf_index": leaf})


@router.post("/v1/drift/{drift_id}/close", summary="Say what a departure was", response_description="It is recorded.")
async def close_drift(services: ServicesDep, caller: _Reviewer, drift_id: _DriftId, said: CloseRequest) -> Response:
    """Record what a person found; it changes no baseline."""
    actor = actor_of(caller, services.keys)
    leaf = await services.behaviour.close(drift_id, said.disposition, actor, said.comment)
    return json_response({"id": drift_id, "state": "closed", "leaf_index": leaf})
