"""The decision log of an OPA, and what it counts as lost: handed in as a stock OPA does by itself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from service.api.common import PROBLEMS, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.fairness import Room, takes_records
from service.opa_events import Event, TooLargeError, inflate, parse_event, parse_loss, split
from service.problems import Problem
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["OPA"], responses=PROBLEMS, route_class=ServiceRoute)

_MAX_STATUS_BYTES: Final = 4 * 1024 * 1024
_Handing = Annotated[Caller, Depends(permitted(Permission.WRITE_OPA_LOGS))]


def _takes(description: str, kind: str) -> dict[str, Any]:
    schema = {"type": kind, **({"items": {"type": "object"}} if kind == "array" else {})}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "description": description, "content": content}}


@router.post(
    "/logs",
    openapi_extra=_takes("Events of OPA's decision log, plain or with Content-Encoding: gzip.", "array"),
    summary="Hand in an OPA's decision log",
    response_description="What became of the events; all are durable.",
)
async def take_logs(request: Request, services: ServicesDep, caller: _Handing) -> Response:
    """Record each event once; what conflicts or cannot be read is recorded as that, and stops nothing."""
    takes_records.set(True)
    with services.bytes_in_hand.take() as room:
        events = await _events(request, services, room)
        taken = await services.opa_intake.take(events, services.access.actor(caller))
    services.metrics.records.labels("opa_decision").inc(taken.taken + taken.conflicts + taken.unreadable)
    services.metrics.duplicates.inc(taken.duplicates)
    return json_response(
        {
            "log_id": caller.log_id,
            "taken": taken.taken,
            "duplicates": taken.duplicates,
            "conflicts": taken.conflicts,
            "unreadable": taken.unreadable,
        }
    )


async def _events(request: Request, services: Services, room: Room) -> list[Event]:
    limit = services.settings.max_request_bytes
    body = await read_body(request, limit, room)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    try:
        async with services.large_turns.take(len(body)):
            data = await asyncio.to_thread(inflate, body, encoding, limit_bytes=limit)
            # Compressed or not, what is in hand is counted.
            room.reach(len(body) + len(data))
            return await asyncio.to_thread(lambda: [parse_event(raw) for raw in split(data)])
    except TooLargeError as error:
        raise Problem(413, "too-large", "Too large", str(error)) from None


@router.post(
    "/status",
    openapi_extra=_takes("OPA's status report.", "object"),
    summary="Hand in what an OPA counts as lost",
    response_description="Whether it counts anything as lost that was not recorded yet.",
)
async def take_status(request: Request, services: ServicesDep, caller: _Handing) -> Response:
    """Record the drop counters of an OPA's decision log whenever they have changed; nothing else of it is kept."""
    takes_records.set(True)
    with services.bytes_in_hand.take() as room:
        loss = parse_loss(await read_body(request, _MAX_STATUS_BYTES, room))
        recorded = loss is not None and await services.opa_intake.take_loss(loss, services.access.actor(caller))
    services.metrics.records.labels("opa_loss").inc(recorded)
    return json_response({"log_id": caller.log_id, "recorded": recorded})
