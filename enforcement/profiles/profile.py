"""The profile of one agent at one gateway: nothing known, learning, or ready, and what follows from a call.

Pure: values in, values out; the time is the call's.

    none ──first call──► learning ──enough calls on enough days──► ready
                             ▲                                       │  the reference is frozen; a candidate for the
                             └──────────── reset by a person ────────┘  next one is learned beside it

INVARIANT: a reference does not move by itself. However slowly an agent changes, it is measured against what was frozen;
another reference comes from the candidate, by a person's word, and is recorded (`ledger.bodies_drift`).

INVARIANT: what a person would not have it learn from does not teach: calls that were refused, calls of servers and
tools that are only observed, and whatever a containment stops. They are measured all the same.

INVARIANT: no reference, no verdict: without one nothing is found, and the state says ``none`` or ``learning``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from enforcement.profiles.detectors import Deviation, call_deviations, course_deviations, usual_refusals
from enforcement.profiles.observing import Observation
from enforcement.profiles.statistics import cusum_step
from enforcement.profiles.tallies import Recent, Tally
from enforcement.profiles.thresholds import Thresholds
from ledger.canonical import sha256
from ledger.errors import StateError

__all__ = ["MAX_FLAGS", "AgentProfile", "Baseline", "Change", "Flag", "decode_profile", "encode_profile"]

Baseline: TypeAlias = Literal["none", "learning", "ready"]

MAX_FLAGS: Final = 64
"""Flags of one agent in a day: what an agent does must not fill the log. Beyond, departures are counted."""

_QUIET_MS: Final = 24 * 3_600_000
"""A flag is raised again after this time, if what it was about goes on."""

_CANDIDATE_MS: Final = 35 * 24 * 3_600_000
"""A candidate older than this begins anew: a baseline is of now."""

_OFFER_MS: Final = 7 * 24 * 3_600_000
"""How long a candidate is offered as it was, so that whoever accepts it accepts what he has seen."""

_EXPLAINS_MS: Final = 7 * 24 * 3_600_000
_MAX_CHANGES: Final = 32
_MAX_DEFINITIONS: Final = 512


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something else that changed, which may explain why an agent does.

    Attributes:
        kind: ``bundle`` or ``tool_definition``.
        subject: Of a definition: the tool.
        value: The new revision, or digest.
        time_ms: When it was first seen.
    """

    kind: Literal["bundle", "tool_definition"]
    subject: str
    value: str
    time_ms: int


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A deviation that is to be recorded.

    Attributes:
        deviation: What was found.
        version: Of the reference; 0 for a departure from a declared job.
        decisions: Record ids of the calls it rests on, the latest ones.
        since_ms: When the reference began.
        until_ms: When it was frozen, or its last call.
        explained: What changed besides, and may be why; None if nothing is known.
        unflagged: Departures before it that were too many to be flagged.
    """

    deviation: Deviation
    version: int
    decisions: tuple[str, ...]
    since_ms: int
    until_ms: int
    explained: Change | None = None
    unflagged: int = 0


class AgentProfile(msgspec.Struct, kw_only=True):
    """What is known of an agent.

    Attributes:
        agent: Which.
        version: Of the reference; 0 if there is none.
        reference: What is usual, frozen; None while it is learned.
        candidate: What is learned now.
        recent: The latest calls.
        standing: What of the latest calls together departs from the reference.
        flags: ``detector subject`` → when that was last flagged.
        unflagged: Departures that were too many to be flagged, since the last that was.
        revision: Bundle in force when it was last called.
        definitions: Tool → digest of its definition as last seen.
        changes: What changed lately.
        offered: The candidate as it was frozen for a person to accept; None if there is none.
        offered_ms: When that was.
        announced: The state, with the version, that was last recorded.
        progress_day: The local day on which progress was last recorded.
        orders: Ids of orders of people that were carried out, the latest ones.
    """

    agent: str
    version: int = 0
    reference: Tally | None = None
    candidate: Tally = msgspec.field(default_factory=Tally)
    recent: Recent = msgspec.field(default_factory=Recent)
    standing: tuple[Deviation, ...] = ()
    flags: dict[str, int] = {}
    unflagged: int = 0
    revision: str = ""
    definitions: dict[str, str] = {}
    changes: list[Change] = []
    offered: Tally | None = None
    offered_ms: int = 0
    announced: str = ""
    progress_day: str = ""
    orders: list[str] = []

    @property
    def state(self) -> Baseline:
        """Whether there is a baseline."""
        if self.reference is not None:
            return "ready"
        return "learning" if self.candidate.calls or self.candidate.refused else "none"

    def missing(self, thresholds: Thresholds) -> tuple[int, int]:
        """Return how many calls, and on how many further days, what is learned now needs to become a baseline."""
        return (
            max(0, thresholds.ready_calls - self.candidate.calls),
            max(0, thresholds.ready_days - self.candidate.days),
        )

    def look(self, call: Observation, thresholds: Thresholds) -> tuple[Deviation, ...]:
        """Return what departs, of a call that is not decided yet, and of those before it; nothing is changed."""
        if self.reference is None:
            return ()
        return (*call_deviations(self.reference, self.recent.seen(call), call, thresholds), *self.standing)

    def take(self, call: Observation, *, permitted: bool, teaches: bool, thresholds: Thresholds) -> tuple[Flag, ...]:
        """Take in a call that was decided; return what is to be flagged and was not before.

        Args:
            call: The call.
            permitted: It was let through.
            teaches: What it shows may be learned from.
            thresholds: What counts.
        """
        seen = self.recent.seen(call)
        reference = self.reference
        alone = () if reference is None else call_deviations(reference, seen, call, thresholds)
        if reference is not None:
            usual = usual_refusals(reference, thresholds)
            shifted = usual + thresholds.more_refusals
            if not self.recent.score:
                self.recent.refusals.clear()  # what adds up begins with this call
            self.recent.score = cusum_step(self.recent.score, event=not permitted, usual=usual, shifted=shifted)
            # What is far above stays above for long after it is over: a departure that ended is to be seen to end.
            self.recent.score = min(self.recent.score, 2 * thresholds.refusal_score)
        self.recent.take(call, permitted=permitted, window=thresholds.window_calls)
        if teaches and permitted:
            self._renew(call.now_ms)
            self.candidate.learn(call, seen)
        elif teaches:
            self.candidate.refuse()
        if reference is None:
            self._freeze(thresholds)
            return ()
        self.standing = course_deviations(reference, self.recent, thresholds)
        found = (*alone, *self.standing)
        return tuple(self._flag(item, call, reference) for item in found if self._is_new(item, call.now_ms))

    def take_off_job(self, call: Observation, found: Sequence[Deviation]) -> tuple[Flag, ...]:
        """Return what is to be flagged of a call's departures from declared jobs; without a baseline as well.

        Args:
            call: The call, which `take` has taken.
            found: How it departs.
        """
        new = [deviation for deviation in found if self._is_new(deviation, call.now_ms)]
        return tuple(
            Flag(
                deviation=deviation,
                version=0,
                decisions=(call.decision_id,),
                since_ms=0,
                until_ms=0,
                explained=self._explanation(deviation, call),
            )
            for deviation in new
        )

    def _renew(self, now_ms: int) -> None:
        if self.reference is not None and self.candidate.calls and now_ms - self.candidate.first_ms > _CANDIDATE_MS:
            self.candidate = Tally()

    def _freeze(self, thresholds: Thresholds) -> None:
        if self.missing(thresholds) == (0, 0):
            self._put_in_force()

    def _put_in_force(self) -> None:
        self.reference, self.candidate = self.candidate, Tally()
        self.reference.freeze()
        self.offered = None
        self.version += 1
        self._forget_flags()

    def offer(self, now_ms: int, thresholds: Thresholds) -> bool:
        """Freeze the candidate for a person to accept, if it is enough to be a baseline; it stands for a week.

        Args:
            now_ms: The time of a call, POSIX milliseconds.
            thresholds: What is enough.

        Returns:
            Whether there is another one than before.
        """
        stands = self.offered is not None and now_ms - self.offered_ms < _OFFER_MS
        if self.reference is None or stands or self.missing(thresholds) != (0, 0):
            return False
        copied = msgspec.msgpack.decode(msgspec.msgpack.encode(self.candidate), type=Tally)
        self.offered, self.offered_ms = copied, now_ms
        return True

    def accept(self, digest: str) -> None:
        """Make what was offered the reference, because a person says so.

        What came after it is not in it, and the next candidate begins with the next call.

        Args:
            digest: Of what the person was shown.

        Raises:
            StateError: Nothing is offered, or by now something else.
        """
        if self.offered is None or self.offered_digest != digest:
            raise StateError("what was accepted is not what is offered now")
        self.candidate = self.offered
        self._put_in_force()

    def reset(self) -> None:
        """Forget the reference and what is learned, because a person says so; the next calls begin to teach."""
        self.reference, self.candidate, self.offered = None, Tally(), None
        self._forget_flags()

    def _forget_flags(self) -> None:
        """Begin anew: what departed from another reference says nothing about the next."""
        self.flags.clear()
        self.standing, self.recent.score = (), 0.0

    def note_changes(self, call: Observation, *, revision: str, definition: str | None) -> None:
        """Note under which bundle, and with which definition of its tool, a call is made.

        Args:
            call: The call.
            revision: The bundle in force; empty if none answered.
            definition: Digest of the tool's definition; None if it is not known.
        """
        if revision and revision != self.revision:
            if self.revision:
                self._changed(Change(kind="bundle", subject="", value=revision, time_ms=call.now_ms))
            self.revision = revision
        if definition is None or self.definitions.get(call.tool) == definition:
            return
        if call.tool in self.definitions:
            self._changed(Change(kind="tool_definition", subject=call.tool, value=definition, time_ms=call.now_ms))
        elif len(self.definitions) >= _MAX_DEFINITIONS:
            return
        self.definitions[call.tool] = definition

    def _changed(self, change: Change) -> None:
        self.changes = [*self.changes, change][-_MAX_CHANGES:]

    def _is_new(self, deviation: Deviation, now_ms: int) -> bool:
        key = f"{deviation.detector} {deviation.subject}"
        last = self.flags.get(key)
        if last is not None and now_ms - last < _QUIET_MS:
            return False
        if last is None and len(self.flags) >= MAX_FLAGS:
            self.flags = {name: when for name, when in self.flags.items() if now_ms - when < _QUIET_MS}
            if len(self.flags) >= MAX_FLAGS:
                self.unflagged += 1
                return False
        self.flags[key] = now_ms
        return True

    def _flag(self, deviation: Deviation, call: Observation, reference: Tally) -> Flag:
        decisions: tuple[str, ...] = (call.decision_id,)
        if deviation.detector == "decision_mix":
            decisions = tuple(self.recent.refusals)
        elif deviation.calls > 1:
            decisions = tuple(self.recent.decisions)
        unflagged, self.unflagged = self.unflagged, 0
        return Flag(
            deviation=deviation,
            version=self.version,
            decisions=decisions,
            since_ms=reference.first_ms,
            until_ms=reference.last_ms,
            explained=self._explanation(deviation, call),
            unflagged=unflagged,
        )

    def _explanation(self, deviation: Deviation, call: Observation) -> Change | None:
        """Return the latest change that may be why: a bundle for everybody, a definition for calls of its tool."""
        for change in reversed(self.changes):
            if call.now_ms - change.time_ms > _EXPLAINS_MS:
                return None
            if change.kind == "bundle" or (deviation.calls == 1 and change.subject == call.tool):
                return change
        return None

    @property
    def offered_digest(self) -> str:
        """What is offered, so that a person accepts what he was shown: SHA-256, hexadecimal; empty for nothing."""
        return "" if self.offered is None else sha256(msgspec.json.encode(self.offered, order="sorted")).hex()


_DECODER: Final = msgspec.msgpack.Decoder(AgentProfile)


def encode_profile(profile: AgentProfile) -> bytes:
    """Return the bytes that a state file keeps of a profile."""
    return msgspec.msgpack.encode(profile)


def decode_profile(data: bytes) -> AgentProfile:
    """Read what `encode_profile` wrote.

    Raises:
        StateError: It is none.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateError("a stored behaviour profile cannot be read") from error
