"""A first, quick look through a log for the few records that say how all others are to be read.

Whether a record's signature counts depends on the key records before it, and whether a payload may be gone on the
tombstones anywhere. Both are found by the bytes of their type, without reading the other records; so the entries in
between can then be checked in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ledger.audit_chunks import BAD, BundleReader, WatchedKey
from ledger.audit_workers import thread_map
from ledger.bodies import KeyEvent, Tombstone
from ledger.errors import LedgerError
from ledger.keyring import Keyring
from ledger.records import decode_entry
from ledger.tiles import TILE_WIDTH

__all__ = ["KeyRecords", "find_key_records"]

_MARKS: Final = (b'"type":"key"', b'"type":"tombstone"')
"""In canonical JSON a string cannot hold these bytes, for its quotation marks are escaped: only a body's type can."""
_THREADS: Final = 8
_PER_CALL: Final = 16


@dataclass(slots=True)
class KeyRecords:
    """What was found.

    Attributes:
        keys: Leaf and entry of each key record, in order; some may introduce nothing.
        buried: Leaf of the last tombstone of each subject.
        keyring: Fed with the key records in order.
    """

    keys: list[tuple[int, bytes]] = field(default_factory=list)
    buried: dict[str, int] = field(default_factory=dict)
    keyring: Keyring = field(default_factory=Keyring)

    def take(self, leaf: int, entry: bytes) -> None:
        """Take in an entry that may be a key record or tombstone; entries come in order."""
        try:
            record = decode_entry(entry)
        except LedgerError:
            return
        if isinstance(record.body, Tombstone):
            self.buried[record.body.subject] = leaf
        elif isinstance(record.body, KeyEvent):
            self.keys.append((leaf, entry))
            try:
                self.keyring.check(leaf, record)
            except LedgerError:
                # Whoever checks the chunk in which it stands says so.
                return

    def watched(self) -> tuple[WatchedKey, ...]:
        """Return the compromises that the log declares."""
        return tuple(
            WatchedKey(leaf=one.leaf, public_keys=frozenset(self.keyring.keys_of(one)), since=one.since)
            for one in self.keyring.compromises
        )


def find_key_records(
    reader: BundleReader,
    bundles: Sequence[int],
    known: Iterable[tuple[int, bytes]],
    *,
    buried: Mapping[str, int] = MappingProxyType({}),
) -> KeyRecords:
    """Look through bundles, up to the first that cannot be read.

    Args:
        reader: Reads them.
        bundles: Numbers, ascending.
        known: Leaf and entry of key records before them.
        buried: Leaf of the last tombstone of each subject before them.

    Raises:
        StorageError: The store could not be read.
    """
    found = KeyRecords(buried=dict(buried))
    for leaf, entry in known:
        found.take(leaf, entry)
    parts = [bundles[place : place + _PER_CALL] for place in range(0, len(bundles), _PER_CALL)]

    def look(numbers: Sequence[int]) -> tuple[list[tuple[int, bytes]], bool]:
        marked: list[tuple[int, bytes]] = []
        for number in numbers:
            try:
                entries = reader.bundle(number)
            except BAD:
                return marked, False
            marked += _marked(number * TILE_WIDTH, entries)
        return marked, True

    for marked, readable in thread_map(look, parts, threads=_THREADS if len(parts) > 1 else 1):
        for leaf, entry in marked:
            found.take(leaf, entry)
        if not readable:
            break
    return found


def _marked(start: int, entries: Sequence[bytes]) -> list[tuple[int, bytes]]:
    return [(start + place, entry) for place, entry in enumerate(entries) if any(mark in entry for mark in _MARKS)]
