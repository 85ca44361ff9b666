"""The page of the inventory: servers or tools, the unowned first; each figure leads to the decisions that it counts.

What there is follows from the log (`service.inventory`); here it is sorted, filtered and written. The page works
without a script: sorting and filtering are links and a form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service.inventory_view import InventoryView, ServerLine, ToolLine, UseLine
from service.web.guard import DashboardDep, PageRoute, ReaderDep
from service.web.integrity import look
from service.web.rendering import Verbatim
from service.web.unregistered import unregistered_part
from service.web.wording import moment, number, quantity

__all__ = [
    "PAGE_LINES",
    "Choice",
    "Figure",
    "InventoryPage",
    "Line",
    "agent_link",
    "basis_of",
    "inventory_page",
    "router",
    "use_figures",
]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PAGE_LINES: Final = 100
"""Lines of one page."""

_AGENTS: Final = 6
_FLAGS: Final = {
    "unowned": "Unowned",
    "unused": "Never used",
    "to_confirm": "Tags to confirm",
    "disputed": "Disputed",
}
_STATES: Final = {
    "registered": "registered",
    "removed": "taken off every list",
    "unlisted": "on no list",
    "known": "",
    "unseen": "definition never seen",
}
_TERMS: Final = {
    "in_force": "in force",
    "suggested": "suggested",
    "confirmed": "confirmed, not in the list",
    "rejected": "rejected",
    "contested": "rejected, in the list",
}

_Field = Annotated[str, Query(max_length=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number, and the decisions that it counts.

    Attributes:
        text: The number, or a time.
        link: The search that gives them; empty if there are none.
        about: What it counts, for those who hear the link alone.
    """

    text: str
    link: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A column that the lines can be sorted by, or a list that can be shown.

    Attributes:
        label: Its name.
        link: Leads to it.
        chosen: It is so now.
    """

    label: str
    link: Verbatim
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A server or tool, as the page shows it.

    Attributes:
        name: Its name.
        server: Of a tool: its server; empty for a server.
        place: Leads to a server's tools; empty for a tool.
        owners: Who answers for it.
        unowned: Nobody does.
        state: What is to be said of it in a word or two.
        tags: Tags in force.
        open: Tags that somebody should settle, with their state and the rules.
        notes: What else is to be looked at.
        agents: Some of the agents that called it.
        more_agents: How many more did.
        calls: Its calls.
        refused: Those that were denied.
        first: Its first call.
        last: Its last.
    """

    name: str
    server: str
    place: Verbatim
    owners: tuple[str, ...]
    unowned: bool
    state: str
    tags: tuple[str, ...]
    open: tuple[str, ...]
    notes: tuple[str, ...]
    agents: tuple[tuple[str, Verbatim], ...]
    more_agents: int
    calls: Figure
    refused: Figure
    first: Figure
    last: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryPage:
    """The page.

    Attributes:
        show: servers or tools.
        shows: Both, as links.
        server: Which server's, as typed.
        flags: What can be ticked, with whether it is.
        sorts: What the lines can be sorted by.
        sort: What they are.
        tiles: How many there are of what somebody should look at.
        lines: The lines of this page.
        matching: How many match.
        next: Leads to the next page, or None.
        first: Leads to the first, or None on it.
        filtered: Some filter is on.
        basis: What the figures were counted from, in a sentence.
    """

    show: str
    shows: tuple[Choice, ...]
    server: Verbatim
    flags: tuple[tuple[str, str, bool], ...]
    sorts: tuple[Choice, ...]
    sort: str
    tiles: tuple[tuple[str, str, bool, Verbatim], ...]
    lines: tuple[Line, ...]
    matching: int
    next: Verbatim | None
    first: Verbatim | None
    filtered: bool
    basis: str


def basis_of(size: int, *, complete: bool, calls: int | None = None, left_out: int = 0) -> str:
    """Return what figures were counted from: the leaves, and of how many calls."""
    said = "" if calls is None else f"{quantity(calls, 'call')} of tools among "
    rest = "" if complete else " The log goes on: reload the page to count further."
    left = f" {quantity(left_out, 'call')} came under too many names to be told apart." if left_out else ""
    return f"Counted from {said}leaves 0 to {number(size)}.{left}{rest}"


def agent_link(agent: str) -> Verbatim:
    """Return the path of an agent's page."""
    return Verbatim(f"/agents/{quote(agent, safe='')}")


def _search(**filters: str) -> str:
    return "/?" + urlencode(filters)


def use_figures(use: UseLine, about: str, **filters: str) -> dict[str, Figure]:
    """Return the figures of a use, each with the search for its decisions.

    Args:
        use: The use.
        about: What was used, in words.
        filters: By which its decisions are found.
    """
    refused = {**filters, "enforcement": "deny"}

    def when(time_ms: int | None, leaf: int | None) -> Figure:
        if time_ms is None or leaf is None:
            return Figure(text="never")
        return Figure(text=f"{moment(time_ms)}, leaf {number(leaf)}")

    return {
        "calls": Figure(
            text=number(use.calls), link=_search(**filters) if use.calls else "", about=f"decisions about {about}"
        ),
        "refused": Figure(
            text=number(use.refused), link=_search(**refused) if use.refused else "", about=f"denials about {about}"
        ),
        "first": when(use.first_ms, use.first_leaf),
        "last": when(use.last_ms, use.last_leaf),
    }


def _server_line(line: ServerLine, view: InventoryView) -> Line:
    agents = sorted({agent for agent, server, _ in view.counted.uses if server == line.name})
    notes = ["the gateways' lists differ"] if line.differing else []
    if line.unused_tools:
        notes.append(f"{number(line.unused_tools)} of {quantity(line.tools, 'tool')} never used")
    return Line(
        name=line.name,
        server="",
        place=Verbatim("/inventory?" + urlencode({"show": "tools", "server": line.name})),
        owners=line.owners,
        unowned=not line.owners,
        state=_STATES[line.state],
        tags=line.tags,
        open=(),
        notes=tuple(notes),
        agents=tuple((agent, agent_link(agent)) for agent in agents[:_AGENTS]),
        more_agents=max(0, len(agents) - _AGENTS),
        **use_figures(line.use, line.name, server=line.name),
    )


def _tool_line(line: ToolLine) -> Line:
    settled = ("in_force", "rejected")
    notes = [f"the server's {hint} is gainsaid by its own definition" for hint in line.disagreements]
    if line.definition_ms is not None and line.definitions > 1:
        notes.append(f"{quantity(line.definitions, 'definition')}, the present since {moment(line.definition_ms)}")
    return Line(
        name=line.tool,
        server=line.server,
        place=Verbatim(""),
        owners=line.owners,
        unowned=not line.owners,
        state=_STATES[line.state] or ("" if line.server_state == "registered" else _STATES[line.server_state]),
        tags=line.tags,
        open=tuple(_term(term.tag, term.state, term.rules) for term in line.terms if term.state not in settled),
        notes=tuple(notes),
        agents=tuple((agent, agent_link(agent)) for agent in line.agents[:_AGENTS]),
        more_agents=max(0, line.agent_count - _AGENTS),
        **use_figures(line.use, f"{line.server}/{line.tool}", server=line.server, tool=line.tool),
    )


def _term(tag: str, state: str, rules: Sequence[str]) -> str:
    by = f" by {', '.join(rules)}" if rules and state == "suggested" else ""
    return f"{tag}: {_TERMS[state]}{by}"


def _name_of(line: ServerLine | ToolLine) -> tuple[str, ...]:
    return (line.name,) if isinstance(line, ServerLine) else (line.server, line.tool)


_SORTS: Final[Mapping[str, tuple[str, Callable[[ServerLine | ToolLine], Any]]]] = {
    "owner": ("unowned first", lambda line: (bool(line.owners), _name_of(line))),
    "name": ("name", _name_of),
    "calls": ("most calls", lambda line: (-line.use.calls, _name_of(line))),
    "refused": ("most refused", lambda line: (-line.use.refused, _name_of(line))),
    "last": ("longest unused", lambda line: (line.use.last_ms or -1, _name_of(line))),
}


def _wanted(line: ServerLine | ToolLine, server: str, flags: Mapping[str, bool]) -> bool:
    if server and _name_of(line)[0] != server:
        return False
    of_server = isinstance(line, ServerLine)
    tests = {
        "unowned": not line.owners,
        "unused": line.unused_tools > 0 if isinstance(line, ServerLine) else not line.use.calls,
        "to_confirm": not of_server and isinstance(line, ToolLine) and line.to_confirm,
        "disputed": not of_server and isinstance(line, ToolLine) and line.disputed,
    }
    return all(tests[name] for name, on in flags.items() if on)


def inventory_page(
    view: InventoryView, *, show: str, server: str, sort: str, flags: Mapping[str, bool], page: int
) -> InventoryPage:
    """Return the page.

    Args:
        view: The inventory.
        show: ``servers`` or ``tools``; anything else is servers.
        server: Of which server alone; empty for all.
        sort: By what; anything unknown is ``owner``.
        flags: What is ticked.
        page: Which page, from 1.
    """
    show = show if show == "tools" else "servers"
    sort = sort if sort in _SORTS else "owner"
    on = {name: "1" for name in _FLAGS if flags.get(name)}

    def link(**changes: str) -> Verbatim:
        given = {"show": show, "server": server, "sort": sort, **on, **changes}
        return Verbatim("/inventory?" + urlencode({name: value for name, value in given.items() if value}))

    every: Sequence[ServerLine | ToolLine] = view.servers if show == "servers" else view.tools
    found = sorted((line for line in every if _wanted(line, server, flags)), key=_SORTS[sort][1])
    start = PAGE_LINES * (max(1, page) - 1)
    shown = found[start : start + PAGE_LINES]
    totals = view.totals
    tiles = (
        ("Unowned servers", totals.unowned, "/inventory?show=servers&unowned=1"),
        ("Servers on no list", totals.unlisted, "/inventory?show=servers"),
        ("Tools never used", totals.never_used, "/inventory?show=tools&unused=1"),
        ("Tools with tags to confirm", totals.to_confirm, "/inventory?show=tools&to_confirm=1"),
        ("Disputed tools", totals.disputed, "/inventory?show=tools&disputed=1"),
    )
    counted = view.counted
    return InventoryPage(
        show=show,
        shows=tuple(
            Choice(label=label, link=link(show=name), chosen=show == name)
            for name, label in (("servers", "Servers"), ("tools", "Tools"))
        ),
        server=Verbatim(server),
        flags=tuple((name, label, bool(flags.get(name))) for name, label in _FLAGS.items()),
        sorts=tuple(
            Choice(label=label, link=link(sort=name), chosen=sort == name) for name, (label, _) in _SORTS.items()
        ),
        sort=sort,
        tiles=tuple((label, number(count), bool(count), Verbatim(place)) for label, count, place in tiles),
        lines=tuple(_server_line(line, view) if isinstance(line, ServerLine) else _tool_line(line) for line in shown),
        matching=len(found),
        next=link(page=str(max(1, page) + 1)) if start + PAGE_LINES < len(found) else None,
        first=link() if start else None,
        filtered=bool(server or on),
        basis=basis_of(counted.size, complete=counted.complete, calls=counted.calls, left_out=counted.left_out),
    )


@router.get("/inventory")
async def show_inventory(
    request: Request,
    dashboard: DashboardDep,
    session: ReaderDep,
    *,
    show: _Field = "servers",
    server: _Field = "",
    sort: _Field = "owner",
    unowned: _Field = "",
    unused: _Field = "",
    to_confirm: _Field = "",
    disputed: _Field = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """Show servers or tools, the unowned first."""
    services = dashboard.services
    view = await services.inventory.look()
    flags = {"unowned": unowned, "unused": unused, "to_confirm": to_confirm, "disputed": disputed}
    shown = inventory_page(
        view,
        show=show,
        server=server.strip(),
        sort=sort,
        flags={name: bool(value) for name, value in flags.items()},
        page=page,
    )
    registered = frozenset(line.name for line in view.servers if line.state == "registered")
    unregistered = unregistered_part(await services.discoveries.look(), registered)
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "inventory", target_id=shown.show, items=len(shown.lines))
    await services.access.record([draft])
    return dashboard.pages.page(
        "inventory.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        view=shown,
        unregistered=unregistered,
        live="/live",
    )
