"""Stores in memory: for tests and for building trees that nobody keeps."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConflictError, NotFoundError, StaleKeysError
from ledger.files import check_log_id
from ledger.ports import Acknowledgement, PendingEntry, SealedPayload
from ledger.records import record_type
from ledger.tiles import CHECKPOINT_PATH, TileCoordinate, parse_hash_tile_path, parse_tile_path

__all__ = ["MemoryLogStore", "MemoryTileStore"]


class _Log:
    """One log's state."""

    def __init__(self, log_id: str) -> None:
        self.log_id = log_id
        self.entries: list[bytes | None] = []
        self.known: dict[str, tuple[int, bytes]] = {}
        self.taken: dict[tuple[str, str, int], str] = {}
        self.newest_key = -1
        self.payloads: dict[tuple[str, str], SealedPayload] = {}
        self.checkpoint: bytes | None = None
        self.checkpoint_size = -1

    def add(self, batch: Sequence[PendingEntry]) -> list[Acknowledgement]:
        known, taken = dict(self.known), dict(self.taken)
        fresh: list[PendingEntry] = []
        acknowledgements: list[Acknowledgement] = []
        for entry in batch:
            record = entry.record
            if record.log_id != self.log_id:
                raise ConflictError(f"record {record.record_id} is meant for another log")
            stream = (record.enforcer_id, record.epoch, record.seq)
            present = known.get(record.record_id)
            if present is not None:
                if present[1] != entry.leaf:
                    raise ConflictError(f"record {record.record_id} is in the log with other content")
                acknowledgements.append(Acknowledgement(record.record_id, present[0], duplicate=True))
                continue
            if entry.keys_leaf is not None and entry.keys_leaf < self.newest_key:
                raise StaleKeysError(f"record {record.record_id} was judged by keys that are no longer the newest")
            if stream in taken:
                raise ConflictError(f"sequence number {record.seq} of enforcer {record.enforcer_id} is taken")
            index = len(self.entries) + len(fresh)
            known[record.record_id] = (index, bytes(entry.leaf))
            taken[stream] = record.record_id
            fresh.append(entry)
            acknowledgements.append(Acknowledgement(record.record_id, index))
        self.known, self.taken = known, taken
        for index, entry in enumerate(fresh, len(self.entries)):
            if record_type(entry.record) == "key":
                self.newest_key = index
        self.entries.extend(entry.entry for entry in fresh)
        self.payloads.update({(p.record_id, p.field): p for entry in fresh for p in entry.payloads})
        return acknowledgements


class MemoryLogStore:
    """`ledger.ports.LogStore` and `ledger.vault.PayloadStore` in memory; nothing is durable."""

    def __init__(self, *log_ids: str) -> None:
        """Create the logs named."""
        self._logs = {log_id: _Log(log_id) for log_id in log_ids}
        self._lock = threading.Lock()

    def _log(self, log_id: str) -> _Log:
        try:
            return self._logs[log_id]
        except KeyError:
            raise NotFoundError(f"there is no log {log_id}") from None

    def sequence(
        self,
        log_id: str,
        batches: Sequence[Sequence[PendingEntry]],
        *,
        received_ms: int,  # noqa: ARG002  # the port's; nothing is projected here
    ) -> list[list[Acknowledgement] | ConflictError]:
        """See `LogStore.sequence`."""
        results: list[list[Acknowledgement] | ConflictError] = []
        with self._lock:
            log = self._log(log_id)
            for batch in batches:
                try:
                    results.append(log.add(batch))
                except ConflictError as conflict:
                    results.append(conflict)
        return results

    def sequenced_size(self, log_id: str) -> int:
        """See `LogStore.sequenced_size`."""
        return len(self._log(log_id).entries)

    def read_sequenced(self, log_id: str, start: int, end: int) -> list[bytes]:
        """See `LogStore.read_sequenced`."""
        entries = [entry for entry in self._log(log_id).entries[start:end] if entry is not None]
        if len(entries) != max(0, end - start):
            raise NotFoundError(f"entries {start} to {end} of {log_id} are not all held here")
        return entries

    def release(self, log_id: str, below: int) -> None:
        """See `LogStore.release`."""
        with self._lock:
            entries = self._log(log_id).entries
            for index in range(min(below, len(entries))):
                entries[index] = None

    def checkpoint(self, log_id: str) -> bytes | None:
        """See `LogStore.checkpoint`."""
        return self._log(log_id).checkpoint

    def swap_checkpoint(
        self,
        log_id: str,
        *,
        expected: bytes | None,
        new: bytes,
        size: int,
        published_ms: int,  # noqa: ARG002  # the port's; no history is kept here
    ) -> None:
        """See `LogStore.swap_checkpoint`."""
        with self._lock:
            log = self._log(log_id)
            if log.checkpoint != expected:
                raise ConflictError(f"another checkpoint of {log_id} was published meanwhile")
            if size <= log.checkpoint_size:
                raise ConflictError(f"checkpoint {size} of {log_id} does not extend the published one")
            log.checkpoint, log.checkpoint_size = new, size

    def payload(self, log_id: str, record_id: str, field: str) -> SealedPayload:
        """See `PayloadStore.payload`."""
        try:
            return self._log(log_id).payloads[record_id, field]
        except KeyError:
            raise NotFoundError(f"the vault holds no payload for {field} of record {record_id}") from None

    def payloads(self, log_id: str, leaves: Mapping[int, str], field: str) -> dict[int, SealedPayload]:
        """See `PayloadStore.payloads`."""
        kept = self._log(log_id).payloads
        return {leaf: kept[record_id, field] for leaf, record_id in leaves.items() if (record_id, field) in kept}


class MemoryTileStore:
    """`ledger.ports.TileStore` and `PartialStore` in memory; nothing is durable."""

    def __init__(self) -> None:
        """Start empty."""
        self._files: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def put(self, log_id: str, path: str, data: bytes) -> None:
        """See `TileStore.put`."""
        # INVARIANT 2: the checkpoint is exposed, and moves forward only; it is never put.
        parse_tile_path(path)
        with self._lock:
            if self._files.setdefault((check_log_id(log_id), path), data) != data:
                raise ConflictError(f"other bytes stand at {path}")

    def repair(self, log_id: str, path: str, data: bytes) -> None:
        """See `ledger.rebuild.RepairableTiles.repair`."""
        parse_hash_tile_path(path)
        with self._lock:
            self._files[check_log_id(log_id), path] = data

    def get(self, log_id: str, path: str) -> bytes:
        """See `TileStore.get`."""
        try:
            return self._files[check_log_id(log_id), path]
        except KeyError:
            raise NotFoundError(f"there is no {path} of {log_id}") from None

    def expose(self, log_id: str, checkpoint: bytes) -> None:
        """See `TileStore.expose`."""
        claim = parse_unverified_checkpoint(checkpoint).claim
        with self._lock:
            exposed = self._files.get((check_log_id(log_id), CHECKPOINT_PATH))
            if exposed is not None:
                present = parse_unverified_checkpoint(exposed).claim
                if present.size > claim.size:
                    return
                # INVARIANT 2: two roots for one size are never both exposed.
                if present.size == claim.size and present.root != claim.root:
                    raise ConflictError(f"the exposed checkpoint {claim.size} of {log_id} has another root")
            self._files[log_id, CHECKPOINT_PATH] = checkpoint

    def _partials(self, log_id: str, level: int) -> list[TileCoordinate]:
        check_log_id(log_id)
        with self._lock:
            paths = [path for owner, path in self._files if owner == log_id and path != CHECKPOINT_PATH]
        found = [tile for path in paths if not (tile := parse_tile_path(path)).full and tile.level == level]
        return sorted(found)

    def partial_tiles(self, log_id: str, level: int, group: int) -> list[int]:
        """See `PartialStore.partial_tiles`."""
        return sorted({tile.number for tile in self._partials(log_id, level) if tile.number // 1000 == group})

    def partial_widths(self, log_id: str, level: int, number: int) -> list[int]:
        """See `PartialStore.partial_widths`."""
        return [tile.width for tile in self._partials(log_id, level) if tile.number == number]

    def discard_partials(self, log_id: str, level: int, number: int) -> None:
        """See `PartialStore.discard_partials`."""
        for width in self.partial_widths(log_id, level, number):
            self._files.pop((log_id, TileCoordinate(level, number, width).path), None)

    def discard_superseded(self, log_id: str) -> None:
        """See `PartialStore.discard_superseded`; no version is kept here."""
