"""Reading decisions for the pages: from the log itself, many at once, each of them once.

An entry never changes under its index (architecture.md, invariant 1), so that a decoded record may be kept. The newest
decisions are asked for every two seconds by everyone who looks; they lie together, so one read brings many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from ledger.reader import EntryReader
from ledger.records import Record, decode_entry

__all__ = ["RecordCache"]

_MAX_RECORDS: Final = 2_000
_MAX_GAP: Final = 32
"""Leaves between two wanted ones that are read along rather than read around."""


class RecordCache:
    """Reads one log's records by index; safe for any thread."""

    def __init__(self, reader: EntryReader, *, max_records: int = _MAX_RECORDS) -> None:
        """Read through ``reader`` and keep at most ``max_records``."""
        self._reader = reader
        self._max_records = max_records
        self._kept: OrderedDict[int, Record] = OrderedDict()
        self._lock = threading.Lock()

    def records(self, indexes: Sequence[int]) -> list[Record]:
        """Return the records at ``indexes``, in their order.

        Raises:
            NotFoundError: One of them is not in the log.
            StorageError: A store failed.
            MalformedError: What a store holds is no record.
        """
        with self._lock:
            found = {index: self._kept[index] for index in indexes if index in self._kept}
        for start, end in _runs(sorted(set(indexes) - found.keys())):
            entries = self._reader.entries(start, end)
            found.update((index, decode_entry(entry)) for index, entry in enumerate(entries, start))
        with self._lock:
            for index in indexes:
                self._kept[index] = found[index]
                self._kept.move_to_end(index)
            while len(self._kept) > self._max_records:
                self._kept.popitem(last=False)
        return [found[index] for index in indexes]


def _runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges ``[start, end)`` that cover ascending indexes and little else."""
    start: int | None = None
    last = 0
    for index in indexes:
        if start is not None and index - last > _MAX_GAP:
            yield start, last + 1
            start = index
        start = index if start is None else start
        last = index
    if start is not None:
        yield start, last + 1
