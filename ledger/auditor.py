"""The auditor: re-read everything, re-derive everything, compare, and repair nothing.

`audit` walks a log once, bundle by bundle:

* every entry is hashed, and its hash compared with the level-0 tile: a difference names the leaf;
* every tile of the published size is built again from the entries and compared byte by byte;
* the root is compared with the checkpoint's, whose signatures are checked by a trust policy from outside;
* every entry must be a canonical record of this log with its enforcer's valid signature, by the keys that the log's own
  key records introduce; records of a key that was later declared compromised from before them are told apart;
* the published checkpoint must also be signed by keys that count for its size by the log's own key records;
* the rows of the SQL projection, if there is one, must be those that the entry makes;
* no record id stands twice;
* every vaulted payload, if the vault is at hand, must open its commitment, or its key must have been destroyed as a
  tombstone says;
* every other checkpoint at hand (anchored, kept, published before) must be signed, and its root must be the root that
  the same entries had at its size.

What was not looked at is said in the report. Several findings may have one cause. A *notice* is something that a reader
must know and nobody can put right: what was signed with a key before its compromise was noticed stands in the log for
good, and is no finding for good.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.bodies import Tombstone
from ledger.catalog import Catalog
from ledger.completeness import EnforcerStream, assess
from ledger.enrolments import Enrolments
from ledger.errors import ErasedError, MalformedError, NotFoundError, StateError, VerificationError
from ledger.keyring import Keyring
from ledger.merkle import CompactRange, LeafHash, RootHash, hash_leaf
from ledger.ports import TileStore
from ledger.projection import PROJECTED_TABLES, Row, project
from ledger.proofs import TreeHead
from ledger.prover import Prover
from ledger.records import Record, commitments, decode_entry
from ledger.tiles import BUNDLE_LEVEL, TILE_WIDTH, Edge, TileCoordinate, unpack_bundle, unpack_tile
from ledger.trust import TrustPolicy, VerifiedCheckpoint
from ledger.vault import Vault

__all__ = ["AuditReport", "Auditor", "Finding"]

_BAD: Final = (MalformedError, VerificationError, StateError)
"""What is wrong with the log. A store that cannot be read is not among it (invariant 9): it ends the audit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        check: Which check failed, such as ``leaf``, ``tile``, ``root``, ``record``, ``projection``, ``vault``.
        reason: One sentence, without any vaulted value.
        leaf: The leaf that it is about, or None.
        place: Path, table or checkpoint that it is about, or None.
    """

    check: str
    reason: str
    leaf: int | None = None
    place: str | None = None


@dataclass(slots=True, kw_only=True)
class AuditReport:
    """What an audit looked at and what it found.

    Attributes:
        log_id: Which log.
        head: The published head that was audited, or None if there is none.
        checked: Number of things checked, by kind.
        not_checked: What was not looked at, and why.
        findings: What is wrong; empty if nothing is.
        notices: What a reader must know though the log is as it must be.
        streams: Completeness of each enforcer's records.
    """

    log_id: str
    head: TreeHead | None = None
    checked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    not_checked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)
    streams: list[EnforcerStream] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Auditor:
    """Audits one log. Use an instance once."""

    def __init__(
        self,
        log_id: str,
        tiles: TileStore,
        policy: TrustPolicy,
        *,
        catalog: Catalog | None = None,
        vault: Vault | None = None,
        other_checkpoints: Iterable[bytes] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Prepare an audit.

        Args:
            log_id: Which log.
            tiles: Its tile store.
            policy: Whose signatures count; from outside the log.
            catalog: Its SQL projection, if that is to be compared.
            vault: Its vault, if payloads are to be opened.
            other_checkpoints: Checkpoints from anchors, from earlier publications or that somebody kept.
            progress: Called with leaves done and leaves in all.
        """
        self._log_id = log_id
        self._tiles = tiles
        self._prover = Prover(tiles, log_id)
        self._policy = policy
        self._catalog = catalog
        self._vault = vault
        self._other = list(other_checkpoints)
        self._progress = progress
        self._report = AuditReport(log_id=log_id)
        self._keyring = Keyring()
        self._enrolments = Enrolments()
        self._records: list[Record] = []
        self._leaf_of_id: dict[str, int] = {}
        self._erased: list[tuple[int, str, frozenset[str]]] = []
        self._wanted_roots: dict[int, list[VerifiedCheckpoint]] = defaultdict(list)
        self._published_by_checkpoint: dict[bytes, bool] = {}

    def audit(self) -> AuditReport:
        """Audit the published log.

        Raises:
            StorageError: A store could not be read; the audit is not finished and says nothing.
        """
        report = self._report
        if self._catalog is None:
            report.not_checked.append("the SQL projection: none was given")
        if self._vault is None:
            report.not_checked.append("vaulted payloads: no vault was given")
        verified = self._published()
        self._read_other_checkpoints()
        if verified is None:
            self._refuse_larger(0)
            return report
        report.head = verified.head
        self._wanted_roots[verified.head.size].append(verified)
        self._walk(verified.head)
        self._check_erasures()
        self._check_log_keys()
        self._note_compromises()
        self._note_simulation()
        report.streams = assess(self._records, enrolments=self._enrolments.all())
        return report

    def _find(self, check: str, reason: object, *, leaf: int | None = None, place: str | None = None) -> None:
        self._report.findings.append(Finding(check=check, reason=str(reason), leaf=leaf, place=place))

    def _published(self) -> VerifiedCheckpoint | None:
        try:
            data = self._prover.checkpoint()
            verified = self._policy.verify(data)
        except NotFoundError:
            self._report.not_checked.append("the tree: no checkpoint has been published")
            return None
        except _BAD as error:
            self._find("checkpoint", error, place="checkpoint")
            return None
        self._published_by_checkpoint[data] = True
        self._report.checked["checkpoints"] += 1
        return verified

    def _read_other_checkpoints(self) -> None:
        for data in self._other:
            try:
                verified = self._policy.verify(data)
            except _BAD as error:
                self._find("checkpoint", error, place="a kept checkpoint")
                continue
            self._wanted_roots[verified.head.size].append(verified)
            self._published_by_checkpoint.setdefault(data, False)
            self._report.checked["checkpoints"] += 1

    def _walk(self, head: TreeHead) -> None:
        tree, edge = CompactRange(), Edge()
        self._compare_roots(tree)
        for number in range(-(-head.size // TILE_WIDTH)):
            width = min(TILE_WIDTH, head.size - number * TILE_WIDTH)
            entries = self._bundle(number, width)
            if entries is None:
                self._report.not_checked.append(f"leaves from {number * TILE_WIDTH} on: a bundle cannot be read")
                return
            leaves = [hash_leaf(entry) for entry in entries]
            for leaf in leaves:
                tree.append(leaf)
                self._compare_roots(tree)
            self._compare_tiles(tile for tile in edge.extend(leaves) if tile[0].full)
            self._check_entries(number * TILE_WIDTH, entries, leaves)
            if self._progress is not None:
                self._progress(tree.size, head.size)
        self._compare_tiles(edge.partial_tiles())
        self._refuse_larger(head.size)

    def _refuse_larger(self, size: int) -> None:
        for known in sorted(known for known in self._wanted_roots if known > size):
            self._find("checkpoint", f"a checkpoint of {known} leaves is known, the log shows {size}")

    def _bundle(self, number: int, width: int) -> list[bytes] | None:
        coordinate = TileCoordinate(BUNDLE_LEVEL, number, width)
        try:
            return unpack_bundle(self._tiles.get(self._log_id, coordinate.path), width)
        except NotFoundError:
            pass
        except _BAD as error:
            self._find("bundle", error, place=coordinate.path)
            return None
        try:
            return self._prover.bundle(number, width)
        except _BAD as error:
            self._find("bundle", error, place=coordinate.path)
            return None

    def _compare_roots(self, tree: CompactRange) -> None:
        for verified in self._wanted_roots.get(tree.size, ()):
            calculated: RootHash = tree.root()
            self._report.checked["roots"] += 1
            if calculated != verified.head.root:
                self._find(
                    "root",
                    f"the entries lead to root {calculated.hex()}, the checkpoint says {verified.head.root.hex()}",
                    place=f"checkpoint {tree.size}",
                )

    def _compare_tiles(self, expected: Iterable[tuple[TileCoordinate, bytes]]) -> None:
        for coordinate, data in expected:
            try:
                stored = self._tile(coordinate)
            except _BAD as error:
                self._find("tile", error, place=coordinate.path)
                continue
            self._report.checked["tiles"] += 1
            if stored != data:
                self._find_tile(coordinate, stored, data)

    def _tile(self, coordinate: TileCoordinate) -> bytes:
        try:
            return self._tiles.get(self._log_id, coordinate.path)
        except NotFoundError:
            row = self._prover.tile_row(coordinate.level, coordinate.number, coordinate.width)
            return b"".join(row)

    def _find_tile(self, coordinate: TileCoordinate, stored: bytes, expected: bytes) -> None:
        try:
            pairs = zip(unpack_tile(stored, coordinate.width), unpack_tile(expected, coordinate.width), strict=True)
        except _BAD as error:
            self._find("tile", error, place=coordinate.path)
            return
        for position, (found, wanted) in enumerate(pairs):
            if found != wanted:
                index = coordinate.number * TILE_WIDTH + position
                if coordinate.level == 0:
                    self._find("leaf", "the entry's hash is not the one in the tile", leaf=index, place=coordinate.path)
                else:
                    self._find("tile", f"hash {position} is not the one that the entries make", place=coordinate.path)

    def _check_entries(self, start: int, entries: Sequence[bytes], leaves: Sequence[LeafHash]) -> None:
        rows: Mapping[int, Mapping[str, Sequence[Row]]] = {}
        if self._catalog is not None:
            rows = self._catalog.rows(self._log_id, start, start + len(entries))
        for index, (entry, leaf) in enumerate(zip(entries, leaves, strict=True), start):
            self._report.checked["entries"] += 1
            try:
                record = decode_entry(entry)
            except _BAD as error:
                self._find("record", error, leaf=index)
                continue
            self._check_record(index, record)
            if self._catalog is not None:
                self._check_projection(index, project(record, index, leaf), rows.get(index))
            if self._vault is not None:
                self._check_payloads(index, record, self._vault)

    def _check_record(self, index: int, record: Record) -> None:
        if record.log_id != self._log_id:
            self._find("record", f"the record is of the log {record.log_id}", leaf=index)
        try:
            self._keyring.check(index, record)
        except _BAD as error:
            self._find("record", error, leaf=index)
        else:
            self._report.checked["record signatures"] += 1
            self._enrolments.add(index, record)
        first = self._leaf_of_id.setdefault(record.record_id, index)
        if first != index:
            self._find("record", f"the record id stands at leaf {first} already", leaf=index)
        self._records.append(record)

    def _check_projection(
        self, index: int, expected: Mapping[str, Sequence[Row]], stored: Mapping[str, Sequence[Row]] | None
    ) -> None:
        if stored is None:
            self._find("projection", "the projection lacks this leaf", leaf=index, place="records")
            return
        for name in PROJECTED_TABLES:
            self._report.checked["projected rows"] += len(expected[name])
            if len(expected[name]) != len(stored[name]):
                reason = f"the projection has {len(stored[name])} rows, the entry makes {len(expected[name])}"
                self._find("projection", reason, leaf=index, place=name)
                continue
            for wanted, found in zip(expected[name], stored[name], strict=True):
                differing = sorted(column for column, value in wanted.items() if found.get(column) != value)
                if differing:
                    reason = f"the projection differs from the entry in {', '.join(differing)}"
                    self._find("projection", reason, leaf=index, place=name)

    def _check_payloads(self, index: int, record: Record, vault: Vault) -> None:
        for name in commitments(record):
            try:
                vault.open(record, name)
            except ErasedError as error:
                self._report.checked["erased payloads"] += 1
                self._erased.append((index, name, error.subjects))
            except (NotFoundError, VerificationError) as error:
                self._find("vault", error, leaf=index, place=name)
            else:
                self._report.checked["payloads"] += 1

    def _check_erasures(self) -> None:
        """A destroyed key without a tombstone is no erasure: somebody has made evidence unreadable unseen.

        A tombstone speaks of what stands before it: whoever was erased has a new key afterwards, and that is not gone.
        """
        buried: dict[str, int] = {}
        for record in self._records:
            if isinstance(record.body, Tombstone):
                buried[record.body.subject] = self._leaf_of_id[record.record_id]
        for index, name, subjects in self._erased:
            if not any(buried.get(subject, -1) > index for subject in subjects):
                self._find("vault", "the payload's key is gone and no tombstone says so", leaf=index, place=name)

    def _check_log_keys(self) -> None:
        """Verify every checkpoint once more, with what the log itself says about its keys.

        The published one must be signed by keys that count for its size. An older one that is not was signed before the
        end of a key was known; its root has been compared, so it does no harm, and it vouches for nothing any more.
        """
        narrowed = self._policy.narrowed(self._keyring.log_validity)
        for data, published in self._published_by_checkpoint.items():
            try:
                narrowed.verify(data)
            except _BAD as error:
                if published:
                    self._find("checkpoint", error, place="checkpoint")
                else:
                    self._report.notices.append(
                        Finding(check="checkpoint", reason=str(error), place="a kept checkpoint")
                    )

    def _note_compromises(self) -> None:
        for compromise in self._keyring.compromises:
            told = f"the {compromise.purpose} key {compromise.key_id} is declared compromised"
            later = self._keyring.leaves_after(compromise)
            signed = f"; it signed {len(later)} records from leaf {later[0]} on" if later else ""
            self._report.notices.append(
                Finding(check="key", reason=f"{told} since {compromise.since} leaves{signed}", leaf=compromise.leaf)
            )

    def _note_simulation(self) -> None:
        simulated = sum(record.simulated for record in self._records)
        if simulated:
            told = f"SIMULATED: {simulated} of {len(self._records)} records were made with demonstration keys or clocks"
            self._report.notices.append(Finding(check="simulated", reason=f"{told}; they are evidence of nothing real"))
