"""The catalogue port: finding records of a log by what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ledger.projection import Row

__all__ = ["MAX_PAGE", "MINUTE_MS", "Catalog", "DecisionQuery", "StreamPosition", "Tally"]

MAX_PAGE: Final = 500
"""Most decisions that one search returns."""

MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionQuery:
    """What to look for; a field that is None does not restrict.

    Attributes:
        from_ms: Decision time at or after, POSIX milliseconds.
        to_ms: Decision time before.
        agent: Agent name.
        users: Pseudonyms of a user, one for each pseudonym key.
        session: Pseudonym of the session.
        server: Server name.
        tool: Tool name.
        rule: Name of a determining rule.
        decision: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE.
        enforcement: allow, deny, ask or kill.
        mode: enforce or observe.
        reason: Machine-readable cause.
        bundle_revision: Digest of the bundle.
        trace_id: W3C trace id.
        fingerprints: Keyed fingerprints of arguments sent or content received.
        before: Leaf index that the results lie under: the cursor of the next page.
        limit: Results, at most `MAX_PAGE`.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    agent: str | None = None
    users: Sequence[str] | None = None
    session: str | None = None
    server: str | None = None
    tool: str | None = None
    rule: str | None = None
    decision: str | None = None
    enforcement: str | None = None
    mode: str | None = None
    reason: str | None = None
    bundle_revision: str | None = None
    trace_id: str | None = None
    fingerprints: Sequence[str] | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """The last record of an enforcer: its epoch, sequence number and leaf index."""

    epoch: str
    seq: int
    leaf_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many decisions of one kind fall into one minute.

    Attributes:
        minute_ms: Start of the minute, POSIX milliseconds.
        enforcement: allow, deny, ask or kill.
        mode: enforce or observe.
        decisions: How many.
        last_index: The largest leaf index among them.
    """

    minute_ms: int
    enforcement: str
    mode: str
    decisions: int
    last_index: int


class Catalog(Protocol):
    """Finds leaf indexes. Every method raises `StorageError` if the store failed, and may be called from any thread."""

    def index_of(self, log_id: str, record_id: str) -> int:
        """Return a record's leaf index.

        Raises:
            NotFoundError: There is no such record.
        """
        ...

    def search(self, log_id: str, wanted: DecisionQuery) -> list[int]:
        """Return the leaf indexes of the newest matching decisions, newest first."""
        ...

    def stretch(self, log_id: str, from_ms: int, to_ms: int) -> range:
        """Return the stretch of leaves from the first to the last record whose time lies in ``[from_ms, to_ms)``.

        Records of other times may stand between them, for enforcers hand in theirs when they can.
        """
        ...

    def session(self, log_id: str, session: str) -> list[int]:
        """Return the leaf indexes of a session's decisions, outcomes and ends, in order."""
        ...

    def outcomes_of(self, log_id: str, decision_id: str) -> list[int]:
        """Return the leaf indexes of a decision's outcomes; there should be at most one."""
        ...

    def of_type(self, log_id: str, record_type: str, *, above: int = -1, not_by: str | None = None) -> list[int]:
        """Return the leaf indexes of all records of a type behind the leaf ``above``, in order.

        Args:
            log_id: Which log.
            record_type: Which type.
            above: Behind which leaf.
            not_by: Leaves out what this enforcer wrote.
        """
        ...

    def kills(self, log_id: str, *, above: int = -1) -> list[int]:
        """Return the leaf indexes of enforced kills behind the leaf ``above``, in order."""
        ...

    def last_of_type(self, log_id: str, record_type: str) -> list[int]:
        """Return the leaf index of the last record of a type in each stream that has one; in no order.

        A record that is no decision and no outcome; of a stream's records it is the one with the highest number.
        """
        ...

    def last_position(self, log_id: str, enforcer_id: str) -> StreamPosition | None:
        """Return where an enforcer's stream stands, or None if it never wrote."""
        ...

    def count_between(self, log_id: str, enforcer_id: str, epoch: str, first: int, last: int) -> int:
        """Return how many of an enforcer's sequence numbers ``[first, last]`` of an epoch are in the log."""
        ...

    def counts(self, log_id: str) -> Mapping[str, int]:
        """Return the number of records by type."""
        ...

    def tally(self, log_id: str, *, from_ms: int | None = None, from_index: int | None = None) -> list[Tally]:
        """Count decisions by minute, enforcement and mode.

        One of the two bounds is given, never both: each has its index, and the work is in proportion to what it leaves.

        Args:
            log_id: Which log.
            from_ms: Decision time at or after, POSIX milliseconds.
            from_index: Leaf index at or after.
        """
        ...

    def rows(self, log_id: str, start: int, end: int) -> Mapping[int, Mapping[str, Sequence[Row]]]:
        """Return the projected rows of the leaves ``[start, end)`` by leaf index and table, for the auditor."""
        ...
