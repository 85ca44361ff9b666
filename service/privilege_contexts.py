"""In which circumstances an agent is asked about: as it was seen calling, at three times of the week.

Pure, but for the look-up of time zones. A policy looks at who calls, how he proved it, from where and when. An agent
may differ in all of them from call to call, so no single answer says what it *can* reach. It is asked about as it was
seen: with the roles, the second factor, the network and the zone of its latest calls, each combination once; and each
at the time of the report, on a Wednesday at 11:00 and on a Sunday at 03:00, local time.

What a record has as a pseudonym alone cannot be asked about: whose request it was, and from which address. A rule about
one person or one address is asked with a pseudonym or a documentation address, and is told so in the report.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ledger.bodies import Decision, Facts
from policies.model import REQUEST_VERSION, DecisionRequest, Environment, Principal, Resource, SessionState, Time

__all__ = ["MAX_SEEN", "Circumstance", "circumstances"]

MAX_SEEN: Final = 4
"""Combinations of how an agent was seen that are asked about, the latest first."""

_ADDRESS: Final = "192.0.2.1"  # RFC 5737: an address of nobody
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WORK: Final = ("Wednesday 11:00", 3, 11)
_NIGHT: Final = ("Sunday 03:00", 7, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """One combination that is asked about.

    Attributes:
        label: What it is called in the report.
        when: Which time.
        authn: How the agent had proved who it is.
        mfa: Whether a second factor was part of it.
        roles: Its roles.
        network: Label of its network.
        zone: Time zone.
        leaf: The latest call in which it was seen so.
        request: The question without a tool.
    """

    label: str
    when: str
    authn: str
    mfa: bool
    roles: tuple[str, ...]
    network: str
    zone: str
    leaf: int
    request: DecisionRequest


def circumstances(agent: str, seen: Iterable[tuple[int, Decision]], now_ms: int) -> list[Circumstance]:
    """Return what is to be asked about.

    Args:
        agent: Who.
        seen: Its decisions with their leaf indexes, the latest first. Those without facts say nothing.
        now_ms: The time of the report.
    """
    found: dict[tuple[object, ...], tuple[int, Facts, str | None]] = {}
    for leaf, decision in seen:
        facts = decision.facts
        if facts is None or decision.agent != agent:
            continue
        key = (facts.authn, facts.mfa, facts.roles, facts.network, facts.zone, decision.user is None)
        if key not in found and len(found) < MAX_SEEN:
            found[key] = (leaf, facts, decision.user)
    return [
        _circumstance(agent, number, leaf, facts, user, when, time)
        for number, (leaf, facts, user) in enumerate(found.values(), 1)
        for when, time in _times(now_ms, facts.zone)
    ]


def _times(now_ms: int, zone: str) -> list[tuple[str, Time]]:
    try:
        place = zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        place, zone = zoneinfo.ZoneInfo("UTC"), "UTC"
    now = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(place)
    found = [("now", _time(now, zone))]
    for label, weekday, hour in (_WORK, _NIGHT):
        ahead = (weekday - now.isoweekday()) % 7
        day = (now + timedelta(days=ahead)).replace(hour=hour, minute=0, second=0, microsecond=0)
        found.append((label, _time(day, zone)))
    return found


def _time(local: datetime, zone: str) -> Time:
    return Time(
        now_ms=int(local.timestamp() * 1000),
        zone=zone,
        local_date=local.date().isoformat(),
        hour=local.hour,
        minute=local.minute,
        weekday=local.isoweekday(),
    )


def _circumstance(
    agent: str, number: int, leaf: int, facts: Facts, user: str | None, when: str, time: Time
) -> Circumstance:
    request = DecisionRequest(
        version=REQUEST_VERSION,
        principal=Principal(agent=agent, user=user, roles=facts.roles, authn=facts.authn, mfa=facts.mfa),
        action="tools/list",
        resource=Resource(server=""),
        time=time,
        environment=Environment(address=_ADDRESS, network=facts.network),
        state=SessionState(session="", started_ms=time.now_ms),
    )
    return Circumstance(
        label=f"{number}, {when}",
        when=when,
        authn=facts.authn,
        mfa=facts.mfa,
        roles=facts.roles,
        network=facts.network,
        zone=time.zone,
        leaf=leaf,
        request=request,
    )
