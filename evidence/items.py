"""Which records are items of control tests, and what such an item is.

Pure. A record is an item if its time lies in the period. So is every key record, whenever it was written: what is said
of a key bears on the period, and a compromise is mostly declared later than it happened. Decisions in observe mode are
none: they were not enforced, so they satisfy nothing.
"""

from __future__ import annotations

from evidence.links import Links
from evidence.population import Period
from evidence.subjects import Item
from ledger.bodies import Decision, KeyEvent
from ledger.records import Record, record_type

__all__ = ["is_item", "record_item"]


def is_item(record: Record, period: Period) -> bool:
    """Whether control tests of a period look at a record."""
    body = record.body
    if isinstance(body, Decision) and body.mode == "observe":
        return False
    return period.contains(record.time_ms) or isinstance(body, KeyEvent)


def record_item(links: Links, leaf: int, record: Record) -> tuple[str, Item]:
    """Return the subject and the item that a record makes, with what follows for it from the records in ``links``."""
    subject = record_type(record)
    return subject, Item(leaf, {"envelope": record, subject: record.body, "derived": links.derived(leaf, record)})
