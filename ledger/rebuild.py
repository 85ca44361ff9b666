"""Rebuilding: tiles and searchable tables anew from the entry bundles, which alone cannot be derived from anything.

Nothing is written before all of it is known to be right: every bundle is hashed, and the tree must be the one of the
exposed checkpoint, which must be signed as the trust policy demands and contradict no other checkpoint at hand. Entry
bundles and checkpoints are never touched. Whatever is written is listed.

A database that was put back from a backup is behind the log that was shown since. The bundles hold every entry that was
published, so that it can be *brought forward*: records, projection and the published checkpoint as of the exposed one.
What cannot be derived from entries is lost with the database: vaulted payloads of the records in between, and whatever
was acknowledged after that checkpoint. The first is counted, the second cannot be known here; enforcers that did not
get a proof send it again.

The steps, and what a crash leaves behind: tiles are put right one by one, each whole or not at all; then the tables in
one transaction. Either way the command can be given again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ledger.audit_chunks import BAD, BundleReader
from ledger.audit_report import Depth
from ledger.auditor import Auditor
from ledger.catalog import Catalog
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import MalformedError, RollbackError, StateError, VerificationError
from ledger.merkle import hash_leaf
from ledger.ports import LogStore, PendingEntry, TileStore
from ledger.projection import PROJECTED_TABLES, Row, project
from ledger.proofs import TreeHead
from ledger.prover import Prover
from ledger.records import commitments, decode_entry
from ledger.tiles import TILE_WIDTH, Edge, TileCoordinate
from ledger.trust import TrustPolicy

__all__ = ["ProjectionRebuild", "RebuildReport", "Rebuilder", "RepairableTiles"]

_REPAIRABLE: Final = frozenset({"leaf", "tile"})
"""Findings of an audit of hashes that a rebuild puts right; every other one forbids it."""


class RepairableTiles(TileStore, Protocol):
    """A tile store in which a damaged tile can be put right."""

    def repair(self, log_id: str, path: str, data: bytes) -> None:
        """Put a hash tile in the place of whatever stands there; durable and whole when the call returns.

        Raises:
            MalformedError: Not the path of a hash tile: entry bundles and checkpoints are never put right by anybody.
            StorageError: The store failed, or does not let go of what stands there.
        """
        ...


class ProjectionRebuild(Protocol):
    """The searchable tables, as a rebuild writes them."""

    def rewrite(
        self,
        log_id: str,
        leaves: Sequence[range],
        entries: Callable[[], Iterator[tuple[int, PendingEntry]]],
        *,
        forward: tuple[int, bytes] | None,
        now_ms: int,
    ) -> None:
        """Write the rows of leaves anew, in one transaction under the log's lock.

        Args:
            log_id: Which log.
            leaves: Which leaves, ascending; the rows that they have go first.
            entries: Yields their entries, in order.
            forward: Size and bytes of a checkpoint that becomes the published one, if the tables are behind it; then
                the entries behind its last full bundle are held for the next one, too.
            now_ms: The time of receipt of leaves that had no row, POSIX milliseconds.

        Raises:
            StorageError: The database failed; nothing was changed.
        """
        ...


@dataclass(slots=True, kw_only=True)
class RebuildReport:
    """What differed, and whether it was put right.

    Attributes:
        log_id: Which log.
        head: The signed tree that everything was compared with.
        written: Whether anything was written: not in a dry run.
        tiles: Paths of tiles that were missing or wrong.
        leaves: Ranges of leaves whose rows were missing or wrong, those that the database was behind by included.
        rows: How many leaves these are.
        forward_from: First leaf that the database knew nothing of, if it was behind, else None.
        lost_payloads: Vaulted payloads of those records; they went with the database.
        forward_needed: The database's checkpoint is behind the exposed one.
    """

    log_id: str
    head: TreeHead
    written: bool = False
    tiles: list[str] = field(default_factory=list)
    leaves: list[range] = field(default_factory=list)
    forward_from: int | None = None
    lost_payloads: int = 0
    forward_needed: bool = False

    @property
    def rows(self) -> int:
        """How many leaves have rows that were missing or wrong."""
        return sum(len(part) for part in self.leaves)

    @property
    def differs(self) -> bool:
        """Whether anything was to be put right."""
        return bool(self.tiles or self.leaves or self.forward_needed)

    def add_leaf(self, leaf: int) -> None:
        """Take in a leaf; leaves come in order."""
        if self.leaves and self.leaves[-1].stop == leaf:
            self.leaves[-1] = range(self.leaves[-1].start, leaf + 1)
        else:
            self.leaves.append(range(leaf, leaf + 1))


class Rebuilder:
    """Rebuilds one log. Nobody else may write it meanwhile; use an instance once."""

    def __init__(
        self,
        log_id: str,
        tiles: RepairableTiles,
        policy: TrustPolicy,
        *,
        store: LogStore,
        catalog: Catalog,
        projection: ProjectionRebuild,
        other_checkpoints: Iterable[bytes] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            log_id: Which log.
            tiles: Its tile store.
            policy: Whose signatures count.
            store: Its log store.
            catalog: Its searchable tables, as they are read.
            projection: The same, as they are written.
            other_checkpoints: Checkpoints from anchors.
            progress: Called with leaves done and leaves in all, also while nothing is done but hashing.
        """
        self._log_id = log_id
        self._tiles = tiles
        self._policy = policy
        self._store = store
        self._catalog = catalog
        self._projection = projection
        self._other = list(other_checkpoints)
        self._tell = progress or (lambda _done, _all: None)

    def run(self, *, dry_run: bool, forward: bool, now_ms: int) -> RebuildReport:
        """Compare everything with the entries, and put right what differs.

        Args:
            dry_run: Only say what differs.
            forward: Bring a database that is behind the exposed checkpoint up to it.
            now_ms: The time, POSIX milliseconds.

        Raises:
            VerificationError: The bundles do not make the signed tree, or it contradicts another checkpoint; nothing
                was written.
            RollbackError: The log directory is behind the database or an anchor: it must be put back first.
            StateError: The database is behind, and may not be brought forward; or it holds other records than were
                published.
            NotFoundError: Nothing has been published.
            StorageError: A store failed.
        """
        checkpoint, head = self._verified()
        known = self._store.checkpoint(self._log_id)
        known_size = 0 if known is None else parse_unverified_checkpoint(known).claim.size
        if known_size > head.size:
            raise RollbackError(
                f"the log directory shows {head.size} leaves, the database has published {known_size}: put the "
                "directory back from a newer copy, or start the service if it was only interrupted"
            )
        self._require_sound(known)
        report = RebuildReport(log_id=self._log_id, head=head, forward_needed=known_size < head.size)
        if report.forward_needed and not forward and not dry_run:
            raise StateError(
                f"the database has published {known_size} leaves, the log was shown with {head.size}: it was put back "
                "from a backup. Bring it forward with --forward, and read what that cannot bring back"
            )
        self._compare(report, known_size, write=not dry_run)
        if not dry_run:
            if report.leaves or report.forward_needed:
                self._rewrite(report, checkpoint if report.forward_needed else None, now_ms)
            report.written = report.differs
        return report

    def _verified(self) -> tuple[bytes, TreeHead]:
        checkpoint = Prover(self._tiles, self._log_id).checkpoint()
        return checkpoint, self._policy.verify(checkpoint).head

    def _require_sound(self, known: bytes | None) -> None:
        """Hash every bundle, and compare the tree with every checkpoint at hand."""
        others = [*self._other, *([] if known is None else [known])]
        auditor = Auditor(
            self._log_id,
            self._tiles,
            self._policy,
            other_checkpoints=others,
            depth=Depth.HASHES,
            progress=self._tell,
        )
        # INVARIANT 3: what is written is a function of the entries, and the entries are those that were signed.
        for finding in auditor.audit().findings:
            if finding.check not in _REPAIRABLE:
                where = f" ({finding.place})" if finding.place else ""
                raise VerificationError(f"nothing is rebuilt from this log: {finding.reason}{where}")

    # --- comparing

    def _compare(self, report: RebuildReport, known_size: int, *, write: bool) -> None:
        reader = BundleReader(self._tiles, self._log_id, report.head.size)
        sequenced = self._store.sequenced_size(self._log_id)
        report.forward_from = min(sequenced, report.head.size) if report.forward_needed else None
        edge = Edge()
        for number in range(-(-report.head.size // TILE_WIDTH)):
            entries = self._entries(reader, number)
            tiles = edge.extend([entry.leaf for _, entry in entries])
            self._compare_tiles(report, reader, [tile for tile in tiles if tile[0].full], write=write)
            self._compare_rows(report, entries, known_size, sequenced)
            self._tell(edge.size, report.head.size)
        if edge.root() != report.head.root:
            raise VerificationError("the entry bundles changed while they were read: nothing more is written")
        self._compare_tiles(report, reader, edge.partial_tiles(), write=write)

    def _entries(self, reader: BundleReader, number: int) -> list[tuple[int, PendingEntry]]:
        found = []
        for leaf, entry in enumerate(reader.bundle(number), number * TILE_WIDTH):
            try:
                record = decode_entry(entry)
            except MalformedError as error:
                raise VerificationError(f"nothing is rebuilt from this log: leaf {leaf} is no record") from error
            if record.log_id != self._log_id:
                raise VerificationError(f"nothing is rebuilt from this log: leaf {leaf} is of another log")
            found.append((leaf, PendingEntry(record, entry, hash_leaf(entry))))
        return found

    def _compare_tiles(
        self,
        report: RebuildReport,
        reader: BundleReader,
        expected: Iterable[tuple[TileCoordinate, bytes]],
        *,
        write: bool,
    ) -> None:
        for coordinate, data in expected:
            try:
                right = reader.tile(coordinate) == data
            except BAD:
                right = False
            if not right:
                report.tiles.append(coordinate.path)
                if write:
                    self._tiles.repair(self._log_id, coordinate.path, data)

    def _compare_rows(
        self, report: RebuildReport, entries: Sequence[tuple[int, PendingEntry]], known_size: int, sequenced: int
    ) -> None:
        start = entries[0][0]
        stored = self._catalog.rows(self._log_id, start, start + len(entries))
        for leaf, entry in entries:
            rows = stored.get(leaf)
            if rows is not None and _same(project(entry.record, leaf, entry.leaf), rows):
                continue
            if rows is not None and known_size <= leaf < sequenced and not _of(entry, rows["records"]):
                raise StateError(
                    f"the database has given leaf {leaf} to another record than was published there: two histories of "
                    "one log, and no rebuild joins them"
                )
            if leaf >= sequenced and report.forward_needed:
                report.lost_payloads += len(commitments(entry.record))
            report.add_leaf(leaf)

    # --- writing

    def _rewrite(self, report: RebuildReport, checkpoint: bytes | None, now_ms: int) -> None:
        reader = BundleReader(self._tiles, self._log_id, report.head.size)
        wanted = list(report.leaves)
        forward = None if checkpoint is None else (report.head.size, checkpoint)
        if forward is not None:
            # Entries behind the last full bundle are held for the next one, whether or not their rows are right.
            wanted = _with_tail(wanted, report.head.size)

        def entries() -> Iterator[tuple[int, PendingEntry]]:
            for part in wanted:
                for number in range(part.start // TILE_WIDTH, -(-part.stop // TILE_WIDTH)):
                    yield from (one for one in self._checked(reader, number) if one[0] in part)

        self._projection.rewrite(self._log_id, wanted, entries, forward=forward, now_ms=now_ms)

    def _checked(self, reader: BundleReader, number: int) -> list[tuple[int, PendingEntry]]:
        """Return the entries of a bundle; they must still be those of the tile that was compared before."""
        entries = self._entries(reader, number)
        tile = reader.tile(TileCoordinate(0, number, reader.width(number)))
        if tile != b"".join(entry.leaf for _, entry in entries):
            raise VerificationError("the entry bundles changed while they were read: nothing was written to the tables")
        return entries


def _same(made: dict[str, list[Row]], stored: object) -> bool:
    assert isinstance(stored, dict)
    for name in PROJECTED_TABLES:
        if len(made[name]) != len(stored[name]):
            return False
        for wanted, found in zip(made[name], stored[name], strict=True):
            if any(found.get(column) != value for column, value in wanted.items()):
                return False
    return True


def _of(entry: PendingEntry, rows: Sequence[Row]) -> bool:
    return not rows or rows[0].get("leaf_hash") == entry.leaf


def _with_tail(parts: Sequence[range], size: int) -> list[range]:
    """Return ascending ranges that hold all leaves of others and those behind the last full bundle."""
    tail = size // TILE_WIDTH * TILE_WIDTH
    before = [range(part.start, min(part.stop, tail)) for part in parts if part.start < tail]
    return before + ([range(tail, size)] if tail < size else [])
