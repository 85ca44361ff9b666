"""Reading entries wherever they are: in the log store while they are young, in the tile store afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import NotFoundError
from ledger.ports import LogStore, TileStore
from ledger.prover import Prover
from ledger.records import Record, decode_entry
from ledger.tiles import TILE_WIDTH

__all__ = ["EntryReader"]

_ATTEMPTS = 3
_CHUNK = 4 * TILE_WIDTH


class EntryReader:
    """Reads one log's sequenced entries, published or not; safe for any thread."""

    def __init__(self, store: LogStore, tiles: TileStore, log_id: str) -> None:
        """Read from a log store and its tile store."""
        self._store = store
        self._log_id = log_id
        self._prover = Prover(tiles, log_id)

    def _published(self) -> int:
        checkpoint = self._store.checkpoint(self._log_id)
        return 0 if checkpoint is None else parse_unverified_checkpoint(checkpoint).claim.size

    def _chunk(self, start: int, end: int) -> list[bytes]:
        for attempt in range(_ATTEMPTS):
            published = self._published()
            full = published // TILE_WIDTH * TILE_WIDTH
            try:
                old = list(self._prover.entries(start, min(end, full), published)) if start < full else []
                return old + self._store.read_sequenced(self._log_id, max(start, full), max(end, full))
            except NotFoundError:
                # Between our look at the checkpoint and our read, the publisher may have released what we wanted.
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError  # the loop returns or raises

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the entries ``[start, end)``, in order.

        Raises:
            NotFoundError: One of them has no index yet, or is missing from the stores.
            StorageError: A store failed.
            MalformedError: A bundle is damaged.
        """
        for first in range(start, end, _CHUNK):
            yield from self._chunk(first, min(end, first + _CHUNK))

    def record(self, index: int) -> Record:
        """Return the record at ``index``; see `entries`.

        Raises:
            MalformedError: The entry is not a record.
        """
        return decode_entry(next(self.entries(index, index + 1)))
