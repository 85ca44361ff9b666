"""The panel of what is stopped on the home page: containments and kills in force, and reviews that are overdue.

How each came about is judged in `ledger.containments`; here it is written. Where nothing is stopped and no review is
overdue, the page says nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from ledger.containments import Order
from service.containments import State
from service.web.wording import moment, number, quantity

__all__ = ["MAX_ROWS", "ContainedPanel", "ContainedRow", "contained_panel", "contained_row"]

MAX_ROWS: Final = 6

_SESSION_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainedRow:
    """One thing that is stopped, as the page shows it.

    Attributes:
        order_id: Its id, which leads to its own page.
        what: What kind of thing.
        name: Which; empty for everything.
        place: Where it leads: the killing decision, the session, or the decisions about the agent or tool; or nowhere.
        word: Whether somebody contained it, or a policy killed it.
        until: Until when.
        since: Since when.
        leaf: Leaf of the record that began it.
        release: Whether somebody asked for its release.
        review: How its review stands.
        overdue: It should have been reviewed by now.
    """

    order_id: str
    what: str
    name: str
    place: str
    word: str
    until: str
    since: str
    leaf: str
    release: str
    review: str
    overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainedPanel:
    """What is stopped, as the page shows it.

    Attributes:
        summary: All of it, in a sentence; empty if nothing is stopped.
        rows: The latest, containments before kills.
        more: How many are not shown.
        overdue: Of what has ended without the review that was due, in a sentence; or empty.
    """

    summary: str
    rows: tuple[ContainedRow, ...]
    more: int
    overdue: str

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.summary or self.overdue)


def contained_panel(state: State, now_ms: int) -> ContainedPanel:
    """Return what the page shows of the containments and kills of a log."""
    found = sorted(state.in_force(), key=lambda order: (order.is_kill, -order.leaf))
    kills = sum(order.is_kill for order in found)
    parts = [quantity(count, noun) for count, noun in ((len(found) - kills, "containment"), (kills, "kill")) if count]
    late = sum(order.ended is not None and order.is_overdue(now_ms) for order in state.orders)
    return ContainedPanel(
        summary=f"{' and '.join(parts)} in force." if parts else "",
        rows=tuple(contained_row(order, now_ms) for order in found[:MAX_ROWS]),
        more=max(0, len(found) - MAX_ROWS),
        overdue=f"{quantity(late, 'containment')} ended without the review that was due." if late else "",
    )


def contained_row(order: Order, now_ms: int) -> ContainedRow:
    """Return what is said of one containment, or of the block that a kill left."""
    restriction = order.restriction
    what, name, place = _target(order)
    until_ms = restriction.until_ms
    return ContainedRow(
        order_id=order.order_id,
        what=what,
        name=name,
        place=place,
        word="Killed" if order.is_kill else "Contained",
        until="it is released" if until_ms is None else f"{moment(until_ms)} UTC",
        since=f"{moment(restriction.since_ms)} UTC",
        leaf=number(order.leaf),
        release="asked for; somebody else confirms it" if order.requested_by and order.ended is None else "",
        review=_review(order, now_ms),
        overdue=order.is_overdue(now_ms),
    )


def _target(order: Order) -> tuple[str, str, str]:
    """Return what kind of thing is stopped, which, and where that leads."""
    stopped = order.restriction
    if stopped.scope == "principal":
        whom = "for nobody" if stopped.user is None else "for one user"
        return f"Agent {whom}", stopped.agent or "", f"/decisions/{order.order_id}"
    if stopped.scope == "agent":
        return "Agent", stopped.agent or "", "/?" + urlencode({"agent": stopped.agent or ""})
    if stopped.scope == "session":
        session = stopped.session or ""
        return "Session", f"{session[:_SESSION_DIGITS]}…", f"/sessions/{session}"
    if stopped.scope == "tool":
        return "Tool", f"{stopped.server}/{stopped.tool}", "/?" + urlencode({"tool": stopped.tool or ""})
    if stopped.scope == "server":
        return "Server", stopped.server or "", ""
    return "Everything", "", ""


def _review(order: Order, now_ms: int) -> str:
    if order.is_kill:
        return ""
    if order.verdict is not None:
        return order.verdict
    due = order.review_due_ms
    if due is None:
        return ""
    return "overdue" if due <= now_ms else f"due {moment(due)} UTC"
