"""Auditing one stretch of a log by itself: entries, level-0 tiles, records, rows and payloads of some bundles.

A *chunk* is a run of entry bundles. What is found in it depends on its own bytes and on what the key records before it
introduce, and on nothing else, so that chunks can be checked at the same time by several processes. What spans chunks
(the tree above level 0, record ids that occur twice, completeness, enrolments) leaves here as small plain data and is
joined by `auditor`, in order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.audit_report import Depth, Finding
from ledger.bodies import KeyEvent
from ledger.catalog import Catalog
from ledger.errors import (
    ErasedError,
    LedgerError,
    MalformedError,
    NotFoundError,
    StateError,
    VerificationError,
)
from ledger.keyring import Keyring
from ledger.merkle import CompactRange, LeafHash, NodeHash, hash_leaf, subtree_root
from ledger.ports import TileStore
from ledger.projection import PROJECTED_TABLES, Row, project
from ledger.prover import Prover
from ledger.records import Record, commitments, decode_entry
from ledger.streams import Streams, StreamSummary
from ledger.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileCoordinate, pack_tile, unpack_bundle, unpack_tile
from ledger.vault import Vault

__all__ = [
    "BAD",
    "AuditSources",
    "BundleReader",
    "CheckedBundle",
    "CheckedChunk",
    "Chunk",
    "ChunkAuditor",
    "ChunkSetup",
    "Segment",
    "WatchedKey",
    "compare_tile",
]

BAD: Final = (MalformedError, VerificationError, StateError)
"""What is wrong with the log. A store that cannot be read is not among it (invariant 9): it ends the audit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSources:
    """Where an audit reads; what is None is not looked at.

    Attributes:
        tiles: The log's tile store.
        catalog: Its SQL projection.
        vault: Its vault.
    """

    tiles: TileStore
    catalog: Catalog | None = None
    vault: Vault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedKey:
    """A compromise that the log declares: the records that these keys signed from a leaf on are counted.

    Attributes:
        leaf: The leaf of the declaration.
        public_keys: What it is about.
        since: From which leaf on.
    """

    leaf: int
    public_keys: frozenset[bytes]
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSetup:
    """What every chunk of one audit has in common.

    Attributes:
        log_id: Which log.
        size: Leaves of the tree that is audited.
        depth: How much of each entry is looked at.
        key_records: Leaf and entry of each key record from leaf 0 on.
        watched: Compromises.
    """

    log_id: str
    size: int
    depth: Depth
    key_records: tuple[tuple[int, bytes], ...] = ()
    watched: tuple[WatchedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bundles, and the tree sizes within it whose roots are wanted.

    Attributes:
        first: Number of the first bundle.
        last: Number behind the last.
        sizes: Tree sizes above ``256 * first``, up to the end of the last bundle.
    """

    first: int
    last: int
    sizes: tuple[int, ...] = ()


@dataclass(slots=True)
class Segment:
    """Who wrote, from one key record up to the next.

    Attributes:
        leaf: Leaf of the key record that begins it, or None for the beginning of the stretch.
        wrote: Enforcer and epoch of the records in it, in the order of their first.
    """

    leaf: int | None = None
    wrote: dict[tuple[str, str], None] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class CheckedBundle:
    """What one bundle came to.

    Attributes:
        number: Which.
        width: Its entries.
        root: Root of the subtree over a full bundle, else None.
        subtrees: By tree size within the bundle, the perfect subtrees that cover its leaves up to there.
        leaves: The leaf hashes of a bundle that is not full.
        tile_findings: About its level-0 tile.
        findings: About its entries.
    """

    number: int
    width: int
    root: NodeHash | None
    subtrees: Mapping[int, tuple[bytes, ...]]
    leaves: tuple[LeafHash, ...]
    tile_findings: list[Finding]
    findings: list[Finding]


@dataclass(slots=True, kw_only=True)
class CheckedChunk:
    """What a chunk came to.

    Attributes:
        bundles: In order; those behind one that cannot be read are missing.
        unreadable: About the bundle that cannot be read, or None.
        checked: Number of things checked, by kind.
        record_ids: Record id and leaf of each record.
        summaries: The enforcers' streams in it.
        named_epochs: Epochs that are named as the ones before.
        segments: Who wrote between which key records.
        erased: Leaf, field and subjects of each payload of which a key is gone.
        signed: By position among the watched keys: how many records they signed, and the first leaf.
        records: Entries that are records.
        simulated: Simulated ones among them.
    """

    bundles: list[CheckedBundle] = field(default_factory=list)
    unreadable: Finding | None = None
    checked: Counter[str] = field(default_factory=Counter)
    record_ids: list[tuple[str, int]] = field(default_factory=list)
    summaries: list[StreamSummary] = field(default_factory=list)
    named_epochs: list[tuple[str, str]] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    erased: list[tuple[int, str, frozenset[str]]] = field(default_factory=list)
    signed: dict[int, tuple[int, int]] = field(default_factory=dict)
    records: int = 0
    simulated: int = 0


class BundleReader:
    """Reads the bundles and tiles of one tree as they are stored now."""

    def __init__(self, tiles: TileStore, log_id: str, size: int) -> None:
        """Read the tree of ``size`` leaves."""
        self._tiles = tiles
        self._log_id = log_id
        self._size = size
        self._prover = Prover(tiles, log_id)

    def width(self, number: int) -> int:
        """Return how many entries a bundle of this tree has."""
        return min(TILE_WIDTH, self._size - number * TILE_WIDTH)

    def bundle(self, number: int) -> list[bytes]:
        """Return a bundle's entries; of one that has been superseded by a full one, as many as the tree has.

        Raises:
            NotFoundError: It is missing.
            MalformedError: It is damaged.
            StorageError: The store failed.
        """
        coordinate = self.coordinate(number)
        try:
            return unpack_bundle(self._tiles.get(self._log_id, coordinate.path), coordinate.width)
        except NotFoundError:
            return self._prover.bundle(number, coordinate.width)

    def coordinate(self, number: int) -> TileCoordinate:
        """Return where a bundle of this tree is."""
        return TileCoordinate(BUNDLE_LEVEL, number, self.width(number))

    def tile(self, coordinate: TileCoordinate) -> bytes:
        """Return a tile's bytes; of a partial one that has been superseded, its part of the full one.

        Raises:
            NotFoundError: It is missing.
            MalformedError: The full one in its place is damaged.
            StorageError: The store failed.
        """
        try:
            return self._tiles.get(self._log_id, coordinate.path)
        except NotFoundError:
            return b"".join(self._prover.tile_row(coordinate.level, coordinate.number, coordinate.width))


def compare_tile(
    reader: BundleReader, coordinate: TileCoordinate, expected: bytes, checked: Counter[str]
) -> list[Finding]:
    """Compare a stored tile with the one that the entries make; each hash that differs is a finding."""
    try:
        stored = reader.tile(coordinate)
    except BAD as error:
        return [Finding(check="tile", reason=str(error), place=coordinate.path)]
    checked["tiles"] += 1
    return [] if stored == expected else _differences(coordinate, stored, expected)


def _differences(coordinate: TileCoordinate, stored: bytes, expected: bytes) -> list[Finding]:
    path = coordinate.path
    try:
        pairs = list(zip(unpack_tile(stored, coordinate.width), unpack_tile(expected, coordinate.width), strict=True))
    except BAD as error:
        return [Finding(check="tile", reason=str(error), place=path)]
    places = [place for place, (found, wanted) in enumerate(pairs) if found != wanted]
    if coordinate.level:
        return [
            Finding(check="tile", reason=f"hash {place} is not the one that the entries make", place=path)
            for place in places
        ]
    first = coordinate.number * TILE_WIDTH
    reason = "the entry's hash is not the one in the tile"
    return [Finding(check="leaf", reason=reason, leaf=first + place, place=path) for place in places]


class ChunkAuditor:
    """Checks chunks of one audit, one after the other. Use it for chunks in ascending order: it reads keys forward."""

    def __init__(self, sources: AuditSources, setup: ChunkSetup) -> None:
        """Check with these sources."""
        self._setup = setup
        self._depth = setup.depth
        self._reader = BundleReader(sources.tiles, setup.log_id, setup.size)
        self._catalog = sources.catalog if setup.depth.checks_projection else None
        self._vault = sources.vault if setup.depth.opens_payloads else None
        self._keyring = Keyring()
        self._keys_below = 0
        self._keys_read = 0
        self._result = CheckedChunk()
        self._streams = Streams()

    def check(self, chunk: Chunk) -> CheckedChunk:
        """Check a chunk.

        Raises:
            StorageError: A store could not be read.
        """
        self._result, self._streams = CheckedChunk(segments=[Segment()]), Streams()
        if self._depth.checks_records:
            self._read_keys(chunk.first * TILE_WIDTH)
        for number in range(chunk.first, chunk.last):
            try:
                entries = self._reader.bundle(number)
            except BAD as error:
                place = self._reader.coordinate(number).path
                self._result.unreadable = Finding(check="bundle", reason=str(error), place=place)
                break
            self._result.bundles.append(self._check_bundle(number, entries, chunk.sizes))
        result = self._result
        result.summaries = list(self._streams.summaries.values())
        result.named_epochs = self._streams.named_epochs
        result.signed = self._watched_signatures(self._keyring.take_signed())
        return result

    def _read_keys(self, leaf: int) -> None:
        """Take in the key records from where the last chunk ended up to a leaf."""
        if leaf < self._keys_below:
            self._keyring, self._keys_read = Keyring(), 0
        records = self._setup.key_records
        while self._keys_read < len(records) and records[self._keys_read][0] < leaf:
            index, entry = records[self._keys_read]
            if index >= self._keys_below:
                _take_key(self._keyring, index, entry)
            self._keys_read += 1
        self._keys_below = leaf
        self._keyring.take_signed()

    def _watched_signatures(self, signed: Mapping[bytes, array[int]]) -> dict[int, tuple[int, int]]:
        found = {}
        for position, watched in enumerate(self._setup.watched):
            leaves = [leaf for key in watched.public_keys for leaf in signed.get(key, ()) if leaf >= watched.since]
            if leaves:
                found[position] = (len(leaves), min(leaves))
        return found

    def _check_bundle(self, number: int, entries: Sequence[bytes], sizes: Sequence[int]) -> CheckedBundle:
        start, width = number * TILE_WIDTH, len(entries)
        leaves = [hash_leaf(entry) for entry in entries]
        findings: list[Finding] = []
        self._result.checked["entries"] += width
        if self._depth.reads_entries:
            self._check_entries(start, entries, leaves, findings)
        full = width == TILE_WIDTH
        tile = TileCoordinate(0, number, width)
        return CheckedBundle(
            number=number,
            width=width,
            root=subtree_root(leaves) if full else None,
            subtrees={size: _subtrees(leaves[: size - start]) for size in sizes if start < size <= start + width},
            leaves=() if full else tuple(leaves),
            tile_findings=compare_tile(self._reader, tile, pack_tile(leaves), self._result.checked),
            findings=findings,
        )

    def _check_entries(
        self, start: int, entries: Sequence[bytes], leaves: Sequence[LeafHash], findings: list[Finding]
    ) -> None:
        rows: Mapping[int, Mapping[str, Sequence[Row]]] = {}
        if self._catalog is not None:
            rows = self._catalog.rows(self._setup.log_id, start, start + len(entries))
        for index, (entry, leaf) in enumerate(zip(entries, leaves, strict=True), start):
            try:
                record = decode_entry(entry)
            except BAD as error:
                findings.append(Finding(check="record", reason=str(error), leaf=index))
                continue
            if self._depth.checks_records:
                self._check_record(index, record, findings)
            if self._catalog is not None:
                self._check_rows(index, project(record, index, leaf), rows.get(index), findings)
            if self._vault is not None:
                self._check_payloads(index, record, self._vault, findings)

    def _check_record(self, index: int, record: Record, findings: list[Finding]) -> None:
        result = self._result
        if record.log_id != self._setup.log_id:
            reason = f"the record is of the log {record.log_id}"
            findings.append(Finding(check="record", reason=reason, leaf=index))
        try:
            self._keyring.check(index, record)
        except BAD as error:
            findings.append(Finding(check="record", reason=str(error), leaf=index))
        else:
            result.checked["record signatures"] += 1
            if isinstance(record.body, KeyEvent):
                result.segments.append(Segment(leaf=index))
            else:
                result.segments[-1].wrote[record.enforcer_id, record.epoch] = None
        self._keys_below = index + 1
        result.record_ids.append((record.record_id, index))
        result.records += 1
        result.simulated += record.simulated
        self._streams.add(record)

    def _check_rows(
        self,
        index: int,
        expected: Mapping[str, Sequence[Row]],
        stored: Mapping[str, Sequence[Row]] | None,
        findings: list[Finding],
    ) -> None:
        if stored is None:
            reason = "the projection lacks this leaf"
            findings.append(Finding(check="projection", reason=reason, leaf=index, place="records"))
            return
        for name in PROJECTED_TABLES:
            wanted, found = expected[name], stored[name]
            self._result.checked["projected rows"] += len(wanted)
            if wanted != found:
                findings += _row_differences(index, name, wanted, found)

    def _check_payloads(self, index: int, record: Record, vault: Vault, findings: list[Finding]) -> None:
        for name in commitments(record):
            try:
                vault.open(record, name)
            except ErasedError as error:
                self._result.checked["erased payloads"] += 1
                self._result.erased.append((index, name, error.subjects))
            except (NotFoundError, VerificationError) as error:
                findings.append(Finding(check="vault", reason=str(error), leaf=index, place=name))
            else:
                self._result.checked["payloads"] += 1


def _take_key(keyring: Keyring, index: int, entry: bytes) -> None:
    try:
        keyring.check(index, decode_entry(entry))
    except LedgerError:
        # Whoever checks the chunk in which it stands says so. It introduces nothing there either.
        return


def _subtrees(leaves: Sequence[LeafHash]) -> tuple[bytes, ...]:
    covered = CompactRange()
    covered.extend(leaves)
    return covered.hashes


def _row_differences(index: int, name: str, wanted: Sequence[Row], found: Sequence[Row]) -> list[Finding]:
    """Return what differs; columns that the entry does not make are no part of the projection."""
    if len(wanted) != len(found):
        reason = f"the projection has {len(found)} rows, the entry makes {len(wanted)}"
        return [Finding(check="projection", reason=reason, leaf=index, place=name)]
    findings = []
    for made, stored in zip(wanted, found, strict=True):
        differing = sorted(column for column, value in made.items() if stored.get(column) != value)
        if differing:
            reason = f"the projection differs from the entry in {', '.join(differing)}"
            findings.append(Finding(check="projection", reason=reason, leaf=index, place=name))
    return findings
