"""The pages of held calls: which wait for people, and one call with exactly what will run, and Approve and Deny.

What may be said of a call, and by whom, is judged in `service.approvals`; here it is written. The parameters are shown
after a click that says so, for who opens them is recorded; then whoever saw them may decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from markupsafe import Markup, escape

from ledger.approvals import ApprovalState, HeldCall
from ledger.bodies import Decision
from ledger.errors import MalformedError
from service.approvals import Opened, approver_of, require_comment
from service.auth import Permission, may
from service.web.forms import read_own_form
from service.web.guard import Dashboard, DashboardDep, LobbyDep, PageRoute, ReaderDep, redirect
from service.web.integrity import look
from service.web.sessions import WebSession
from service.web.views import Field
from service.web.wording import moment, number, quantity

__all__ = ["ApprovalRow", "ApprovalView", "approval_row", "approval_view", "router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ApprovalId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Icon = Literal["ask", "allow", "deny", "well", "trouble"]
_MAX_ROWS: Final = 50
_WORDS: Final[dict[ApprovalState, tuple[str, _Icon]]] = {
    ApprovalState.WAITING: ("Waiting", "ask"),
    ApprovalState.GRANTED: ("Approved", "allow"),
    ApprovalState.DENIED: ("Denied", "deny"),
    ApprovalState.USED: ("Approved and run", "well"),
    ApprovalState.EXPIRED: ("Expired", "trouble"),
    ApprovalState.CANCELLED: ("Cancelled", "trouble"),
    ApprovalState.WITHHELD: ("Not run", "trouble"),
}
_CAUSES: Final = {"policy": "The policy asks for it", "irreversible": "The tool cannot be undone"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow:
    """A held call as the list shows it.

    Attributes:
        approval_id: Its id, which leads to its page.
        state: How far it has come, in a word or two.
        icon: The icon beside that.
        tool: Which tool of which server.
        agent: Who calls.
        held: Since when.
        until: Until when people can decide.
        agreed: How many have, of how many that must.
        waits: Somebody must say something of it.
    """

    approval_id: str
    state: str
    icon: _Icon
    tool: str
    agent: str
    held: str
    until: str
    agreed: str
    waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """A held call as its page shows it.

    Attributes:
        row: What the list says of it.
        fields: What the records say of it.
        may_decide: Who looks may open it and decide.
        shown: What will run, laid out and escaped; None until it is opened.
        hidden: What of it is not seen by itself, in a sentence; empty if nothing is.
        said: What whoever requested it says besides, laid out and escaped; None if nothing.
        binding: What a verdict is about; empty until it is opened.
    """

    row: ApprovalRow
    fields: tuple[Field, ...]
    may_decide: bool
    shown: Markup | None = None
    hidden: str = ""
    said: Markup | None = None
    binding: str = ""


def approval_row(call: HeldCall, decision: Decision, now_ms: int) -> ApprovalRow:
    """Return what the list says of a held call."""
    word, icon = _WORDS[call.state(now_ms)]
    return ApprovalRow(
        approval_id=call.approval_id,
        state=word,
        icon=icon,
        tool=f"{decision.server}/{decision.tool or decision.method or ''}",
        agent=decision.agent,
        held=f"{moment(call.held_ms)} UTC",
        until=f"{moment(call.expires_ms)} UTC",
        agreed=f"{len(call.grants)} of {call.needed}",
        waits=call.waits(now_ms),
    )


def approval_view(
    call: HeldCall, decision: Decision, now_ms: int, *, may_decide: bool, opened: Opened | None = None
) -> ApprovalView:
    """Return what the page of a held call shows.

    Args:
        call: The call.
        decision: Its decision.
        now_ms: The service's clock.
        may_decide: Who looks is a person who may.
        opened: What will run, if it was opened.
    """
    hidden = () if opened is None else opened.shown.hidden
    said = None if opened is None else opened.said
    return ApprovalView(
        row=approval_row(call, decision, now_ms),
        fields=tuple(_fields(call, decision)),
        may_decide=may_decide and call.open(now_ms),
        # INVARIANT: exactly what will run: laid out by `service.shown_call`, which cuts nothing, and escaped here.
        shown=None if opened is None else escape(opened.shown.text),
        hidden=f"It holds what cannot be seen: {', '.join(hidden)}." if hidden else "",
        said=None if said is None else escape(said.text),
        binding="" if opened is None else call.binding,
    )


def _fields(call: HeldCall, decision: Decision) -> Iterator[Field]:
    yield Field(label="Server", value=decision.server)
    yield Field(label="Method", value=decision.method or "")
    if decision.tool is not None:
        yield Field(label="Tool", value=decision.tool)
    digest = decision.tool_digest or "not listed when it was held"
    yield Field(label="Tool definition", value=digest, kind="code")
    yield Field(label="Agent", value=decision.agent)
    if decision.user is not None:
        yield Field(label="User", value=decision.user, kind="pseudonym")
    yield Field(label="Session", value=decision.session, kind="pseudonym")
    yield Field(label="Why it is held", value=_CAUSES.get(call.cause, call.cause))
    yield Field(label="Rules", value=", ".join(decision.rules) or "none")
    if decision.inspection is not None:
        found = decision.inspection
        yield Field(label="Findings", value=", ".join(found.findings) or "none", note=f"inspected: {found.extent}")
    if decision.bundle is not None:
        yield Field(label="Bundle", value=decision.bundle.name, note=decision.bundle.revision)
    if call.requester is None:
        yield Field(label="Held at", value=call.enforcer, note=f"{moment(call.held_ms)} UTC")
    else:
        yield Field(label="Requested by", value=call.requester, kind="pseudonym", note=f"{moment(call.held_ms)} UTC")
    yield Field(label="Expires", value=f"{moment(call.expires_ms)} UTC")
    roles = f"as {' or '.join(call.roles)}" if call.roles else "whoever may approve"
    yield Field(label="Needs", value=f"{quantity(call.needed, 'approval')} by different people", note=roles)
    for grant in call.grants:
        yield Field(label="Approved by", value=grant.actor, kind="pseudonym", note=f"{moment(grant.time_ms)} UTC")
    if call.denied_by is not None:
        yield Field(label="Denied by", value=call.denied_by, kind="pseudonym")
    if call.ended is not None and call.ended_ms is not None:
        yield Field(label="Ended", value=call.ended_reason or call.ended, note=f"{moment(call.ended_ms)} UTC")
    yield Field(label="Opened by", value="1 person" if len(call.seen) == 1 else f"{len(call.seen)} people")
    if call.refusals:
        yield Field(label="Attempts that were refused", value=number(call.refusals))
    yield Field(label="Decision", value=call.decision_id, kind="code")
    yield Field(label="Leaf", value=number(call.leaf_index))


def _rows(dashboard: Dashboard, calls: tuple[HeldCall, ...]) -> list[ApprovalRow]:
    services = dashboard.services
    now_ms = services.clock.now_ms()
    return [approval_row(call, services.approvals.decision(call)[1], now_ms) for call in calls]


@router.get("/approvals")
async def show_approvals(request: Request, dashboard: DashboardDep, session: ReaderDep) -> Response:
    """List held calls: those that wait first, then what became of the others."""
    services = dashboard.services
    calls = await services.approvals.all()
    now_ms = services.clock.now_ms()
    waiting = tuple(sorted((call for call in calls if call.waits(now_ms)), key=lambda call: call.expires_ms))
    others = tuple(call for call in calls if not call.waits(now_ms))
    rows = await asyncio.to_thread(_rows, dashboard, waiting[:_MAX_ROWS])
    done = await asyncio.to_thread(_rows, dashboard, others[:_MAX_ROWS])
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "approvals", items=len(rows) + len(done))
    await services.access.record([draft])
    return dashboard.pages.page(
        "approvals.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        waiting=rows,
        done=done,
        more=max(0, len(waiting) - _MAX_ROWS) + max(0, len(others) - _MAX_ROWS),
        live="/live",
    )


async def _page(
    request: Request, dashboard: Dashboard, session: WebSession, call: HeldCall, opened: Opened | None = None
) -> Response:
    services = dashboard.services
    _, decision = await asyncio.to_thread(services.approvals.decision, call)
    may_decide = may(session.caller, Permission.APPROVE)
    return dashboard.pages.page(
        "approval.html",
        session=session,
        path=request.url.path,
        integrity=await asyncio.to_thread(look, services),
        view=approval_view(call, decision, services.clock.now_ms(), may_decide=may_decide, opened=opened),
    )


@router.get("/approvals/{approval_id}")
async def show_approval(
    request: Request, dashboard: DashboardDep, session: ReaderDep, approval_id: _ApprovalId
) -> Response:
    """Show one held call, without its parameters."""
    services = dashboard.services
    call = await services.approvals.get(approval_id)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "approval", target_id=approval_id, items=1)
    await services.access.record([draft])
    return await _page(request, dashboard, session, call)


async def _checked_form(request: Request, lobby: LobbyDep, session: WebSession) -> dict[str, str]:
    return await read_own_form(request, secret=session.csrf, external_url=lobby.hosting.settings.external_url)


@router.post("/approvals/{approval_id}/open")
async def open_parameters(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, approval_id: _ApprovalId
) -> Response:
    """Show exactly what will run; that it was opened, and by whom, is recorded first."""
    await _checked_form(request, lobby, session)
    services = dashboard.services
    person = approver_of(session.caller, await services.people.names_of(session.caller))
    opened = await services.approvals.open(approval_id, person)
    return await _page(request, dashboard, session, opened.call, opened)


@router.post("/approvals/{approval_id}/verdict")
async def decide(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, approval_id: _ApprovalId
) -> Response:
    """Take a verdict on what was shown."""
    form = await _checked_form(request, lobby, session)
    said = form.get("verdict")
    if said not in ("granted", "denied"):
        raise MalformedError("approve it or deny it")
    services = dashboard.services
    await services.approvals.decide(
        approval_id,
        "granted" if said == "granted" else "denied",
        approver_of(session.caller, await services.people.names_of(session.caller)),
        binding=form.get("binding", ""),
        comment=require_comment(form.get("reason", "")),
    )
    return redirect(f"/approvals/{approval_id}")
