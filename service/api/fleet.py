"""The fleet: how each gateway stands."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import Response

from service.api.common import PROBLEMS, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.fleet import Fleet, Member

__all__ = ["fleet_view", "router"]

router = APIRouter(tags=["fleet"], responses=PROBLEMS, route_class=ServiceRoute)


def _member_view(member: Member) -> dict[str, object]:
    beat = member.beat
    said = {} if beat is None else {name: getattr(beat.body, name) for name in _SAID}
    return {
        "enforcer_id": member.enforcer_id,
        "state": member.state.value,
        "warnings": [warning.value for warning in member.warnings],
        "heard_ms": member.heard_ms,
        "skewed_since_ms": member.skewed_since_ms,
        "restrictions_version": member.restrictions_version,
        "heartbeat": None
        if beat is None
        else {"leaf_index": beat.leaf_index, "time_ms": beat.time_ms, "epoch": beat.epoch, **said},
    }


_SAID = (
    "kind",
    "version",
    "bundle_revision",
    "bundle_age_ms",
    "signed_bundles",
    "enforced",
    "observed",
    "spool_depth",
    "spool_bytes",
    "oldest_ms",
    "set_aside",
    "clock_offset_ms",
    "clock_bound_ms",
    "contact_ms",
    "config_fingerprint",
)


def fleet_view(fleet: Fleet) -> dict[str, object]:
    """Return a fleet as the route tells it."""
    return {
        "now_ms": fleet.now_ms,
        "well": fleet.well,
        "version": fleet.version,
        "active": msgspec.to_builtins(fleet.active),
        "restrictions": msgspec.to_builtins(fleet.restrictions),
        "gateways": [_member_view(member) for member in fleet.members],
    }


@router.get(
    "/v1/fleet",
    summary="The gateways and how they stand",
    response_description="Every gateway that is enrolled and not retired, the worst first.",
)
async def get_fleet(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
) -> Response:
    """Return each gateway's last heartbeat, when it was last heard of, and what is not as it should be."""
    fleet = await asyncio.to_thread(services.fleet.look)
    return json_response(fleet_view(fleet))
