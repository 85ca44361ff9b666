"""Profiles in the state file, and what is recorded of them: from values to a change of state and to drafts.

What is learned is in `enforcement.profiles.profile`; who asks and when, in `enforcement.profiles.keeper`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from enforcement.modes import recorded_tool
from enforcement.profiles.detectors import blind
from enforcement.profiles.profile import AgentProfile, Flag, decode_profile, encode_profile
from enforcement.profiles.tallies import EDGE, Tally
from enforcement.profiles.thresholds import Thresholds
from enforcement.state import StateDatabase
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.body_fields import Name

__all__ = ["SaveProfile", "baseline_body", "drift_body", "offered_body", "stored_profiles"]

_MAX_NAMES: Final = 64
_THOUSAND: Final = 1000


@dataclass(frozen=True, slots=True)
class SaveProfile:
    """Keep a profile in place of what was kept of the same agent."""

    agent: str
    data: bytes

    @classmethod
    def of(cls, profile: AgentProfile) -> SaveProfile:
        """Return the change that keeps a profile as it is now."""
        return cls(profile.agent, encode_profile(profile))

    def apply(self, connection: sqlite3.Connection) -> None:
        """See `enforcement.state.Change`."""
        connection.execute("INSERT OR REPLACE INTO profiles VALUES (?, ?)", (self.agent, self.data))


def stored_profiles(state: StateDatabase) -> dict[str, AgentProfile]:
    """Return what was learned before a restart, by agent.

    Raises:
        StorageError: The file failed.
        StateError: What it holds is no profile.
    """
    return {agent: decode_profile(data) for agent, data in state.read("SELECT agent, profile FROM profiles")}


def _public(text: str) -> str | None:
    """Return what may stand in a record: a name, or the digest of what is none; None for nothing."""
    return recorded_tool(text) if text else None


def drift_body(profile: AgentProfile, flag: Flag, drift_id: str, thresholds: Thresholds) -> Drift:
    """Return what a record says of a flag.

    Args:
        profile: Whose.
        flag: What was found.
        drift_id: Id of the departure.
        thresholds: What counted.
    """
    found, explained = flag.deviation, flag.explained
    before, edge, after = found.subject.partition(EDGE)
    return Drift(
        action="flagged",
        drift_id=drift_id,
        agent=profile.agent,
        detector=found.detector,
        subject=_public(after if edge else found.subject),
        previous=_public(before) if edge else None,
        baseline_version=flag.version,
        since_ms=flag.since_ms,
        until_ms=flag.until_ms,
        thresholds=thresholds.digest if flag.version else None,
        value_milli=round(found.value * _THOUSAND),
        threshold_milli=round(found.threshold * _THOUSAND),
        calls=found.calls,
        decisions=flag.decisions,
        explained=None if explained is None else explained.kind,
        explained_by=None if explained is None else explained.value,
        unflagged=flag.unflagged,
    )


def _counted(tally: Tally) -> BaselineEvent:
    return BaselineEvent(
        action="progress",
        agent="unknown",
        calls=tally.calls,
        days=tally.days,
        since_ms=tally.first_ms,
        until_ms=tally.last_ms,
        longest_gap_ms=tally.longest_gap_ms,
        tools=len(tally.tools),
    )


def baseline_body(
    profile: AgentProfile, action: str, thresholds: Thresholds, order_id: str | None = None
) -> BaselineEvent:
    """Return what a record says of a baseline: of the one in force, or of what is learned before there is one.

    Args:
        profile: Whose.
        action: ``learning``, ``progress``, ``ready``, ``accepted`` or ``reset``.
        thresholds: With which it is used.
        order_id: Record id of the order that led to it.
    """
    reference = profile.reference
    calls, days = profile.missing(thresholds) if reference is None else (0, 0)
    return msgspec.convert(
        {
            **msgspec.to_builtins(_counted(reference or profile.candidate)),
            "action": action,
            "agent": profile.agent,
            "baseline_version": profile.version if reference is not None else 0,
            "needed_calls": calls,
            "needed_days": days,
            "blind": () if reference is None else blind(reference, thresholds),
            "thresholds": thresholds.digest,
            "order_id": order_id,
        },
        BaselineEvent,
    )


def offered_body(profile: AgentProfile, offered: Tally, digest: str, thresholds: Thresholds) -> BaselineEvent:
    """Return what a record says of a candidate that a person may accept.

    Args:
        profile: Whose.
        offered: The candidate as it was frozen for that.
        digest: Of what it counted.
        thresholds: With which it would be used.
    """
    known = set() if profile.reference is None else set(profile.reference.tools)
    added = [name for name in sorted(set(offered.tools) - known) if _is_name(name)]
    return msgspec.convert(
        {
            **msgspec.to_builtins(_counted(offered)),
            "action": "offered",
            "agent": profile.agent,
            "baseline_version": profile.version,
            "added": added[:_MAX_NAMES],
            "blind": blind(offered, thresholds),
            "thresholds": thresholds.digest,
            "digest": digest,
        },
        BaselineEvent,
    )


def _is_name(text: str) -> bool:
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return False
    return True
