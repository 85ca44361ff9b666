"""The inventory: servers and tools, what people say of their tags, an agent's privileges, and views that are pinned."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import Field, model_validator

from ledger.catalog import MAX_PAGE
from ledger.errors import NotFoundError
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of
from service.inventory_usage import UseKey
from service.inventory_view import AgentLine, InventoryView, ServerLine, ToolLine
from service.privilege_report import PrivilegeReport
from service.wiring.services import Services

__all__ = ["counted_view", "inventory_snapshot", "privileges_view", "router", "uses_of"]

router = APIRouter(tags=["inventory"], responses=PROBLEMS, route_class=ServiceRoute)

_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Speaker = Annotated[Caller, Depends(permitted(Permission.CONFIRM_TAGS))]
_Maker = Annotated[Caller, Depends(permitted(Permission.MAKE_PACKS))]
_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$"
_Name = Annotated[str, Field(pattern=_NAME)]
_PathName = Annotated[str, Path(pattern=_NAME)]
_Comment = Annotated[str | None, Field(min_length=1, max_length=1000, description="recorded, in the vault")]
_MAX_CURSOR: Final = 300

Kind = Literal["servers", "tools", "agents"]
_Line: TypeAlias = ServerLine | ToolLine | AgentLine


class TagsRequest(RequestBody):
    """What a person says of tags of a tool."""

    tool: _Name
    tags: Annotated[list[_Name], Field(min_length=1, max_length=16)]
    verdict: Literal["confirmed", "rejected"]
    comment: _Comment = None


class PinRequest(RequestBody):
    """What is to be pinned."""

    view: Literal["inventory", "privileges"]
    agent: Annotated[_Name | None, Field(description="of privileges: whose")] = None
    comment: _Comment = None

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if (self.view == "privileges") is (self.agent is None):
            raise ValueError("privileges are pinned of one agent, and the inventory of none")
        return self


def counted_view(view: InventoryView) -> dict[str, object]:
    """Return what the use was counted from."""
    counted = view.counted
    return {
        "from_leaf": 0,
        "to_leaf": counted.size,
        "complete": counted.complete,
        "calls": counted.calls,
        "left_out": counted.left_out,
    }


def _key(line: _Line) -> str:
    """Return where a line stands in the order of its list: what the page before ended with."""
    if isinstance(line, AgentLine):
        return line.agent
    name = line.name if isinstance(line, ServerLine) else f"{line.server}\n{line.tool}"
    return f"{int(bool(line.owners))}\n{name}"


def _wanted(line: _Line, *, unowned: bool, unused: bool, to_confirm: bool, disputed: bool) -> bool:
    if isinstance(line, AgentLine):
        return not (unowned or unused or to_confirm or disputed)
    if unowned and line.owners:
        return False
    if unused and (line.unused_tools == 0 if isinstance(line, ServerLine) else line.use.calls > 0):
        return False
    if isinstance(line, ServerLine):
        return not (to_confirm or disputed)
    return not (to_confirm and not line.to_confirm) and not (disputed and not line.disputed)


def _is_of(line: _Line, server: str) -> bool:
    if isinstance(line, ServerLine):
        return line.name == server
    return isinstance(line, ToolLine) and line.server == server


def _page(lines: Sequence[_Line], cursor: str | None, limit: int) -> tuple[Sequence[_Line], str | None]:
    keys = [_key(line) for line in lines]
    start = 0 if cursor is None else bisect.bisect_right(keys, cursor)
    page = lines[start : start + limit]
    return page, keys[start + limit - 1] if start + limit < len(lines) else None


@router.get("/v1/inventory", summary="Servers, tools, or agents", response_description="A page, the unowned first.")
async def list_inventory(
    services: ServicesDep,
    caller: _Reader,
    *,
    kind: Annotated[Kind, Query(description="what is listed")] = "servers",
    server: Annotated[str | None, Query(pattern=_NAME, description="of this server alone")] = None,
    unowned: Annotated[bool, Query(description="only those for which nobody answers")] = False,
    unused: Annotated[bool, Query(description="only what nobody ever called, or servers with such tools")] = False,
    to_confirm: Annotated[bool, Query(description="only tools with a tag that nobody spoke of")] = False,
    disputed: Annotated[bool, Query(description="only tools of which people, lists and hints do not agree")] = False,
    cursor: Annotated[str | None, Query(max_length=_MAX_CURSOR, description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> Response:
    """Return what lists, definitions and calls say there is. Reading it is recorded."""
    view = await services.inventory.look()
    lines: Mapping[Kind, Sequence[_Line]] = {"servers": view.servers, "tools": view.tools, "agents": view.agents()}
    found = [
        line
        for line in lines[kind]
        if (server is None or _is_of(line, server))
        and _wanted(line, unowned=unowned, unused=unused, to_confirm=to_confirm, disputed=disputed)
    ]
    page, more = _page(found, cursor, limit)
    await _read(services, caller, "inventory", kind, len(page))
    return json_response(
        {
            "now_ms": view.now_ms,
            "counted": counted_view(view),
            "totals": msgspec.to_builtins(view.totals),
            "matching": len(found),
            "items": msgspec.to_builtins(list(page)),
            "next_cursor": more,
        }
    )


@router.get(
    "/v1/inventory/{server}", summary="One server, its tools and agents", response_description="All that is known."
)
async def get_server(services: ServicesDep, caller: _Reader, server: _PathName) -> Response:
    """Return a server, each of its tools, and who called them. Reading it is recorded."""
    view = await services.inventory.look()
    line = view.server(server)
    if line is None:
        raise NotFoundError(f"the inventory has no server {server}")
    tools = [one for one in view.tools if one.server == server]
    await _read(services, caller, "inventory", server, len(tools))
    agents = sorted({agent for agent, name, _ in view.counted.uses if name == server})
    return json_response(
        {
            "now_ms": view.now_ms,
            "counted": counted_view(view),
            "server": msgspec.to_builtins(line),
            "tools": msgspec.to_builtins(tools),
            "agents": agents,
        }
    )


@router.post(
    "/v1/inventory/{server}/tags",
    status_code=201,
    summary="Confirm or reject tags of a tool",
    response_description="It is recorded; the gateway's list stays the authority.",
)
async def speak_of_tags(services: ServicesDep, caller: _Speaker, server: _PathName, said: TagsRequest) -> Response:
    """Record what a person says of tags. They are in force once a gateway's list of servers has them."""
    leaf = await services.inventory.speak(
        server, said.tool, said.tags, said.verdict, actor_of(caller, services.keys), said.comment
    )
    return json_response({"server": server, "tool": said.tool, "verdict": said.verdict, "leaf_index": leaf}, 201)


@router.post(
    "/v1/inventory",
    status_code=201,
    summary="Pin what the inventory says now",
    response_description="The snapshot, its digest, and where its record stands.",
)
async def pin_view(services: ServicesDep, caller: _Maker, wanted: PinRequest) -> Response:
    """Make a record of a view, by its digest; its leaves are read first. Keep the snapshot: the log has the digest."""
    actor = actor_of(caller, services.keys)
    if wanted.agent is not None:
        report = await services.privileges.report(wanted.agent)
        snapshot, items = privileges_view(report), len(report.lines)
        uses: list[tuple[UseKey, Sequence[int]]] = [
            ((report.agent, line.server, line.tool), _leaves(line.use.first_leaf, line.use.last_leaf))
            for line in report.lines
            if line.use.calls
        ]
        size = report.size
    else:
        view = await services.inventory.look()
        snapshot, items, size = inventory_snapshot(view), len(view.servers) + len(view.tools), view.counted.size
        uses = uses_of(view)
    done = await services.inventory.pin(
        snapshot,
        view=wanted.view,
        agent=wanted.agent,
        size=size,
        items=items,
        uses=uses,
        actor=actor,
        comment=wanted.comment,
    )
    return json_response({"digest": done.digest, "leaf_index": done.leaf_index, "snapshot": done.snapshot}, 201)


def _leaves(*leaves: int | None) -> list[int]:
    return sorted({leaf for leaf in leaves if leaf is not None})


def uses_of(view: InventoryView) -> list[tuple[UseKey, Sequence[int]]]:
    """Return every use that an inventory tells of, with the leaves that it names for it."""
    return [(key, _leaves(use.first_leaf, use.last_leaf)) for key, use in view.counted.uses.items()]


def inventory_snapshot(view: InventoryView) -> dict[str, Any]:
    """Return a whole inventory of plain values."""
    return {
        "now_ms": view.now_ms,
        "counted": counted_view(view),
        "totals": msgspec.to_builtins(view.totals),
        "servers": msgspec.to_builtins(view.servers),
        "tools": msgspec.to_builtins(view.tools),
    }


def privileges_view(report: PrivilegeReport) -> dict[str, Any]:
    """Return a report as the route tells it: what was asked, without the questions' own form."""
    members = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    asked = [
        {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.name != "request"}
        for one in report.circumstances
    ]
    told: dict[str, Any] = msgspec.to_builtins({**members, "circumstances": asked})
    return told


@router.get(
    "/v1/agents/{agent:path}/privileges",
    summary="What an agent can reach, and what it used",
    response_description="Every tool, what is granted and unused first.",
)
async def get_privileges(services: ServicesDep, caller: _Reader, agent: _PathName) -> Response:
    """Ask the policy in force about every tool, and set the answers against the log. Reading it is recorded."""
    report = await services.privileges.report(agent)
    await _read(services, caller, "privileges", agent, len(report.lines))
    return json_response(privileges_view(report))


async def _read(services: Services, caller: Caller, kind: str, target: str, items: int) -> None:
    # INVARIANT: the access record is durable before anything is handed out.
    await services.access.record([services.access.draft(caller, "view", kind, target_id=target, items=items)])
