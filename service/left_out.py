"""What an answer leaves out, and why, in sentences that stand in the answer itself.

Pure. A list that is cut, or that could not know of something, must not pass for all that there is. What is left out of
a pack, the pack says (its scope, and the verifier's "not checked").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ledger.bodies import Decision, SessionEnd
from ledger.completeness import SessionCount
from ledger.records import Record

__all__ = ["ALWAYS", "counted_calls", "of_a_page", "of_related", "of_replays", "of_the_pruned", "of_the_tail"]

ALWAYS: Final = (
    "payloads: an answer holds commitments to messages, requests and results; they are opened apart, for a purpose",
    "what enforcers have not delivered yet: records wait in their spools while the service is away",
)
"""What no answer that lists records has."""


def of_the_tail(sequenced: int, published: int) -> list[str]:
    """Return what to say of records that no checkpoint covers yet."""
    behind = sequenced - published
    if behind <= 0:
        return []
    return [f"proofs of the newest {behind} records of the log: no checkpoint covers them yet; they may be listed"]


def of_the_pruned(minimum: int) -> list[str]:
    """Return what to say of records that are no longer served, given the log's minimum index."""
    return [f"records below leaf {minimum}: the log was pruned by its published minimum index"] if minimum else []


def of_a_page(what: str, limit: int, *, more: bool) -> list[str]:
    """Return what to say of a list that was cut."""
    return [f"{what}: at most {limit} on a page; ask again with next_cursor"] if more else []


def of_related(*, cut: bool) -> list[str]:
    """Return what to say of records beside a session's own, of which only the newest were looked at or are told."""
    return ["older records about the session's tools, approvals, departures and containments"] if cut else []


def of_replays(classes: Iterable[tuple[str, bool | None]]) -> list[str]:
    """Return what to say of decisions that were asked for and not replayed, given class and verdict of each."""
    counted = Counter(name for name, same in classes if same is None)
    return [f"{number} of the decisions asked for: not replayed, {name}" for name, number in sorted(counted.items())]


def counted_calls(records: Iterable[Record]) -> SessionCount:
    """Return what the ends of a session say of its calls, given every record of it that the log holds."""
    decisions, ends = 0, []
    for record in records:
        decisions += isinstance(record.body, Decision)
        if isinstance(record.body, SessionEnd):
            ends.append(record.body.calls)
    return SessionCount.of(decisions, ends)
