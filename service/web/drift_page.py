"""The pages of behaviour: departures and baselines, one departure with its decisions, and one agent; what people say.

What may be said of a departure, and ordered about a baseline, is judged in `service.drift` and `service.drift_book`;
here it is written. An agent that calls and of which no gateway knows anything stands before all others.

INVARIANT: no baseline is shown as good news. ``none`` and ``learning`` have a sign and a word of their own, with what
is missing; a page without departures says of how many agents none could be found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from ledger.errors import MalformedError, NotFoundError, PrunedError
from service.api.common import demand
from service.api.decisions import find_decision
from service.approvals import require_comment
from service.auth import Permission, may
from service.bundles import actor_of
from service.drift import Disposition, Seen, without_baseline
from service.drift_book import DriftLife
from service.drift_words import CLOSED_AS, EXPLANATIONS, baseline_words, blind_words, detector_words, measured_words
from service.web.forms import read_own_form
from service.web.guard import Dashboard, DashboardDep, LobbyDep, PageRoute, ReaderDep, redirect
from service.web.integrity import look
from service.web.sessions import WebSession
from service.web.views import Field, Row, decision_row
from service.web.wording import moment, number, quantity

__all__ = [
    "BASELINE_ROWS",
    "PAGE_ROWS",
    "BaselineRow",
    "DriftRow",
    "DriftView",
    "agent_path",
    "baseline_row",
    "drift_row",
    "drift_view",
    "router",
    "tiles_of",
    "unknown_row",
]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PAGE_ROWS: Final = 50
"""Departures of one page."""

BASELINE_ROWS: Final = 200
"""Baselines on the page, those that are not ready first; the command line shows all."""

_AGENT: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$"
_Agent = Annotated[str, Path(pattern=_AGENT)]
_DriftId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Icon = Literal["ask", "well", "trouble", "observed"]

_STATES: Final[dict[str, tuple[str, _Icon]]] = {
    "flagged": ("Open", "trouble"),
    "acknowledged": ("Somebody looks after it", "ask"),
    "closed": ("Closed", "observed"),
}
_BASELINES: Final[dict[str, tuple[str, _Icon]]] = {
    "none": ("No baseline", "trouble"),
    "learning": ("Learning", "ask"),
    "ready": ("Ready", "well"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    """A departure as a list shows it.

    Attributes:
        drift_id: Its id, which leads to its page.
        state: What people made of it, in words.
        icon: The icon beside that.
        agent: Whose.
        link: Path of the agent's page.
        what: What was found, in words.
        about: Which tool, server or step; empty for all that the agent does.
        when: When it was flagged.
        closed: It is closed.
    """

    drift_id: str
    state: str
    icon: _Icon
    agent: str
    link: str
    what: str
    about: str
    when: str
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRow:
    """What a gateway knows of an agent, as the pages show it.

    Attributes:
        agent: Which agent.
        link: Path of its page.
        enforcer: Which gateway; empty if none knows anything.
        state: Whether there is a baseline, in words.
        icon: The icon beside that.
        known: How far it is one, in numbers.
        blind: What it cannot tell, in words.
        last: When the agent last called; empty if that is not known.
        silent: Its usual traffic is missing.
        digest: Of the candidate that is offered; empty if none is.
        offered: What it was learned from, in numbers.
        added: Tools of it that the baseline does not have.
    """

    agent: str
    link: str
    enforcer: str
    state: str
    icon: _Icon
    known: str
    blind: tuple[str, ...] = ()
    last: str = ""
    silent: bool = False
    digest: str = ""
    offered: str = ""
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftView:
    """A departure as its page shows it.

    Attributes:
        row: What the list says of it.
        fields: What the records say of it.
        decisions: The decisions that it rests on and that the log has.
        missing: Ids of those that the log does not have or serve, or that are of another agent.
        may_speak: Who looks is a person who may say something of it.
        acknowledged: Somebody looks after it, or did.
    """

    row: DriftRow
    fields: tuple[Field, ...]
    decisions: tuple[Row, ...]
    missing: tuple[str, ...]
    may_speak: bool
    acknowledged: bool


def agent_path(agent: str) -> str:
    """Return the path of what is known of an agent's behaviour; a name with slashes in it leads nowhere else."""
    return f"/drift/agents/{quote(agent, safe='')}"


def drift_row(life: DriftLife) -> DriftRow:
    """Return what a list says of a departure."""
    flag = life.flag
    word, icon = _STATES[life.state]
    if life.disposition is not None:
        word = f"{word}: {CLOSED_AS.get(life.disposition, life.disposition).lower()}"
    agent = flag.agent or ""
    subject = flag.subject or ""
    return DriftRow(
        drift_id=flag.drift_id,
        state=word,
        icon=icon,
        agent=agent,
        link=agent_path(agent) if agent else "",
        what=detector_words(flag.detector),
        about=f"{flag.previous}, then {subject}" if flag.previous else subject,
        when=f"{moment(life.time_ms)} UTC",
        closed=life.state == "closed",
    )


def baseline_row(seen: Seen) -> BaselineRow:
    """Return what the pages say of a baseline, or of how far one is from being one."""
    life = seen.baseline
    word, icon = _BASELINES[life.state]
    offered = life.offered
    return BaselineRow(
        agent=life.agent,
        link=agent_path(life.agent),
        enforcer=life.enforcer,
        state=word,
        icon=icon,
        known=baseline_words(life),
        blind=tuple(blind_words(what) for what in life.last.blind),
        last="" if seen.last_call_ms is None else f"{moment(seen.last_call_ms)} UTC",
        silent=seen.silent,
        digest="" if offered is None or offered.digest is None else offered.digest,
        offered="" if offered is None else f"{quantity(offered.calls, 'call')} on {quantity(offered.days, 'day')}",
        added=() if offered is None else offered.added,
    )


def unknown_row(agent: str) -> BaselineRow:
    """Return what the pages say of an agent that calls and of which no gateway knows anything."""
    word, icon = _BASELINES["none"]
    known = "no gateway learns what it usually does"
    return BaselineRow(agent=agent, link=agent_path(agent), enforcer="", state=word, icon=icon, known=known)


def tiles_of(lives: Sequence[DriftLife], seen: Sequence[Seen], unknown: int) -> tuple[tuple[str, str, bool], ...]:
    """Return what there is of each, and whether somebody should look."""
    count = {state: sum(one.baseline.state == state for one in seen) for state in _BASELINES}
    none, silent = count["none"] + unknown, sum(one.silent for one in seen)
    unclosed = sum(life.state != "closed" for life in lives)
    return (
        ("Open departures", number(unclosed), unclosed > 0),
        ("Without a baseline", number(none), none > 0),
        ("Learning", number(count["learning"]), count["learning"] > 0),
        ("Ready", number(count["ready"]), False),
        ("Silent", number(silent), silent > 0),
    )


def _fields(life: DriftLife) -> Iterator[Field]:
    flag = life.flag
    yield Field(label="Agent", value=flag.agent or "")
    yield Field(label="Gateway", value=life.enforcer)
    yield Field(label="Detector", value=flag.detector or "")
    if flag.previous:
        yield Field(label="Before it", value=flag.previous)
    if flag.subject:
        yield Field(label="About", value=flag.subject)
    yield Field(label="Measured", value=measured_words(flag.detector, flag.value_milli, flag.threshold_milli))
    yield Field(label="Rests on", value=quantity(flag.calls, "call"))
    if flag.baseline_version:
        window = f"{moment(flag.since_ms)} to {moment(flag.until_ms)} UTC"
        yield Field(label="Baseline", value=f"version {flag.baseline_version}", note=window)
    if flag.thresholds:
        yield Field(label="Thresholds", value=flag.thresholds, kind="code")
    if flag.explained is not None:
        note = "no excuse: what an agent is told to do may be what misleads it"
        yield Field(label="May be why", value=EXPLANATIONS.get(flag.explained, flag.explained), note=note)
    if flag.explained_by is not None:
        yield Field(label="Which", value=flag.explained_by, kind="code")
    if flag.unflagged:
        yield Field(
            label="Not flagged before it", value=quantity(flag.unflagged, "departure"), note="too many in a day"
        )
    if life.seen_by is not None:
        yield Field(label="Acknowledged by", value=life.seen_by, kind="pseudonym")
    if life.closed_by is not None:
        closed = CLOSED_AS.get(life.disposition or "", life.disposition or "")
        yield Field(label="Closed by", value=life.closed_by, kind="pseudonym", note=closed)
    yield Field(label="Leaf", value=number(life.leaf))


def drift_view(life: DriftLife, decisions: Sequence[Row], *, may_speak: bool) -> DriftView:
    """Return what the page of a departure shows.

    Args:
        life: The departure.
        decisions: Those of the decisions that it names which the log has, of whichever agent.
        may_speak: Who looks is a person who may say something of it.
    """
    # INVARIANT: what a gateway names as evidence is shown as that only if the log has it, of this agent.
    borne_out = tuple(row for row in decisions if row.agent == life.flag.agent)
    found = {row.record_id for row in borne_out}
    return DriftView(
        row=drift_row(life),
        fields=tuple(_fields(life)),
        decisions=borne_out,
        missing=tuple(one for one in life.flag.decisions if one not in found),
        may_speak=may_speak and life.state != "closed",
        acknowledged=life.state != "flagged",
    )


@router.get("/drift")
async def show_behaviour(
    request: Request,
    dashboard: DashboardDep,
    session: ReaderDep,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """List departures, the open ones first, and what is known of each agent, what is not ready first."""
    services = dashboard.services
    lives = await services.behaviour.drifts()
    seen = await services.behaviour.baselines()
    inventory = await services.inventory.look()
    unknown = without_baseline(seen, inventory)
    baselines = [*map(unknown_row, unknown), *map(baseline_row, seen)]
    start = PAGE_ROWS * (page - 1)
    listed = [drift_row(life) for life in lives[start : start + PAGE_ROWS]]
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "drift", items=len(listed) + len(seen))
    await services.access.record([draft])
    return dashboard.pages.page(
        "drift.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        tiles=tiles_of(lives, seen, len(unknown)),
        unclosed=[row for row in listed if not row.closed],
        closed=[row for row in listed if row.closed],
        baselines=baselines[:BASELINE_ROWS],
        more=max(0, len(baselines) - BASELINE_ROWS),
        complete=inventory.counted.complete,
        count=len(lives),
        number=page,
        next=page + 1 if start + PAGE_ROWS < len(lives) else 0,
        live="/live",
    )


@router.get("/drift/agents/{agent:path}")
async def show_agent_behaviour(
    request: Request, dashboard: DashboardDep, session: ReaderDep, agent: _Agent
) -> Response:
    """Show what each gateway knows of an agent, and its departures."""
    services = dashboard.services
    lives = [life for life in await services.behaviour.drifts() if life.flag.agent == agent]
    seen = await services.behaviour.baselines(agent)
    if not seen and agent in without_baseline((), await services.inventory.look()):
        baselines = [unknown_row(agent)]
    elif seen or lives:
        baselines = [baseline_row(one) for one in seen]
    else:
        raise NotFoundError(f"no agent {agent} was ever seen")
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "drift", target_id=agent, items=len(lives))
    await services.access.record([draft])
    return dashboard.pages.page(
        "drift_agent.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        agent=agent,
        order=f"{agent_path(agent)}/order",
        baselines=baselines,
        departures=[drift_row(life) for life in lives[:PAGE_ROWS]],
        more=max(0, len(lives) - PAGE_ROWS),
        may_order=may(session.caller, Permission.REVIEW_DRIFT),
        live="/live",
    )


@router.post("/drift/agents/{agent:path}/order")
async def order(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, agent: _Agent
) -> Response:
    """Have a gateway take up the baseline that it offers, or forget one."""
    form = await _form(request, lobby, session)
    await demand(request, session.caller, Permission.REVIEW_DRIFT)
    said, enforcer = form.get("order", ""), form.get("enforcer", "")
    services = dashboard.services
    actor = actor_of(session.caller, services.keys)
    comment = require_comment(form.get("reason", ""))
    if said == "accept":
        await services.behaviour.accept(agent, enforcer, form.get("digest", ""), actor, comment)
    elif said == "reset":
        await services.behaviour.reset(agent, enforcer, actor, comment)
    else:
        raise MalformedError("accept what is offered, or have it forgotten")
    return redirect(agent_path(agent))


def _decisions(dashboard: Dashboard, life: DriftLife) -> list[Row]:
    rows = []
    for decision_id in life.flag.decisions:
        try:
            index, _entry, record = find_decision(dashboard.services, decision_id)
        except (NotFoundError, PrunedError):
            continue
        rows.append(decision_row(index, record, record.body))  # type: ignore[arg-type]  # `find_decision` checked it
    return rows


@router.get("/drift/{drift_id}")
async def show_departure(request: Request, dashboard: DashboardDep, session: ReaderDep, drift_id: _DriftId) -> Response:
    """Show one departure, with the decisions that it rests on."""
    services = dashboard.services
    life = await services.behaviour.drift(drift_id)
    rows = await asyncio.to_thread(_decisions, dashboard, life)
    view = drift_view(life, rows, may_speak=may(session.caller, Permission.REVIEW_DRIFT))
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "drift", target_id=drift_id, items=1 + len(rows))
    await services.access.record([draft])
    return dashboard.pages.page(
        "departure.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        view=view,
        dispositions=CLOSED_AS,
        live="/live",
    )


async def _form(request: Request, lobby: LobbyDep, session: WebSession) -> dict[str, str]:
    return await read_own_form(request, secret=session.csrf, external_url=lobby.hosting.settings.external_url)


@router.post("/drift/{drift_id}/acknowledge")
async def acknowledge(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, drift_id: _DriftId
) -> Response:
    """Take a person's word that he looks after a departure."""
    form = await _form(request, lobby, session)
    await demand(request, session.caller, Permission.REVIEW_DRIFT)
    services = dashboard.services
    actor = actor_of(session.caller, services.keys)
    await services.behaviour.acknowledge(drift_id, actor, require_comment(form.get("reason", "")))
    return redirect(f"/drift/{drift_id}")


@router.post("/drift/{drift_id}/close")
async def close(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, drift_id: _DriftId
) -> Response:
    """Take a person's word of what a departure was."""
    form = await _form(request, lobby, session)
    await demand(request, session.caller, Permission.REVIEW_DRIFT)
    said = form.get("disposition", "")
    if said not in CLOSED_AS:
        raise MalformedError("say what it was: expected, harmless, misuse, compromise or false_alarm")
    disposition: Disposition = said  # type: ignore[assignment]  # one of the words that there are
    services = dashboard.services
    actor = actor_of(session.caller, services.keys)
    await services.behaviour.close(drift_id, disposition, actor, require_comment(form.get("reason", "")))
    return redirect(f"/drift/{drift_id}")
