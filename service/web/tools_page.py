"""The pages of tools: which are quarantined and why, and one tool with what differs, and Approve and Reject.

What may be said of a definition, and by whom, is judged in `service.tools` and `service.tool_book`; here it is written.
The difference is shown after a click that says so, for who opens definitions is recorded; then whoever saw it may say
yes or no to the definition that he was shown, and to no other.

INVARIANT: a definition is somebody else's text, and made to be believed. Whatever is not plain Latin text is written by
its code point, and nothing of a line is cut.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from markupsafe import Markup, escape

from ledger.errors import MalformedError
from service.api.common import demand
from service.approvals import require_comment
from service.auth import Permission, may
from service.bundles import actor_of
from service.shown_call import spelt_out
from service.tool_book import ToolLife, ToolStep
from service.tools import Difference
from service.web.forms import read_own_form
from service.web.guard import Dashboard, DashboardDep, LobbyDep, PageRoute, ReaderDep, redirect
from service.web.integrity import look
from service.web.sessions import WebSession
from service.web.views import Field
from service.web.wording import moment, number, short

__all__ = [
    "PAGE_ROWS",
    "DifferenceLine",
    "StepRow",
    "ToolRow",
    "ToolView",
    "router",
    "tool_path",
    "tool_row",
    "tool_view",
]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PAGE_ROWS: Final = 100
"""Tools of one page."""

_SERVER: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
_Server = Annotated[str, Path(pattern=_SERVER)]
_Tool = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_Icon = Literal["ask", "allow", "deny", "well", "trouble", "observed"]
_SAID: Final = {"approve": "approved", "reject": "rejected"}
_MARKS: Final = "\u27e8\u27e9"
"""Between them `enforcement.skeletons.shown` writes what is not seen; the rest of a line is spelt out here."""

_STATES: Final[dict[str, tuple[str, _Icon]]] = {
    "quarantined": ("Quarantined", "trouble"),
    "rejected": ("Rejected", "deny"),
    "approved": ("Approved", "well"),
    "first_use": ("First use", "observed"),
}
_REASONS: Final = {
    "changed": "its definition is another than stood",
    "look_alike": "its name can be taken for that of another tool of this server",
    "renamed": "it does what a tool under another name did",
    "shadows": "it is called like a tool of another server",
    "mentions": "its texts speak of another server's tool",
    "invisible": "it holds characters that nobody sees",
    "ambiguous": "the server lists two definitions under this name",
    "unreadable": "careful readers would not read its definition alike",
    "hash_mismatch": "it declares a content hash that is not its own",
    "unlisted": "the signed manifest does not name it",
    "rejected": "a person has rejected this definition",
}
_CHANGES: Final = {
    "destination": "a destination that it did not name before",
    "instruction": "an instruction to the model",
    "other_tool": "another tool",
    "schema": "what it takes or returns",
    "hint": "what it says of its effects",
    "text": "what it says it does",
    "label": "how it is labelled",
}
_STEPS: Final = {
    "first_seen": "Seen for the first time",
    "quarantined": "Quarantined",
    "changed": "Changed again, while quarantined",
    "vouched": "A signed manifest names it",
    "gone": "Listed no more",
    "returned": "Listed again",
    "approved": "Approved",
    "rejected": "Rejected",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRow:
    """A tool as the list shows it.

    Attributes:
        server: Its server.
        tool: Its name.
        link: Path of its page; empty where its server has a name that no page has.
        state: What stands, in a word.
        icon: The icon beside that.
        reasons: Why it is quarantined, in words; empty if it is not.
        changes: What another definition brought in, in words.
        other: Which tool that is about; empty if none.
        since: When that was recorded.
        listed: Its server lists it still.
    """

    server: str
    tool: str
    link: str
    state: str
    icon: _Icon
    reasons: tuple[str, ...]
    changes: tuple[str, ...]
    other: str
    since: str
    listed: bool


@dataclass(frozen=True, slots=True)
class DifferenceLine:
    """A line of a difference.

    Attributes:
        kind: What it is.
        text: The line with its sign, spelt out and escaped.
    """

    kind: Literal["added", "removed", "same", "place"]
    text: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step of a tool's history.

    Attributes:
        time: When.
        what: What happened.
        who: By whose word: a gateway's id, or a person's pseudonym and role.
        reasons: Why, in words.
        changes: What it brought in, in words.
        digest: First digits of the definition that it is about; empty for none.
        leaf: Its leaf index.
    """

    time: str
    what: str
    who: str
    reasons: tuple[str, ...]
    changes: tuple[str, ...]
    digest: str
    leaf: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolView:
    """A tool as its page shows it.

    Attributes:
        row: What the list says of it.
        waits: Somebody must say something of it.
        fields: What the records say of it.
        steps: Its history, newest first.
        may_open: Who looks may open its definitions.
        may_decide: Who looks may say yes or no, once he has.
        opened: The difference was opened.
        lines: It, line by line; empty if the definition is not to be had any more.
        compared: What is compared with what, in a sentence.
        digest: What a verdict is about; empty until it is opened, or where nothing could be shown.
        approvable: It is not approved already.
        rejectable: It is not rejected already.
    """

    row: ToolRow
    waits: bool
    fields: tuple[Field, ...]
    steps: tuple[StepRow, ...]
    may_open: bool
    may_decide: bool
    opened: bool
    lines: tuple[DifferenceLine, ...]
    compared: str
    digest: str
    approvable: bool
    rejectable: bool


def tool_path(server: str, tool: str) -> str:
    """Return the path of a tool's page; a name with slashes or dots in it leads nowhere else."""
    return f"/tools/{quote(server, safe='')}/{quote(tool, safe='')}"


def _words(names: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    return tuple(words.get(name, name) for name in names)


def tool_row(life: ToolLife) -> ToolRow:
    """Return what the list says of a tool."""
    word, icon = _STATES[life.state]
    why = life.why()
    made = next((step for step in reversed(life.steps) if step.leaf == life.leaf), life.last)
    return ToolRow(
        server=life.server,
        tool=life.tool,
        link="" if re.fullmatch(_SERVER, life.server) is None else tool_path(life.server, life.tool),
        state=word,
        icon=icon,
        reasons=() if why is None else _words(why.reasons, _REASONS),
        changes=() if why is None else _words(why.changes, _CHANGES),
        other="" if why is None or why.other is None else why.other,
        since=f"{moment(made.time_ms)} UTC",
        listed=life.listed,
    )


def _line(line: str) -> DifferenceLine:
    text = escape("".join(part if part in _MARKS else spelt_out(part) for part in line))
    if line.startswith("@@"):
        return DifferenceLine("place", text)
    return DifferenceLine({"+": "added", "-": "removed"}.get(line[:1], "same"), text)  # type: ignore[arg-type]  # two of the four


def _step(step: ToolStep) -> StepRow:
    event = step.event
    who = step.enforcer if event.actor is None else f"{event.actor} ({event.actor_role})"
    return StepRow(
        time=f"{moment(step.time_ms)} UTC",
        what=_STEPS[event.action],
        who=who,
        reasons=_words(event.reasons, _REASONS),
        changes=_words(event.changes, _CHANGES),
        digest="" if event.digest is None else short(event.digest),
        leaf=number(step.leaf),
    )


def _fields(life: ToolLife) -> Iterator[Field]:
    yield Field(label="Server", value=life.server)
    yield Field(label="Tool", value=life.tool)
    if life.digest:
        yield Field(label="Definition seen last", value=life.digest, kind="code")
    if life.standing and life.standing != life.digest:
        yield Field(label="Definition that stood", value=life.standing, kind="code")
    yield Field(label="Listed by its server", value="yes" if life.listed else "no")
    yield Field(label="Leaf", value=number(life.leaf))


def _compared(life: ToolLife, found: Difference) -> str:
    if found.after is None:
        return "The definition is not in the vault any more, or never was; nobody can look at it."
    if not life.standing:
        return "No definition stood before: this is all of it."
    if life.standing == life.digest:
        return "This definition stands: this is all of it."
    if found.before is None:
        return "What stood before is not in the vault any more: this is all of the new definition."
    return "Lines that begin with a minus were in the definition that stood, lines that begin with a plus are new."


def tool_view(life: ToolLife, *, may_open: bool, may_decide: bool, found: Difference | None = None) -> ToolView:
    """Return what the page of a tool shows.

    Args:
        life: The tool.
        may_open: Who looks is a person who may open definitions.
        may_decide: Who looks is a person who may say yes or no.
        found: The difference, if it was opened.
    """
    # INVARIANT: nobody approves what he could not see.
    shown = found is not None and found.after is not None
    return ToolView(
        row=tool_row(life),
        waits=life.waits(),
        fields=tuple(_fields(life)),
        steps=tuple(_step(step) for step in reversed(life.steps)),
        may_open=may_open,
        may_decide=may_decide and bool(life.digest),
        opened=found is not None,
        lines=tuple(_line(line) for line in found.lines) if found is not None else (),
        compared="" if found is None else _compared(life, found),
        digest=life.digest if shown else "",
        approvable=life.state != "approved",
        rejectable=life.state != "rejected",
    )


@router.get("/tools")
async def show_tools(
    request: Request,
    dashboard: DashboardDep,
    session: ReaderDep,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """List the tools that gateways with pins have seen: those that wait for somebody first."""
    services = dashboard.services
    lives = await services.tools.all()
    start = PAGE_ROWS * (page - 1)
    listed = lives[start : start + PAGE_ROWS]
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "tools", items=len(listed))
    await services.access.record([draft])
    return dashboard.pages.page(
        "tools.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        waiting=[tool_row(life) for life in listed if life.waits()],
        others=[tool_row(life) for life in listed if not life.waits()],
        waits=sum(life.waits() for life in lives),
        count=len(lives),
        number=page,
        next=page + 1 if start + PAGE_ROWS < len(lives) else 0,
        live="/live",
    )


async def _page(
    request: Request, dashboard: Dashboard, session: WebSession, life: ToolLife, found: Difference | None = None
) -> Response:
    view = tool_view(
        life,
        may_open=may(session.caller, Permission.READ_TOOLS),
        may_decide=may(session.caller, Permission.REVIEW_TOOLS),
        found=found,
    )
    integrity = await asyncio.to_thread(look, dashboard.services)
    return dashboard.pages.page("tool.html", session=session, path=request.url.path, integrity=integrity, view=view)


@router.get("/tools/{server}/{tool:path}")
async def show_tool(
    request: Request, dashboard: DashboardDep, session: ReaderDep, server: _Server, tool: _Tool
) -> Response:
    """Show one tool and what became of it, without its definitions."""
    services = dashboard.services
    life = await services.tools.get(server, tool)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(session.caller, "view", "tool", target_id=life.last.record_id, items=1)
    await services.access.record([draft])
    return await _page(request, dashboard, session, life)


async def _form(request: Request, lobby: LobbyDep, session: WebSession) -> dict[str, str]:
    return await read_own_form(request, secret=session.csrf, external_url=lobby.hosting.settings.external_url)


@router.post("/tools/{server}/{tool:path}/difference")
async def open_difference(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, server: _Server, tool: _Tool
) -> Response:
    """Show what differs; that the definitions were opened, and by whom, is recorded first."""
    await _form(request, lobby, session)
    await demand(request, session.caller, Permission.READ_TOOLS)
    services = dashboard.services
    life = await services.tools.get(server, tool)
    draft = services.access.draft(
        session.caller, "view", "tool", target_id=life.last.record_id, digest=life.digest or None, items=1
    )
    await services.access.record([draft])
    return await _page(request, dashboard, session, life, await services.tools.difference(life))


@router.post("/tools/{server}/{tool:path}/verdict")
async def decide(
    request: Request, lobby: LobbyDep, dashboard: DashboardDep, session: ReaderDep, server: _Server, tool: _Tool
) -> Response:
    """Take a person's word on the definition that was shown."""
    form = await _form(request, lobby, session)
    await demand(request, session.caller, Permission.REVIEW_TOOLS)
    said = form.get("verdict", "")
    if said not in _SAID:
        raise MalformedError("approve it or reject it")
    services = dashboard.services
    await services.tools.say(
        server,
        tool,
        digest=form.get("digest", ""),
        verdict="approved" if said == "approve" else "rejected",
        actor=actor_of(session.caller, services.keys),
        comment=require_comment(form.get("reason", "")),
    )
    return redirect(tool_path(server, tool))
