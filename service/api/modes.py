"""What is enforced and what only observed: changes proposed, approved, reviewed, listed; what a gateway may take up."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import Field

from ledger.canonical import MAX_SAFE_INTEGER
from ledger.catalog import MAX_PAGE
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of
from service.mode_book import ModeLife
from service.problems import ForbiddenError

__all__ = ["router"]

router = APIRouter(tags=["modes"], responses=PROBLEMS, route_class=ServiceRoute)

_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Proposer = Annotated[Caller, Depends(permitted(Permission.PROPOSE_MODES))]
_Reviewer = Annotated[Caller, Depends(permitted(Permission.REVIEW_MODES))]
_Enforcer = Annotated[Caller, Depends(permitted(Permission.WRITE_RECORDS))]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_ChangeId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_MAX_SECONDS: Final = 30 * 86_400
_MS_PER_SECOND: Final = 1000


class ProposalRequest(RequestBody):
    """What is to be observed from now on, though it was enforced; nothing needs be asked the other way."""

    server: Annotated[_Name, Field(description="the server, as the gateway's list has it")]
    tool: Annotated[_Name | None, Field(description="one of its tools; without it, the server itself")] = None
    enforcer_id: Annotated[_Name | None, Field(description="the only gateway that may take it up")] = None
    valid_seconds: Annotated[int, Field(ge=60, le=_MAX_SECONDS, description="gateways take it up before that")] = 86_400
    reason: Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]


class VerdictRequest(RequestBody):
    """What somebody else says of a change."""

    verdict: Literal["approved", "rejected"]
    reason: Annotated[str | None, Field(min_length=1, max_length=1000, description="recorded, in the vault")] = None


def _view(life: ModeLife, now_ms: int) -> dict[str, object]:
    return {
        "change_id": life.change_id,
        "server": life.server,
        "tool": life.tool,
        "mode": life.mode,
        "enforcer_id": life.enforcer,
        "state": life.state(now_ms),
        "waits": life.waits(now_ms),
        "time_ms": life.time_ms,
        "leaf_index": life.first_leaf,
        "expires_ms": life.expires_ms or None,
        "proposed_by": life.proposed_by,
        "approved_by": life.approved_by,
        "rejected_by": life.rejected_by,
        "reviewed_by": life.reviewed_by,
        "taken_up": [
            {
                "enforcer_id": one.enforcer,
                "leaf_index": one.leaf_index,
                "time_ms": one.time_ms,
                "previous": one.previous,
                "approved": one.approved,
            }
            for one in life.taken_up
        ],
    }


@router.post(
    "/v1/modes",
    status_code=201,
    summary="Propose that something be only observed",
    response_description="It waits for somebody else's approval.",
)
async def propose_mode(services: ServicesDep, caller: _Proposer, wanted: ProposalRequest) -> Response:
    """Record a proposal; gateways take it up once somebody else has approved it and their list of servers says so."""
    change_id, leaf = await services.modes.propose(
        wanted.server,
        wanted.tool,
        enforcer=wanted.enforcer_id,
        valid_ms=wanted.valid_seconds * _MS_PER_SECOND,
        actor=actor_of(caller, services.keys),
        reason=wanted.reason,
    )
    return json_response({"change_id": change_id, "leaf_index": leaf}, 201)


@router.get("/v1/modes", summary="Changes of modes", response_description="A page of the changes, newest first.")
async def list_modes(
    services: ServicesDep,
    _caller: _Reader,
    *,
    waiting: Annotated[bool, Query(description="only those that somebody must say something of")] = False,
    cursor: Annotated[
        int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="next_cursor of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> Response:
    """Return proposals, and what gateways have taken up, as the log's own records say."""
    now_ms = services.clock.now_ms()
    lives, more = await services.modes.page(
        before=cursor, limit=limit, wanted=lambda life: not waiting or life.waits(now_ms)
    )
    return json_response({"items": [_view(life, now_ms) for life in lives], "next_cursor": more})


@router.get(
    "/v1/modes/approved",
    summary="What this gateway may take up",
    response_description="Approved changes that this gateway has not taken up yet.",
)
async def approved_modes(services: ServicesDep, caller: _Enforcer) -> Response:
    """Return the changes that two people have agreed upon, for the gateway whose token asks."""
    if caller.enforcer_id is None:
        raise ForbiddenError("the token is no enforcer's")
    found = await services.modes.approved(caller.enforcer_id)
    items = [
        {"change_id": life.change_id, "server": life.server, "tool": life.tool, "mode": life.mode} for life in found
    ]
    return json_response({"items": items})


@router.post(
    "/v1/modes/{change_id}/review",
    summary="Approve, reject or review a change",
    response_description="What was recorded: approved, rejected or reviewed.",
)
async def review_mode(services: ServicesDep, caller: _Reviewer, change_id: _ChangeId, said: VerdictRequest) -> Response:
    """Record a verdict: on a proposal of somebody else's, or on what a gateway took up by itself."""
    actor, also = actor_of(caller, services.keys), await services.people.pseudonyms_of(caller)
    action, leaf = await services.modes.review(change_id, said.verdict, actor, said.reason, also=also)
    return json_response({"change_id": change_id, "action": action, "leaf_index": leaf})
