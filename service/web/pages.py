"""The pages for those who are logged in: decisions, one decision, one session, and what can be downloaded of them.

Each page that is shown is an access record, durable before the page is handed out. The refreshes of a page that is
open are none; they can show nothing but the newest state of a view that was recorded (`Filters.view_key`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response

from ledger.bodies import Decision, Outcome
from ledger.records import Record
from service.api.decisions import find_decision, get_proof
from service.api.sessions import served_session, stream_gaps
from service.auth import Caller, Permission, may, require
from service.problems import ForbiddenError
from service.session_related import related_leaves
from service.web.contained import ContainedPanel, contained_panel
from service.web.counts import Counts
from service.web.filters import ENFORCEMENT_CHOICES, PAGE_ROWS, Filters, filters_of
from service.web.fleet import FleetPanel, fleet_panel
from service.web.guard import Dashboard, DashboardDep, PageRoute, ReaderDep, seat_of
from service.web.integrity import Integrity, look
from service.web.rendering import PAGE_HEADERS
from service.web.sessions import WebSession
from service.web.stories import STORY_ROWS, Story, tell
from service.web.views import DecisionView, Row, decision_row, decision_view
from service.web.wording import moment

__all__ = ["router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_FiltersDep = Annotated[Filters, Depends(filters_of)]
_Before = Annotated[int | None, Query(ge=0, le=2**62)]
_DecisionId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Session = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
_AS_OF: Final = "Tallystick-As-Of"
_LIVE: Final = "/live"
_COMMANDS: Final = (
    (
        Permission.REPLAY,
        "tallystick replay {}",
        "Evaluate it again under the policy that decided it; with --bundle DIR and --purpose TEXT, under another.",
    ),
    (
        Permission.OPEN_PAYLOADS,
        "tallystick open {} --purpose TEXT",
        "Open the request that was judged; with --field message or result, those. Who and why is recorded.",
    ),
)
"""Permission, command line and meaning of what is done with a decision elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of decisions.

    Attributes:
        rows: Newest first.
        older: Where the next page begins, or None on the last.
        strays: Leaves that the search index named and that are no decisions: the index is damaged.
        pruned_below: The log's minimum index: decisions below it are not listed.
    """

    rows: tuple[Row, ...]
    older: int | None
    strays: int
    pruned_below: int = 0


def _list(dashboard: Dashboard, filters: Filters, before: int | None) -> Listing:
    if filters.faults:
        return Listing(rows=(), older=None, strays=0)
    services = dashboard.services
    minimum = services.minimum_index.current()
    found = [
        index
        for index in services.catalog.search(services.identity.log_id, filters.query(before=before))
        if index >= minimum
    ]
    indexes = found[:PAGE_ROWS]
    # The index is a convenience: what is shown is read from the log (architecture.md, invariant 3).
    records = dashboard.records.records(indexes)
    rows = tuple(
        decision_row(index, record, record.body)
        for index, record in zip(indexes, records, strict=True)
        if isinstance(record.body, Decision)
    )
    older = indexes[-1] if len(found) > PAGE_ROWS else None
    return Listing(rows=rows, older=older, strays=len(indexes) - len(rows), pruned_below=minimum)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    integrity: Integrity
    counts: Counts
    fleet: FleetPanel
    contained: ContainedPanel
    listing: Listing


def _look_at_home(dashboard: Dashboard, filters: Filters, before: int | None) -> _Home:
    return _Home(
        integrity=look(dashboard.services),
        counts=dashboard.counts.now(),
        fleet=fleet_panel(dashboard.services.fleet.look()),
        contained=contained_panel(dashboard.services.containments.look(), dashboard.services.clock.now_ms()),
        listing=_list(dashboard, filters, before),
    )


async def _viewed(dashboard: Dashboard, caller: Caller, kind: str, target_id: str | None, items: int) -> None:
    """Record that somebody looks."""
    # INVARIANT: the access record is durable before anything is handed out.
    access = dashboard.services.access
    await access.record([access.draft(caller, "view", kind, target_id=target_id, items=items)])


@router.get("/")
async def show_home(
    request: Request, dashboard: DashboardDep, session: ReaderDep, filters: _FiltersDep, before: _Before = None
) -> Response:
    """Show the state of the log and the newest decisions."""
    home = await asyncio.to_thread(_look_at_home, dashboard, filters, before)
    await _viewed(dashboard, session.caller, "dashboard", None, len(home.listing.rows))
    live = filters.link(_LIVE, view=filters.view_key(session.csrf)) if before is None else _LIVE
    return dashboard.pages.page(
        "home.html",
        session=session,
        path=request.url.path,
        integrity=home.integrity,
        counts=home.counts,
        fleet=home.fleet,
        contained=home.contained,
        listing=home.listing,
        filters=filters,
        enforcement_choices=ENFORCEMENT_CHOICES,
        live=live,
        newest=before is None,
    )


@router.get("/live")
async def refresh(
    request: Request,
    filters: _FiltersDep,
    view: Annotated[str | None, Query(max_length=64)] = None,
    if_none_match: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """Return what changes on an open page: the integrity bar, and the newest decisions of a recorded view."""
    seat = await seat_of(request)
    if seat is None:
        return Response(status_code=401, headers=dict(PAGE_HEADERS))
    dashboard, session = seat.dashboard, seat.session
    require(session.caller, Permission.READ_DECISIONS)
    if view is None:
        integrity = await asyncio.to_thread(look, dashboard.services)
        text = dashboard.pages.html("live.html", integrity=integrity, listing=None)
    else:
        # INVARIANT: a refresh shows nothing that a recorded view of this session did not ask for.
        if not hmac.compare_digest(filters.view_key(session.csrf).encode(), view.encode()):
            raise ForbiddenError("this view was not opened in this session")
        home = await asyncio.to_thread(_look_at_home, dashboard, filters, None)
        integrity = home.integrity
        text = dashboard.pages.html(
            "live.html",
            integrity=integrity,
            listing=home.listing,
            counts=home.counts,
            fleet=home.fleet,
            contained=home.contained,
            filters=filters,
            newest=True,
        )
    data = text.encode()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {**PAGE_HEADERS, "ETag": tag, _AS_OF: moment(integrity.now_ms)}
    if if_none_match is not None and tag in [item.strip() for item in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="text/html; charset=utf-8", headers=headers)


def _read_decision(dashboard: Dashboard, decision_id: str) -> DecisionView:
    services = dashboard.services
    index, _entry, record = find_decision(services, decision_id)
    body = record.body
    assert isinstance(body, Decision)  # find_decision refuses others
    minimum = services.minimum_index.current()
    found = [at for at in services.catalog.outcomes_of(services.identity.log_id, decision_id) if at >= minimum]
    outcomes = [
        (at, outcome, outcome.body)
        for at, outcome in zip(found, dashboard.records.records(found), strict=True)
        if isinstance(outcome.body, Outcome) and outcome.body.decision_id == decision_id
    ]
    return decision_view(index, record, body, outcomes)


def _commands(caller: Caller, decision_id: str) -> list[tuple[str, str]]:
    """Return the command lines about a decision that a caller's role may use."""
    return [(line.format(decision_id), meaning) for permission, line, meaning in _COMMANDS if may(caller, permission)]


@router.get("/decisions/{decision_id}")
async def show_decision(
    request: Request, dashboard: DashboardDep, session: ReaderDep, decision_id: _DecisionId
) -> Response:
    """Show every public field of a decision, and what became of the call."""
    view = await asyncio.to_thread(_read_decision, dashboard, decision_id)
    integrity = await asyncio.to_thread(look, dashboard.services)
    await _viewed(dashboard, session.caller, "record", decision_id, 1)
    covered = integrity.head is not None and view.row.leaf < integrity.head.size
    return dashboard.pages.page(
        "decision.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        view=view,
        covered=covered,
        commands=_commands(session.caller, decision_id),
        live=_LIVE,
    )


async def _downloaded(dashboard: Dashboard, session: WebSession, decision_id: str, digest: str) -> None:
    access = dashboard.services.access
    draft = access.draft(session.caller, "download", "record", target_id=decision_id, items=1, digest=digest)
    await access.record([draft])


@router.get("/decisions/{decision_id}/proof")
async def download_proof(dashboard: DashboardDep, session: ReaderDep, decision_id: _DecisionId) -> Response:
    """Hand out the decision's inclusion proof, a C2SP `.tlog-proof`."""
    require(session.caller, Permission.READ_LOG)
    response = await get_proof(dashboard.services, session.caller, decision_id)
    await _downloaded(dashboard, session, decision_id, hashlib.sha256(bytes(response.body)).hexdigest())
    response.headers["Cache-Control"] = "no-store"
    return response


@router.get("/decisions/{decision_id}/entry")
async def download_entry(dashboard: DashboardDep, session: ReaderDep, decision_id: _DecisionId) -> Response:
    """Hand out the decision's entry: the exact bytes that the proof is about."""
    _index, entry, _record = await asyncio.to_thread(find_decision, dashboard.services, decision_id)
    await _downloaded(dashboard, session, decision_id, hashlib.sha256(entry).hexdigest())
    headers = {
        **PAGE_HEADERS,
        "Content-Disposition": f'attachment; filename="{decision_id}.entry.json"',
    }
    return Response(entry, media_type="application/json", headers=headers)


def _read_session(dashboard: Dashboard, session: str, after: int | None) -> tuple[Story, int]:
    services = dashboard.services
    indexes, pruned_below = served_session(services, session)

    def gaps(records: Sequence[Record]) -> list[dict[str, object]]:
        return stream_gaps(services, records)

    leaves, _cut = related_leaves(services, session, indexes)
    related = list(zip(leaves, dashboard.records.records(leaves), strict=True))
    return tell(indexes, after, dashboard.records.records, gaps, related), pruned_below


@router.get("/sessions/{session_id}")
async def show_session(
    request: Request,
    dashboard: DashboardDep,
    session: ReaderDep,
    session_id: _Session,
    after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """Tell what happened in a session, in order."""
    story, pruned_below = await asyncio.to_thread(_read_session, dashboard, session_id, after)
    integrity = await asyncio.to_thread(look, dashboard.services)
    await _viewed(dashboard, session.caller, "session", session_id, len(story.steps))
    return dashboard.pages.page(
        "session.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        story=story,
        session_id=session_id,
        rows_per_page=STORY_ROWS,
        pruned_below=pruned_below,
        live=_LIVE,
    )
