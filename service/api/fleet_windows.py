"""Windows across gateways: what each has counted, and what strict caps give out."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar, Final

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import Field

from ledger.canonical import MAX_SAFE_INTEGER
from policies.model import MAX_WINDOWS
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.fleet_windows import Part, Total

__all__ = ["router"]

MAX_TOTALS: Final = 1000
"""Totals, or decisions, that a gateway hands in at once."""

MAX_KEPT: Final = 100
"""Decisions that a gateway hands in at once with what they take."""


class _ExchangeRoute(ServiceRoute):
    max_json_bytes: ClassVar[int] = 1 << 20


router = APIRouter(tags=["windows"], responses=PROBLEMS, route_class=_ExchangeRoute)

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="what the window measures")]
_Subject = Annotated[str, Field(pattern=r"^[0-9a-f*/]{1,128}$", description="whose calls, a pseudonym")]
_Slot = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Number = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,59})$", description="a whole number")]
_DecisionId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Enforcer = Annotated[Caller, Depends(permitted(Permission.WRITE_RECORDS))]


class PartBody(RequestBody):
    """What a decision takes of one strict cap; an amount of 0 only asks."""

    digest: _Digest
    subject: _Subject
    slot: _Slot
    first: _Slot
    amount: _Number
    forget_ms: _Slot

    def part(self) -> Part:
        """Return it as the store takes it."""
        return Part(**{**self.model_dump(), "amount": int(self.amount)})


_Parts = Annotated[list[PartBody], Field(min_length=1, max_length=MAX_WINDOWS)]


class TotalBody(RequestBody):
    """What a gateway has counted of a window in one slot."""

    digest: _Digest
    subject: _Subject
    slot: _Slot
    total: _Number
    forget_ms: _Slot

    def as_total(self) -> Total:
        """Return it as the store takes it."""
        return Total(**{**self.model_dump(), "total": int(self.total)})


class ReservationRequest(RequestBody):
    """What a decision takes."""

    decision_id: _DecisionId
    parts: _Parts


class ExchangeRequest(RequestBody):
    """What a gateway has counted, and up to where it knows what others have."""

    origin: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="the epoch of the gateway's state file")]
    since: _Slot
    told: Annotated[_Slot, Field(description="of the last answer; 0 for none")] = 0
    totals: Annotated[tuple[TotalBody, ...], Field(max_length=MAX_TOTALS)] = ()
    keep: Annotated[tuple[ReservationRequest, ...], Field(max_length=MAX_KEPT)] = ()
    release: Annotated[tuple[_DecisionId, ...], Field(max_length=MAX_TOTALS)] = ()


@router.post(
    "/v1/windows/reservations",
    summary="Take something of strict caps",
    response_description="The sum of each, what is taken included.",
)
async def reserve(services: ServicesDep, caller: _Enforcer, wanted: ReservationRequest) -> Response:
    """Reserve what a decision would add; sent again, it takes no more."""
    parts = [part.part() for part in wanted.parts]
    sums = await asyncio.to_thread(services.fleet_windows.reserve, caller.enforcer_id or "", wanted.decision_id, parts)
    return json_response({"sums": [str(one) for one in sums]})


@router.post(
    "/v1/windows/exchange",
    summary="Hand in what was counted, hear what others have",
    response_description="What has changed of the sums of all others.",
)
async def exchange(services: ServicesDep, caller: _Enforcer, said: ExchangeRequest) -> Response:
    """Take in a gateway's totals, and return those of the others that have changed since it asked last."""
    page = await asyncio.to_thread(
        services.fleet_windows.exchange,
        caller.enforcer_id or "",
        said.origin,
        totals=[total.as_total() for total in said.totals],
        keep=[(item.decision_id, [part.part() for part in item.parts]) for item in said.keep],
        release=said.release,
        since=said.since,
        told=said.told,
    )
    told = [
        {
            "digest": total.digest,
            "subject": total.subject,
            "slot": total.slot,
            "total": str(total.total),
            "forget_ms": total.forget_ms,
        }
        for total in page.totals
    ]
    return json_response(
        {"version": page.version, "more": page.more, "told": page.told, "lost": page.lost, "totals": told}
    )
