"""Recorded decisions as an impact needs them: read from the log a page at a time, their requests opened together.

Which leaves a period has, the searchable tables say; what is on a leaf, the leaf says (invariant 3). Requests are
compared with the commitments of their leaves as they are opened. Behind the last record of the period a little more of
the log is read: where its enforcers have said that they are past it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from ledger.bodies import Decision, SessionEnd
from ledger.catalog import Catalog
from ledger.errors import ErasedError, LedgerError
from ledger.ports import Opening
from ledger.reader import EntryReader
from ledger.records import Record, decode_entry
from ledger.tasks import end
from ledger.vault import Vault
from policies.impact import Impact, Located
from policies.impact_report import Stretch
from policies.impact_walk import Ended, Step
from policies.replay_results import RecordedDecision

__all__ = ["CLOSING_LEAVES", "PAGE_LEAVES", "History", "Page"]

PAGE_LEAVES: Final = 1024
"""Leaves of one page: what is held in memory at a time is two of them."""
CLOSING_LEAVES: Final = 16 * PAGE_LEAVES
"""Leaves behind a period in which it is looked for that its enforcers are past it."""


@dataclass(frozen=True, slots=True)
class Page:
    """A few leaves, one after another.

    Attributes:
        end_leaf: The leaf behind the last one.
        records: Their records.
        steps: What an impact needs of them.
        opened: Requests that were opened.
    """

    end_leaf: int
    records: list[Record]
    steps: list[Step]
    opened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Reads one log's decisions; safe for any thread.

    Attributes:
        log_id: Of which log.
        catalog: Finds the leaves of a period.
        reader: Reads them.
        vault: Opens requests.
    """

    log_id: str
    catalog: Catalog
    reader: EntryReader
    vault: Vault

    def stretch(self, impact: Impact, tree_size: int, minimum: int) -> Stretch:
        """Return which leaves have to be read for an impact, the log having so many and none below a minimum.

        Raises:
            StorageError: The database failed.
        """
        found = self.catalog.stretch(self.log_id, impact.read_from_ms, impact.to_ms)
        first, last = min(found.start, tree_size), min(found.stop, tree_size)
        return Stretch(
            tree_size=tree_size,
            first_leaf=max(first, min(minimum, last)),
            end_leaf=last,
            pruned_below=minimum if first < minimum else 0,
        )

    def page(self, start: int, stop: int, impact: Impact) -> Page:
        """Read leaves, and open the requests of those decisions that an impact needs.

        Args:
            start: First leaf.
            stop: The leaf behind the last one that may be read; a page ends before it where it is full.
            impact: Says which decisions it needs. What it counts is not looked at.

        Raises:
            LedgerError: A store failed, or an entry is no record.
        """
        # Pages end where entry bundles do, so that none is read twice.
        stop = min(stop, (start // PAGE_LEAVES + 1) * PAGE_LEAVES)
        records = dict(enumerate(map(decode_entry, self.reader.entries(start, stop)), start))
        wanted = {
            leaf: record
            for leaf, record in records.items()
            if isinstance(record.body, Decision) and impact.needs(record.time_ms, record.body)
        }
        opened = self.vault.open_many(wanted, "request")
        steps = [step for leaf, record in records.items() if (step := _step(leaf, record, wanted, opened)) is not None]
        return Page(stop, list(records.values()), steps, sum(isinstance(item, Opening) for item in opened.values()))

    async def pages(self, start: int, stop: int, impact: Impact) -> AsyncGenerator[Page]:
        """Yield pages; while one is worked on, the next is read.

        Raises:
            LedgerError: A store failed, or an entry is no record.
        """
        if start >= stop:
            return
        reading = asyncio.create_task(asyncio.to_thread(self.page, start, stop, impact))
        try:
            while True:
                page = await reading
                if page.end_leaf < stop:
                    reading = asyncio.create_task(asyncio.to_thread(self.page, page.end_leaf, stop, impact))
                yield page
                if page.end_leaf >= stop:
                    return
        finally:
            await end(reading)


def _step(
    leaf: int, record: Record, wanted: Mapping[int, Record], opened: Mapping[int, Opening | LedgerError]
) -> Step | None:
    body = record.body
    if isinstance(body, SessionEnd):
        return Ended(body.session)
    if leaf not in wanted or not isinstance(body, Decision):
        return None
    found = opened.get(leaf)
    return Located(
        leaf,
        record.time_ms,
        RecordedDecision(
            record_id=record.record_id,
            body=body,
            request=found.payload if isinstance(found, Opening) else None,
            # Lost or damaged is no erasure: which of them, an audit says.
            damaged=isinstance(found, LedgerError) and not isinstance(found, ErasedError),
        ),
        record.enforcer_id,
    )
