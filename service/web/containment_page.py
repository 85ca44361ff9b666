"""The page of one containment, or of the block that a kill left: what is stopped, how far that is, what is left to do.

How it came about is judged in `ledger.containments`, how far it has come in `service.reach`; here both are written. The
responder's reason is in the vault and on no page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from ledger.containments import Order
from service.auth import Caller, Permission, may
from service.reach import Gateway, GatewayState
from service.web.contained import ContainedRow, contained_row
from service.web.guard import DashboardDep, PageRoute, ReaderDep
from service.web.integrity import look
from service.web.views import Field
from service.web.wording import moment, number, quantity

__all__ = ["ContainmentView", "ReachedRow", "containment_view", "router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_OrderId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_STATES: Final[dict[GatewayState, str]] = {
    "reached": "In force",
    "unreached": "Unreached",
    "stopped": "Not running",
    "never_started": "Never started",
}
_ENDED: Final = {"released": "Released early", "expired": "Over"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedRow:
    """How far it has come at one gateway, as the page shows it.

    Attributes:
        name: Which gateway.
        state: How it stands there, in a word or two.
        well: It holds there, or nothing runs there.
        seen: When the gateway last asked what is stopped; empty if never.
    """

    name: str
    state: str
    well: bool
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainmentView:
    """A containment as its page shows it.

    Attributes:
        row: What the list on the home page says of it.
        in_force: It has not ended.
        state: Whether it is in force, or how it ended, in a word or two.
        until: Until when, or when it ended.
        fields: What the records say of it.
        gateways: How far it has come, the unreached first; none once it has ended.
        summary: The same in a sentence.
        well: It is in force wherever calls pass.
        commands: Command lines that are left to do, with what they do.
    """

    row: ContainedRow
    in_force: bool
    state: str
    until: str
    fields: tuple[Field, ...]
    gateways: tuple[ReachedRow, ...]
    summary: str
    well: bool
    commands: tuple[tuple[str, str], ...]


def containment_view(order: Order, gateways: Sequence[Gateway], now_ms: int, *, may_end: bool) -> ContainmentView:
    """Return what the page shows.

    Args:
        order: The containment, or a kill's block.
        gateways: How far it has come.
        now_ms: The service's clock.
        may_end: The reader's role may release and review.
    """
    in_force = order.ended is None
    shown = sorted(gateways, key=lambda one: (one.state != "unreached", one.enforcer_id)) if in_force else ()
    unreached = sum(one.state == "unreached" for one in shown)
    row = contained_row(order, now_ms)
    return ContainmentView(
        row=row,
        in_force=in_force,
        state="In force" if order.ended is None else _ENDED[order.ended],
        until=f"until {row.until}" if order.ended_ms is None else f"since {moment(order.ended_ms)} UTC",
        fields=tuple(_fields(order, row)),
        gateways=tuple(_reached(one) for one in shown),
        summary=_summary(len(shown), unreached) if in_force else "",
        well=not unreached,
        commands=_commands(order) if may_end else (),
    )


def _fields(order: Order, row: ContainedRow) -> Iterator[Field]:
    yield Field(label="Decision" if order.is_kill else "Containment", value=order.order_id, kind="code")
    if order.is_kill:
        yield Field(label="Killed", value=row.since)
        yield Field(label="Killed at", value=order.ordered_by)
    else:
        yield Field(label="Ordered", value=row.since)
        yield Field(label="Ordered by", value=order.ordered_by, kind="pseudonym", note=order.ordered_role)
        yield Field(label="Ordered until", value=row.until)
    yield Field(label="Leaf", value=row.leaf)
    if order.requested_by is not None:
        yield Field(label="Release asked for by", value=order.requested_by, kind="pseudonym")
    if order.ended_ms is not None:
        leaf = "" if order.ended_leaf is None else f"leaf {number(order.ended_leaf)}"
        yield Field(label="Ended", value=f"{moment(order.ended_ms)} UTC", note=leaf)
    if order.reviewed_ms is not None and order.verdict is not None and order.reviewed_by is not None:
        yield Field(label="Reviewed", value=f"{moment(order.reviewed_ms)} UTC", note=order.verdict)
        yield Field(label="Reviewed by", value=order.reviewed_by, kind="pseudonym")
    elif row.review:
        yield Field(label="Review", value=row.review)


def _reached(gateway: Gateway) -> ReachedRow:
    return ReachedRow(
        name=gateway.enforcer_id,
        state=_STATES[gateway.state],
        well=gateway.state != "unreached",
        seen="" if gateway.seen_ms is None else f"{moment(gateway.seen_ms)} UTC",
    )


def _summary(known: int, unreached: int) -> str:
    if not known:
        return "No gateway is enrolled."
    if unreached:
        return f"{unreached} of {quantity(known, 'gateway')} unreached: calls may still pass there."
    return f"In force at every gateway that runs, of {quantity(known, 'gateway')}."


def _commands(order: Order) -> tuple[tuple[str, str], ...]:
    commands: list[tuple[str, str]] = []
    if order.ended is None:
        ask = "Ask for its early release; somebody else confirms it."
        confirm = "Confirm its release, if you are another than who asked for it."
        line = f"tallystick contain release {order.order_id} --reason TEXT"
        commands.append((line, ask if order.requested_by is None else confirm))
    if order.review_due_ms is not None:
        line = f"tallystick contain review {order.order_id} --verdict justified --comment TEXT"
        commands.append((line, "Review it, if you are another than who ordered it: justified, or unfounded."))
    return tuple(commands)


def _may_end(caller: Caller) -> bool:
    return may(caller, Permission.END_CONTAINMENTS)


@router.get("/containments/{order_id}")
async def show_containment(
    request: Request, dashboard: DashboardDep, session: ReaderDep, order_id: _OrderId
) -> Response:
    """Show what is stopped, and at which gateways."""
    services = dashboard.services
    order = (await services.containments.state()).get(order_id)
    gateways = await services.containments.reach(order)
    integrity = await asyncio.to_thread(look, services)
    # INVARIANT: the access record is durable before anything is handed out.
    await services.access.record(
        [services.access.draft(session.caller, "view", "containment", target_id=order_id, items=1)]
    )
    return dashboard.pages.page(
        "containment.html",
        session=session,
        path=request.url.path,
        integrity=integrity,
        view=containment_view(order, gateways, services.clock.now_ms(), may_end=_may_end(session.caller)),
        order_id=order_id,
        live="/live",
    )
