"""Legal holds: placed, listed, released by two people."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from pydantic import Field, model_validator

from ledger.bodies import HoldEvent
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.holds import Hold
from ledger.records import new_record_id
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.keyset import KeySet

__all__ = ["router"]

router = APIRouter(tags=["legal holds"], responses=PROBLEMS, route_class=ServiceRoute)

_Caller = Annotated[Caller, Depends(permitted(Permission.ERASE))]
_Pseudonym = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_HoldId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Time = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER, description="POSIX milliseconds")]


class HoldRequest(RequestBody):
    """What is to be held; of several members all must fit."""

    user: Annotated[str | None, Field(min_length=1, max_length=256, description="the user's name; not recorded")] = None
    pseudonym: Annotated[_Pseudonym | None, Field(description="instead: a subject as the log names it")] = None
    session: _Pseudonym | None = None
    from_ms: _Time | None = None
    to_ms: _Time | None = None
    reason: Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]

    @model_validator(mode="after")
    def _not_both(self) -> HoldRequest:
        if self.user is not None and self.pseudonym is not None:
            raise ValueError("name the user or the pseudonym, and not both")
        return self

    def subjects(self, keys: KeySet) -> tuple[str, ...]:
        """Return the subject's pseudonyms, the present key's first; none if no subject is named."""
        if self.user is not None:
            return keys.pseudonyms("user", self.user)
        return () if self.pseudonym is None else (self.pseudonym,)


def _view(hold: Hold) -> dict[str, object]:
    return {
        "hold_id": hold.hold_id,
        "subject": hold.subject,
        "also": hold.also,
        "session": hold.session,
        "from_ms": hold.from_ms,
        "to_ms": hold.to_ms,
        "placed_leaf": hold.placed_leaf,
        "placed_ms": hold.placed_ms,
        "placed_by": hold.placed_by,
        "release_requested_by": hold.requested_by,
    }


@router.post(
    "/v1/holds",
    status_code=201,
    summary="Place a legal hold",
    response_description="What it covers is neither erased nor expires any more.",
)
async def place_hold(services: ServicesDep, caller: _Caller, wanted: HoldRequest) -> Response:
    """Hold the payloads about a subject, of a session, of a period, or what fits several of these."""
    subjects = wanted.subjects(services.keys)
    event = HoldEvent(
        action="placed",
        hold_id=new_record_id(services.clock.now_ms(), secrets.token_bytes(10)),
        actor=services.access.actor(caller),
        actor_role=caller.role.value,
        subject=subjects[0] if subjects else None,
        also=subjects[1:],
        session=wanted.session,
        from_ms=wanted.from_ms,
        to_ms=wanted.to_ms,
    )
    leaf = await services.lifecycle.place(event, wanted.reason)
    return json_response({"hold_id": event.hold_id, "placed_leaf": leaf}, 201)


@router.get("/v1/holds", summary="Legal holds in force", response_description="The holds, oldest first.")
async def list_holds(services: ServicesDep, _caller: _Caller) -> Response:
    """Return the holds in force, as the log's own records say."""
    book = await services.lifecycle.holds()
    return json_response({"items": [_view(hold) for hold in book.in_force]})


@router.post(
    "/v1/holds/{hold_id}/release",
    summary="Ask for a hold's release, or confirm it",
    response_description="What was done: release_requested, or released.",
)
async def release_hold(services: ServicesDep, caller: _Caller, hold_id: _HoldId) -> Response:
    """Bring a release forward: the first call asks for it, a call by somebody else confirms it."""
    action, leaf = await services.lifecycle.release(
        hold_id,
        services.access.actor(caller),
        caller.role.value,
        services.keys.pseudonym_key_id,
        also=await services.people.pseudonyms_of(caller),
    )
    return json_response({"hold_id": hold_id, "action": action, "leaf_index": leaf})
