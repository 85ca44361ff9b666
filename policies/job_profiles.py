"""Job profiles: what somebody's work needs: tools, their order, hours and volumes; what lies outside is counted.

Pure. A behaviour window of the measure ``off_profile`` (`policies.windows`) carries the profile of those whose work it
describes::

    {"name": "off_profile", "measure": "off_profile", "per": "session", "profile": {
       "roles": ["clerk"],
       "tools": ["crm/lookup", "crm/note", "shop/refund"],
       "first": ["crm/lookup"],
       "next": {"crm/lookup": ["crm/lookup", "crm/note", "shop/refund"], "shop/refund": ["crm/note"]},
       "hours": {"zone": "Europe/Zurich", "spans": [{"days": ["mon", "tue", "wed"], "from": "08:00", "to": "18:00"}]},
       "at_most": {"calls_per_hour": 60, "targets_per_day": 200}}}

* ``agents`` and ``roles`` say whose work it is: one of either is enough; neither, and it is everybody's. Calls of
  others are never off this profile.
* ``tools`` are all that the work needs, as ``server/tool``.
* ``first`` are those that a session may begin with; left out, any of ``tools``.
* ``next`` says what may come straight after a tool; after one that is not in it, any of ``tools`` may.
* ``hours`` say when the work is done (`policies.job_hours`); left out, always.
* ``at_most`` says how much of it there is: permitted calls, and different things that they are about, in the last hour
  and in a day. The call that goes beyond is outside. They are counted for whomever the window speaks of, with what is
  outside as well, and by `policies.window_history` like any window: a profile with other limits goes on with them.

What came before is the last tool that the session was *let* call: a refused call is not a step of anybody's work. Which
one that is follows from ``state.calls`` of the requests, the ordinal of a call in its session, and from nothing else,
so that a replay that recomputes the state walks the same way (`policies.window_history`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ledger.body_fields import Name
from ledger.errors import PolicySyntaxError
from policies.job_hours import Hours, check_hours
from policies.model import DecisionRequest

__all__ = ["MAX_PROFILE_TOOLS", "Limits", "Profile", "Reason", "Step", "Trail", "check_profile", "tool_of"]

MAX_PROFILE_TOOLS: Final = 256
"""Tools of one profile."""

_LOST: Final = ""
"""In place of a tool: the session was let call one, and it may not have come to that. No tool is named so."""

_Tool = Annotated[str, msgspec.Meta(pattern=r"^[^/]+/.+\Z", max_length=4096)]
_Tools = Annotated[tuple[_Tool, ...], msgspec.Meta(max_length=MAX_PROFILE_TOOLS)]
_Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)]
_Volume = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

Reason: TypeAlias = Literal["tool", "first", "next", "hours"]
"""In what a call lies outside, as far as the call and the one before it tell."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much of somebody's work there is.

    Attributes:
        calls_per_hour: Permitted calls in the last 3,600 seconds.
        calls_per_day: Permitted calls in a day of the enforcement point's zone.
        targets_per_hour: Different things that they were about: a tool with its arguments, as they are written.
        targets_per_day: Likewise in a day.
    """

    calls_per_hour: _Volume | None = None
    calls_per_day: _Volume | None = None
    targets_per_hour: _Volume | None = None
    targets_per_day: _Volume | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody's work needs; the module's text explains each member.

    Attributes:
        tools: All tools of the work, as ``server/tool``.
        agents: Agents whose work it is.
        roles: Roles whose work it is.
        first: What a session may begin with; empty for any tool.
        next: Tool → what may come straight after it.
        hours: When it is done; None for always.
        at_most: How much of it there is; None if that is not said.
    """

    tools: Annotated[_Tools, msgspec.Meta(min_length=1)]
    agents: _Names = ()
    roles: _Names = ()
    first: _Tools = ()
    next: Annotated[dict[_Tool, _Tools], msgspec.Meta(max_length=MAX_PROFILE_TOOLS)] = {}
    hours: Hours | None = None
    at_most: Limits | None = None

    def is_of(self, request: DecisionRequest) -> bool:
        """Tell whether a caller's work is described here."""
        if not self.agents and not self.roles:
            return True
        principal = request.principal
        return principal.agent in self.agents or not set(self.roles).isdisjoint(principal.roles)

    def excludes(self, request: DecisionRequest, previous: str | None) -> Reason | None:
        """Return in what a call lies outside; None for a call that does not, whatever the volumes say.

        Args:
            request: The call.
            previous: The tool that its session called last; None if it called none.
        """
        tool = tool_of(request)
        if tool not in self.tools:
            return "tool"
        if self.hours is not None and not self.hours.hold(request.time):
            return "hours"
        if previous is None:
            return "first" if self.first and tool not in self.first else None
        known = previous != _LOST and (previous not in self.next or tool in self.next[previous])
        return None if known else "next"


def tool_of(request: DecisionRequest) -> str:
    """Return the tool of a call as profiles name it."""
    return f"{request.resource.server}/{request.resource.name or ''}"


def check_profile(profile: Profile, window: str) -> None:
    """Refuse a profile that speaks of tools that it does not hold: a misspelt one would never be allowed.

    Args:
        profile: The profile.
        window: Name of its window.

    Raises:
        PolicySyntaxError: It does, or its hours can be read in two ways, or its limits are none; the message names the
            window.
    """
    said = [*profile.first, *profile.next, *(tool for tools in profile.next.values() for tool in tools)]
    for tool in said:
        if tool not in profile.tools:
            raise PolicySyntaxError(
                f"the profile of the window {window} says {tool[:64]!a}, which is none of its tools"
            )
    if profile.hours is not None:
        check_hours(profile.hours, window)
    if profile.at_most == Limits():
        raise PolicySyntaxError(f"the profile of the window {window} says at_most, and limits nothing")


@dataclass(frozen=True, slots=True)
class Step:
    """A tool that a session was let call.

    Attributes:
        session: Key of the session.
        ordinal: Which of its calls it was.
        tool: As ``server/tool``.
    """

    session: str
    ordinal: int
    tool: str

    def undone(self) -> Step:
        """Return what takes this back: what came before it is not known any more, and nothing may follow that."""
        return replace(self, tool=_LOST)


class Trail:
    """The last tool of each session."""

    def __init__(self) -> None:
        """Begin with no session."""
        self._last: dict[str, Step] = {}

    def take(self, step: Step) -> None:
        """Note a step, unless a later one of the session is known."""
        known = self._last.get(step.session)
        if known is None or known.ordinal <= step.ordinal:
            self._last[step.session] = step

    def last(self, session: str) -> str | None:
        """Return the tool that a session called last, or None."""
        step = self._last.get(session)
        return None if step is None else step.tool

    def sessions(self) -> set[str]:
        """Return the sessions of which something is known."""
        return set(self._last)

    def end_session(self, session: str) -> None:
        """Forget a session that is over."""
        self._last.pop(session, None)
