"""How each gateway stands: by its last heartbeat, by when the service heard of it, by the bundle that is active.

Pure. Where these come from is `service.fleet_reader`'s part.

The states, from worst to best: *never* (enrolled, and no heartbeat yet), *silent* (not heard of for longer than it said
it would let pass, and `MARGIN_MS`), *stopped* (it stopped in order, and was not retired), *skewed* (it decides by
another bundle than the active one, does not have in force what is contained, or is of a version that the service does
not work with), *ok*. Warnings stand beside
the state.

With the defaults a gateway asks for its bundle every 30 seconds, so that its silence shows after 45; and a bundle that
it did not take up shows 15 seconds after its activation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ledger.bodies import Heartbeat
from ledger.restrictions import NO_VERSION
from service.versions import Standing, standing

__all__ = [
    "MARGIN_MS",
    "RESTRICTED_MS",
    "ActiveBundle",
    "ActiveRestrictions",
    "Beat",
    "Fleet",
    "Member",
    "State",
    "Trouble",
    "assemble",
    "judge",
]

MARGIN_MS: Final = 15_000
"""What a question, an answer and the way to the database may take, and taking up a bundle."""

RESTRICTED_MS: Final = 5_000
"""Another set of restrictions is in force everywhere within two seconds, or somebody should look."""

_CONTACT_MS: Final = 30_000
"""How often a gateway asks that does not say so, as those of version 0.1."""

_CLOCK_MS: Final = 2_000
_SPOOLED_MS: Final = 60_000
_UNCONFIRMED_MS: Final = 300_000


class State(StrEnum):
    """How a gateway stands, from worst to best."""

    NEVER = "never"
    SILENT = "silent"
    STOPPED = "stopped"
    SKEWED = "skewed"
    OK = "ok"


class Trouble(StrEnum):
    """What is not as it should be with a gateway."""

    BUNDLE = "bundle"
    VERSION = "version"
    RESTRICTIONS = "restrictions"
    CLOCK = "clock"
    SPOOL = "spool"
    SET_ASIDE = "set_aside"
    UNCONFIRMED = "unconfirmed"


_SKEW: Final = frozenset({Trouble.BUNDLE, Trouble.VERSION, Trouble.RESTRICTIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat in the log.

    Attributes:
        leaf_index: Where it stands.
        time_ms: The gateway's clock.
        epoch: Its epoch.
        body: What it says.
    """

    leaf_index: int
    time_ms: int
    epoch: str
    body: Heartbeat


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """Which bundle is active, None for none, and since when, None if none ever was."""

    revision: str | None
    since_ms: int | None


@dataclass(frozen=True, slots=True)
class ActiveRestrictions:
    """What is stopped everywhere.

    Attributes:
        version: Of the set in force; `ledger.restrictions.NO_VERSION` before the first.
        since_ms: Since when, None before the first.
        count: How many restrictions it has.
    """

    version: int = NO_VERSION
    since_ms: int | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One gateway of the fleet.

    Attributes:
        enforcer_id: Its name.
        state: See the module's text.
        warnings: What is not as it should be, besides.
        heard_ms: When the service last heard of it, by its own clock, or None if that is not known.
        skewed_since_ms: Since when another bundle is active than the one it decides by, or None.
        restrictions_version: Version of the set of restrictions that it has in force, by its own word; None if it never
            said.
        beat: Its last heartbeat, or None.
    """

    enforcer_id: str
    state: State
    warnings: tuple[Trouble, ...]
    heard_ms: int | None
    skewed_since_ms: int | None
    beat: Beat | None
    restrictions_version: int | None = None

    @property
    def well(self) -> bool:
        """Whether nobody need look."""
        return self.state is State.OK and not self.warnings


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All gateways of a log.

    Attributes:
        now_ms: When we looked, by the service's clock.
        version: The service's.
        active: The bundle that should decide.
        restrictions: What should be stopped.
        members: Those that are enrolled and not retired, the worst first.
    """

    now_ms: int
    version: str
    active: ActiveBundle
    members: tuple[Member, ...]
    restrictions: ActiveRestrictions = ActiveRestrictions()

    @property
    def well(self) -> bool:
        """Whether nobody need look."""
        return all(member.well for member in self.members)

    @property
    def troubled(self) -> int:
        """How many somebody should look at."""
        return sum(not member.well for member in self.members)


def judge(
    enforcer_id: str,
    beat: Beat | None,
    *,
    heard_ms: int | None,
    active: ActiveBundle,
    version: str,
    now_ms: int,
    restrictions: ActiveRestrictions = ActiveRestrictions(),
    acknowledged: int | None = None,
) -> Member:
    """Return how a gateway stands.

    Args:
        enforcer_id: Its name.
        beat: Its last heartbeat since it was enrolled, or None.
        heard_ms: When the service last heard of it, or None if that is not known: then the heartbeat's time counts.
        active: The bundle that should decide.
        version: The service's.
        now_ms: The service's clock.
        restrictions: What should be stopped.
        acknowledged: Version of the set of restrictions that it said last that it has in force; the heartbeat's counts
            if that is not known. It is what tells how far a containment has come (`service.reach`).
    """
    if beat is None:
        return Member(
            enforcer_id=enforcer_id,
            state=State.NEVER,
            warnings=(),
            heard_ms=heard_ms,
            skewed_since_ms=None,
            beat=None,
            restrictions_version=acknowledged,
        )
    stopping = beat.body.restrictions_version if acknowledged is None else acknowledged
    behind = beat.body.kind != "stop" and _behind(stopping, restrictions, now_ms)
    warnings = (*_warnings(beat.body, active, version, now_ms), *((Trouble.RESTRICTIONS,) if behind else ()))
    return Member(
        enforcer_id=enforcer_id,
        state=_state(beat, beat.time_ms if heard_ms is None else heard_ms, warnings, now_ms),
        warnings=warnings,
        heard_ms=heard_ms,
        skewed_since_ms=active.since_ms if Trouble.BUNDLE in warnings else None,
        beat=beat,
        restrictions_version=stopping,
    )


def _behind(version: int | None, restrictions: ActiveRestrictions, now_ms: int) -> bool:
    """Whether a gateway does not have in force what it should; where nothing is stopped, who says nothing need not."""
    if restrictions.since_ms is None or now_ms - restrictions.since_ms <= RESTRICTED_MS:
        return False
    return restrictions.count > 0 if version is None else version < restrictions.version


def _state(beat: Beat, heard_ms: int, warnings: tuple[Trouble, ...], now_ms: int) -> State:
    if beat.body.kind == "stop":
        return State.STOPPED
    contact_ms = _CONTACT_MS if beat.body.contact_ms is None else beat.body.contact_ms
    if now_ms - heard_ms > contact_ms + MARGIN_MS:
        return State.SILENT
    return State.SKEWED if _SKEW & set(warnings) else State.OK


def _warnings(said: Heartbeat, active: ActiveBundle, version: str, now_ms: int) -> Iterable[Trouble]:
    since_ms = active.since_ms
    if since_ms is not None and said.bundle_revision != active.revision and now_ms - since_ms > MARGIN_MS:
        yield Trouble.BUNDLE
    if standing(said.version, version) is not Standing.ACCEPTED:
        yield Trouble.VERSION
    if said.clock_offset_ms is not None and abs(said.clock_offset_ms) - (said.clock_bound_ms or 0) > _CLOCK_MS:
        yield Trouble.CLOCK
    if said.oldest_ms is not None and said.oldest_ms > _SPOOLED_MS:
        yield Trouble.SPOOL
    if said.set_aside:
        yield Trouble.SET_ASIDE
    if said.bundle_age_ms is not None and said.bundle_age_ms > _UNCONFIRMED_MS:
        yield Trouble.UNCONFIRMED


def assemble(
    members: Iterable[Member],
    *,
    active: ActiveBundle,
    version: str,
    now_ms: int,
    restrictions: ActiveRestrictions = ActiveRestrictions(),
) -> Fleet:
    """Return a fleet of its gateways, the worst first, those that stand alike by name."""
    order = list(State)
    worst = sorted(members, key=lambda one: (order.index(one.state), one.well, one.enforcer_id))
    return Fleet(now_ms=now_ms, version=version, active=active, members=tuple(worst), restrictions=restrictions)
