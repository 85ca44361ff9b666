"""Tools' definitions: what gateways saw of them, what differs, what people say; and the set that gateways follow."""

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
from service.problems import ForbiddenError
from service.tool_book import ToolLife, ToolStep

__all__ = ["router"]

router = APIRouter(tags=["tools"], responses=PROBLEMS, route_class=ServiceRoute)

_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Viewer = Annotated[Caller, Depends(permitted(Permission.READ_TOOLS))]
_Reviewer = Annotated[Caller, Depends(permitted(Permission.REVIEW_TOOLS))]
_Follower = Annotated[Caller, Depends(permitted(Permission.FOLLOW_RESTRICTIONS))]
_Server = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
_Tool = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]


class ToolVerdictRequest(RequestBody):
    """What a person says of a definition that he has looked at."""

    verdict: Literal["approved", "rejected"]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the definition that was looked at")]
    comment: Annotated[str, Field(min_length=8, max_length=1000, description="why; recorded, in the vault")]


def tool_view(life: ToolLife) -> dict[str, object]:
    """Return a tool as routes tell it."""
    why = life.why()
    return {
        "server": life.server,
        "tool": life.tool,
        "state": life.state,
        "waits": life.waits(),
        "listed": life.listed,
        "digest": life.digest or None,
        "standing": life.standing or None,
        "reasons": [] if why is None else list(why.reasons),
        "changes": [] if why is None else list(why.changes),
        "other": None if why is None else why.other,
        "leaf_index": life.leaf,
        "time_ms": life.last.time_ms,
    }


def _step(step: ToolStep) -> dict[str, object]:
    event = step.event
    return {
        "leaf_index": step.leaf,
        "record_id": step.record_id,
        "time_ms": step.time_ms,
        "enforcer_id": step.enforcer,
        "action": event.action,
        "digest": event.digest,
        "previous": event.previous,
        "reasons": list(event.reasons),
        "changes": list(event.changes),
        "other": event.other,
        "actor": event.actor,
        "actor_role": event.actor_role,
    }


@router.get("/v1/tools", summary="Tools", response_description="The tools, those that wait for somebody first.")
async def list_tools(
    services: ServicesDep,
    _caller: _Reader,
    *,
    waiting: Annotated[bool, Query(description="only those that wait for somebody's word")] = False,
    server: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$", description="of it alone")
    ] = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
) -> Response:
    """Return the tools that gateways with pins have seen, as the log's own records say."""
    lives = [life for life in await services.tools.all() if server in (None, life.server)]
    found = [life for life in lives if life.waits() or not waiting]
    page = found[offset : offset + limit]
    return json_response(
        {
            "items": [tool_view(life) for life in page],
            "waiting": sum(life.waits() for life in lives),
            "next_offset": offset + limit if offset + limit < len(found) else None,
        }
    )


@router.get(
    "/v1/tools/verdicts",
    summary="What stands of tools, for gateways",
    response_description="The set in force, whole, in canonical JSON.",
)
async def follow_tools(
    services: ServicesDep,
    caller: _Follower,
    digest: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$", description="of the set at hand")] = "",
) -> Response:
    """Return what other gateways saw and what people said of it; 304 if the caller has it."""
    if caller.enforcer_id is None:
        raise ForbiddenError("verdicts on tools are followed by enforcers")
    current = await services.tools.verdicts()
    headers = {"ETag": f'"{current.digest}"', "Cache-Control": "private, no-cache"}
    if digest == current.digest:
        return Response(status_code=304, headers=headers)
    return Response(current.document, media_type="application/json", headers=headers)


@router.get(
    "/v1/tools/{server}/{tool:path}/difference",
    summary="What a tool was, and what it is now",
    response_description="Both definitions and their difference; what nobody would see stands as its code point.",
)
async def show_difference(services: ServicesDep, caller: _Viewer, server: _Server, tool: _Tool) -> Response:
    """Open the definitions; that they were opened, and by whom, is recorded first."""
    life = await services.tools.get(server, tool)
    draft = services.access.draft(
        caller, "view", "tool", target_id=life.last.record_id, digest=life.digest or None, items=1
    )
    await services.access.record([draft])
    found = await services.tools.difference(life)
    return json_response(
        {**tool_view(life), "before": found.before, "after": found.after, "difference": list(found.lines)}
    )


@router.post(
    "/v1/tools/{server}/{tool:path}/verdict",
    summary="Approve or reject a definition",
    response_description="It is recorded, and on its way to every gateway.",
)
async def review_tool(
    services: ServicesDep, caller: _Reviewer, server: _Server, tool: _Tool, said: ToolVerdictRequest
) -> Response:
    """Record what a person says of the definition that was seen last, and no other."""
    actor = actor_of(caller, services.keys)
    _, leaf = await services.tools.say(
        server, tool, digest=said.digest, verdict=said.verdict, actor=actor, comment=said.comment
    )
    return json_response({"server": server, "tool": tool, "action": said.verdict, "leaf_index": leaf})


@router.get(
    "/v1/tools/{server}/{tool:path}",
    summary="One tool, and what became of it",
    response_description="The tool, and its steps, oldest first.",
)
async def get_tool(services: ServicesDep, _caller: _Reader, server: _Server, tool: _Tool) -> Response:
    """Return a tool's history; the log has what lies further back."""
    life = await services.tools.get(server, tool)
    return json_response({**tool_view(life), "steps": [_step(step) for step in life.steps]})
