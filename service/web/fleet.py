"""The panel of gateways on the home page: those that somebody should look at, in words, the worst first.

How each stands is judged in `service.fleet`; here it is written. Where all are well, one sentence is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.fleet import Fleet, Member, State, Trouble
from service.web.wording import age, number, quantity, short

__all__ = ["MAX_ROWS", "FleetPanel", "GatewayRow", "fleet_panel"]

MAX_ROWS: Final = 8

_FEW: Final = 3
"""So many that are well are shown all the same."""

_STATES: Final = {
    State.OK: "Well",
    State.SKEWED: "Skewed",
    State.STOPPED: "Stopped",
    State.SILENT: "Silent",
    State.NEVER: "Never heard of",
}
_LOOK: Final = "Needs a look"
_TROUBLES: Final = {
    Trouble.BUNDLE: "decides by another bundle than the active one",
    Trouble.VERSION: "a version that this service does not work with",
    Trouble.RESTRICTIONS: "does not have in force what is contained",
    Trouble.CLOCK: "its clock is wrong",
    Trouble.SPOOL: "records wait long for the ledger",
    Trouble.SET_ASIDE: "the ledger refused records of it",
    Trouble.UNCONFIRMED: "its bundle was long not confirmed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRow:
    """One gateway as the page shows it.

    Attributes:
        name: Its name.
        well: Nobody need look.
        state: Its state, in a word.
        heard: When it was last heard of.
        bundle: The first digits of its bundle's revision.
        version: Its version.
        modes: How much of it is only observed.
        waiting: What waits in its spool.
        clock: By how much its clock is off.
        troubles: What is not as it should be, a clause each.
    """

    name: str
    well: bool
    state: str
    heard: str
    bundle: str
    version: str
    modes: str
    waiting: str
    clock: str
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPanel:
    """The gateways of a log as the page shows them.

    Attributes:
        summary: All of them, in a sentence.
        well: Nobody need look at any.
        rows: Those to look at, the worst first; or, if there are none, all if they are few.
        more: How many to look at are not shown.
    """

    summary: str
    well: bool
    rows: tuple[GatewayRow, ...]
    more: int


def fleet_panel(fleet: Fleet) -> FleetPanel:
    """Return what the page shows of a fleet."""
    count, troubled = len(fleet.members), fleet.troubled
    if not count:
        summary = "No gateway is enrolled."
    elif not troubled:
        summary = f"{quantity(count, 'gateway')}, heard of and deciding by the active bundle."
    else:
        others = "" if troubled == count else "; the others are well"
        summary = f"{number(troubled)} of {quantity(count, 'gateway')} to look at{others}."
    shown = [member for member in fleet.members if not member.well][:MAX_ROWS]
    few = fleet.members if fleet.well and count <= _FEW else ()
    return FleetPanel(
        summary=summary,
        well=fleet.well,
        rows=tuple(_row(member, fleet.now_ms) for member in (*shown, *few)),
        more=fleet.troubled - len(shown),
    )


def _row(member: Member, now_ms: int) -> GatewayRow:
    said = None if member.beat is None else member.beat.body
    troubles = tuple(_trouble(member, trouble, now_ms) for trouble in member.warnings)
    heard = "" if member.heard_ms is None else f"{age(now_ms - member.heard_ms)} ago"
    if said is None:
        return GatewayRow(
            name=member.enforcer_id,
            well=False,
            state=_STATES[member.state],
            heard=heard,
            bundle="",
            version="",
            modes="",
            waiting="",
            clock="",
            troubles=("no heartbeat since it was enrolled",),
        )
    return GatewayRow(
        name=member.enforcer_id,
        well=member.well,
        state=_STATES[member.state] if member.state is not State.OK or member.well else _LOOK,
        heard=heard,
        bundle="none" if said.bundle_revision is None else short(said.bundle_revision),
        version=said.version,
        modes=_modes(said.enforced, said.observed),
        waiting=quantity(said.spool_depth, "record"),
        clock="" if said.clock_offset_ms is None else _clock(said.clock_offset_ms, said.clock_bound_ms),
        troubles=troubles,
    )


def _trouble(member: Member, trouble: Trouble, now_ms: int) -> str:
    if trouble is Trouble.BUNDLE and member.skewed_since_ms is not None:
        return f"{_TROUBLES[trouble]}, for {age(now_ms - member.skewed_since_ms)}"
    return _TROUBLES[trouble]


def _modes(enforced: int, observed: int) -> str:
    if not observed:
        return "all enforced" if enforced else ""
    return f"{number(observed)} of {number(enforced + observed)} observed"


def _clock(offset_ms: int, bound_ms: int | None) -> str:
    return f"{offset_ms:+,} ms" if bound_ms is None else f"{offset_ms:+,} ±{bound_ms:,} ms"
