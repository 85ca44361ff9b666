"""Decisions of a stretch of the log for tools that gather security events.

The log itself is read, leaf by leaf and in order, and only as far as a checkpoint covers it: what was handed out can be
proven from that moment on, and no leaf comes later before one that was handed out. A page is so many *leaves*, so that
a log with few decisions costs no more for a question than one with many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from evidence.ocsf import Covered, decision_event
from ledger.bodies import Decision, Outcome
from ledger.proofs import TreeHead
from ledger.records import Record, decode_entry
from service.version import VERSION
from service.wiring.services import Services

__all__ = ["MAX_LEAVES", "Page", "ocsf_page"]

MAX_LEAVES: Final = 1000
"""Most leaves that one page looks at."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an export.

    Attributes:
        items: Events, in the order of the log.
        after: The last leaf that was looked at; where the next page goes on. None if nothing was ever looked at.
        complete: No leaf that a checkpoint covers, and that was asked for, is left.
    """

    items: list[dict[str, Any]]
    after: int | None
    complete: bool


def ocsf_page(
    services: Services, *, after: int | None, from_ms: int | None, to_ms: int | None, leaves: int = MAX_LEAVES
) -> Page:
    """Return the decisions behind a leaf as OCSF events. Blocks.

    Args:
        services: The log.
        after: The leaf behind which to look; None for the beginning.
        from_ms: Decisions at or after, POSIX milliseconds.
        to_ms: Decisions before.
        leaves: How many leaves to look at, at most.

    Raises:
        StorageError: A store failed.
        MalformedError: An entry bundle is damaged.
    """
    published = services.publishing.published
    if published is None:
        return Page([], after, complete=True)
    wanted = _stretch(services, from_ms, to_ms, published.head.size)
    start = max(wanted.start, 0 if after is None else after + 1, services.minimum_index.current())
    end = min(wanted.stop, start + leaves)
    covered = _covered(services, published.head)
    items = [
        decision_event(record, index, outcome=_outcome(services, record), covered=covered, version=VERSION)
        for index, record in _decisions(services, start, end)
        if (from_ms is None or record.time_ms >= from_ms) and (to_ms is None or record.time_ms < to_ms)
    ]
    return Page(items, end - 1 if end > start else after, complete=end >= wanted.stop)


def _stretch(services: Services, from_ms: int | None, to_ms: int | None, size: int) -> range:
    """Return the leaves among which those of a period are."""
    if from_ms is None and to_ms is None:
        return range(size)
    found = services.catalog.stretch(services.identity.log_id, from_ms or 0, _NO_END_MS if to_ms is None else to_ms)
    return range(found.start, min(found.stop, size))


_NO_END_MS: Final = 2**53 - 1


def _covered(services: Services, head: TreeHead) -> Covered:
    return Covered(origin=services.settings.origin, size=head.size, root=head.root.hex())


def _decisions(services: Services, start: int, end: int) -> Iterator[tuple[int, Record]]:
    if start >= end:
        return
    for index, entry in zip(itertools.count(start), services.reader.entries(start, end), strict=False):
        record = decode_entry(entry)
        if isinstance(record.body, Decision):
            yield index, record


def _outcome(services: Services, decision: Record) -> Outcome | None:
    """Return what became of a call, as far as it is in the log by now; the index only finds it (invariant 3)."""
    for index in services.catalog.outcomes_of(services.identity.log_id, decision.record_id):
        body = services.reader.record(index).body
        if isinstance(body, Outcome) and body.decision_id == decision.record_id:
            return body
    return None
