"""Settings of how calls are held until people have agreed. Pure; see `enforcement.approvals`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from enforcement.config_types import Names, Seconds, Settings

__all__ = ["ApprovalRule", "ApprovalSettings", "HoldIrreversible"]

HoldIrreversible: TypeAlias = Literal["hold", "policy"]
"""``hold``: a call of a tool that is tagged irreversible is held, whatever a policy permits. ``policy``: policies say
which ones are."""

_HeldSeconds = Annotated[float, Field(ge=1, le=86_400)]
_Needed = Annotated[int, Field(ge=1, le=16)]


class ApprovalRule(Settings):
    """What holds for one server or tool, in place of the gateway's own.

    Attributes:
        expires_seconds: A call is held for so long; then it is denied.
        needed: So many different people must agree.
        roles: Under one of these roles.
        irreversible: Whether a call that is tagged ``irreversible`` is held although the policy merely permits it.
    """

    expires_seconds: _HeldSeconds | None = None
    needed: _Needed | None = None
    roles: Names | None = None
    irreversible: HoldIrreversible | None = None


class ApprovalSettings(Settings):
    """How calls are held; without it nothing is, and what a person would have to approve is denied.

    Attributes:
        expires_seconds: A call is held for so long; then it is denied.
        needed: So many different people must agree.
        roles: Under one of these roles; under any that may approve if there is none.
        irreversible: Whether a call that is tagged ``irreversible`` is held although the policy merely permits it.
        max_held: So many calls are held at once at most; each keeps its message in memory, and its place among the
            calls under way.
        wait_seconds: How long the service may keep the question for verdicts.
        poll_seconds: How often it is asked if it does not.
        tell_seconds: So often a waiting client hears that its call waits.
    """

    expires_seconds: _HeldSeconds = 900
    needed: _Needed = 1
    roles: Names = ()
    irreversible: HoldIrreversible = "hold"
    max_held: Annotated[int, Field(ge=1, le=10_000)] = 64
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 20
    poll_seconds: Seconds = 1
    tell_seconds: Seconds = 15
