"""The page of one agent: what it can reach, what it used, and what is granted and unused.

What is asked and counted is `service.privilege_report`'s part; here it is written, with a drawing of the use in each
window. The drawing says nothing that the table beneath it does not: it is hidden from those who cannot see it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from service.privilege_contexts import Circumstance
from service.privilege_report import PrivilegeLine, PrivilegeReport
from service.web.guard import DashboardDep, PageRoute, ReaderDep
from service.web.integrity import look
from service.web.inventory_page import Figure, basis_of, use_figures
from service.web.views import Field
from service.web.wording import number, quantity, short

__all__ = ["HEAT_LINES", "Cell", "PrivilegePage", "PrivilegeRow", "privilege_page", "router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_Agent = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]

HEAT_LINES: Final = 60
"""Tools that are drawn; the table has all."""

_CELL: Final = 22
_REACH: Final = {
    "allowed": ("allow", "Allowed"),
    "approval": ("ask", "With approval"),
    "refused": ("deny", "Refused"),
    "unknown": ("trouble", "Nobody can say"),
}
_STEPS: Final = (1, 10, 100, 1000)
"""From how many calls on a cell is a step darker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of the drawing.

    Attributes:
        x: Where it stands.
        y: Likewise.
        step: How dark it is, 0 to 4.
    """

    x: int
    y: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegeRow:
    """A tool, as the page shows it.

    Attributes:
        place: Its number on the page.
        server: Its server.
        tool: Its name.
        tags: Its tags in force.
        icon: Of its reach.
        reach: Its reach in words.
        asked: In how many circumstances it is permitted.
        rules: By which rules.
        unused: It is granted and unused.
        lost: It was used, and is refused now.
        within: Calls let through in each window.
        calls: All of its calls.
        last: The last.
        impact: What harm it could do.
        parts: What that is made of.
    """

    place: int
    server: str
    tool: str
    tags: tuple[str, ...]
    icon: str
    reach: str
    asked: str
    rules: tuple[str, ...]
    unused: bool
    lost: bool
    within: tuple[str, ...]
    calls: Figure
    last: Figure
    impact: int
    parts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegePage:
    """The page.

    Attributes:
        agent: The agent.
        summary: What it comes to, in sentences.
        tiles: How many tools are what; whether somebody should look.
        days: The windows, days.
        rows: The tools.
        cells: The drawing.
        width: Of the drawing.
        height: Likewise.
        drawn: How many tools are drawn.
        grants: The rules: name, tools, unused, calls that would break.
        circumstances: What was asked about.
        fields: Where it comes from.
        basis: What the figures were counted from.
    """

    agent: str
    summary: tuple[str, ...]
    tiles: tuple[tuple[str, str, bool], ...]
    days: tuple[int, ...]
    rows: tuple[PrivilegeRow, ...]
    cells: tuple[Cell, ...]
    width: int
    height: int
    drawn: int
    grants: tuple[tuple[str, str, str, str], ...]
    circumstances: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]
    basis: str


def privilege_page(report: PrivilegeReport) -> PrivilegePage:
    """Return the page of a report."""
    rows = tuple(_row(report.agent, place, line) for place, line in enumerate(report.lines, 1))
    drawn = report.lines[:HEAT_LINES]
    totals, longest = report.totals, report.days[-1]
    asked = len(report.circumstances)
    return PrivilegePage(
        agent=report.agent,
        summary=tuple(_summary(report)),
        tiles=(
            ("Can be reached", f"{number(totals.reachable)} of {number(totals.tools)}", False),
            ("With approval alone", number(totals.approval), False),
            (f"Granted, unused in {longest} days", number(totals.unused), totals.unused > 0),
            ("Used, refused now", number(totals.lost), totals.lost > 0),
        ),
        days=report.days,
        rows=rows,
        cells=tuple(
            Cell(x=column * _CELL, y=place * _CELL, step=sum(count >= step for step in _STEPS))
            for place, line in enumerate(drawn)
            for column, count in enumerate(line.within)
        ),
        width=len(report.days) * _CELL,
        height=len(drawn) * _CELL,
        drawn=len(drawn),
        grants=tuple(
            (grant.rule, number(grant.tools), number(grant.unused), number(grant.calls)) for grant in report.grants
        ),
        circumstances=tuple((one.label, _described(one)) for one in report.circumstances),
        fields=(
            Field(label="Policy in force", value="none" if report.bundle is None else short(report.bundle)),
            Field(label="Asked about", value=f"{quantity(totals.tools, 'tool')} in {quantity(asked, 'circumstance')}"),
        ),
        basis=basis_of(report.size, complete=report.complete),
    )


def _described(one: Circumstance) -> str:
    factor = "with" if one.mfa else "without"
    roles = f"roles {', '.join(one.roles)}" if one.roles else "no roles"
    seen = f"{one.authn}, {factor} a second factor, network {one.network}, zone {one.zone}, {roles}"
    return f"{seen}; as at leaf {number(one.leaf)}"


def _summary(report: PrivilegeReport) -> list[str]:
    totals, longest = report.totals, report.days[-1]
    reach = f"Of {quantity(totals.tools, 'tool')} this agent can reach {number(totals.reachable)}"
    said = [f"{reach} by the policy in force; {number(totals.unused)} of these it has not used in {longest} days."]
    if report.bundle is None:
        said = ["No policy is in force: nothing can be reached."]
    elif not report.circumstances:
        said = ["This agent was never seen with facts: nobody can say what it can reach."]
    if totals.unknown and report.circumstances:
        said.append(f"Of {quantity(totals.unknown, 'tool')} nobody can say.")
    if totals.left_out:
        said.append(f"{quantity(totals.left_out, 'tool')} more were not asked about.")
    return said


def _row(agent: str, place: int, line: PrivilegeLine) -> PrivilegeRow:
    icon, reach = _REACH[line.reach]
    figures = use_figures(
        line.use, f"{line.server}/{line.tool} by {agent}", agent=agent, server=line.server, tool=line.tool
    )
    parts = ", ".join(
        f"{part.tag} {part.points}{' (suggested)' if part.suggested else ''}" for part in line.impact.parts
    )
    return PrivilegeRow(
        place=place,
        server=line.server,
        tool=line.tool,
        tags=line.tags,
        icon=icon,
        reach=reach,
        asked=f"in {line.circumstances} of {line.asked}" if line.asked else "not asked",
        rules=line.rules,
        unused=line.unused,
        lost=line.reach == "refused" and bool(line.within[-1]),
        within=tuple(number(count) for count in line.within),
        calls=figures["calls"],
        last=figures["last"],
        impact=line.impact.points,
        parts=parts,
    )


@router.get("/agents/{agent:path}")
async def show_agent(request: Request, dashboard: DashboardDep, session: ReaderDep, agent: _Agent) -> Response:
    """Show what an agent can reach, and what it used."""
    services = dashboard.services
    report = await services.privileges.report(agent)
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "privileges", target_id=agent, items=len(report.lines))
    await services.access.record([draft])
    return dashboard.pages.page(
        "agent.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        view=privilege_page(report),
        live="/live",
    )
