"""The auditor: re-read everything, re-derive everything, compare, and repair nothing.

`Auditor` walks a log once, chunk by chunk of entry bundles, in this process or with several (`audit_workers`):

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
* every other checkpoint at hand (anchored, kept, published before) must be signed, by the policy or by keys that the
  log itself had at that size (`own_keys`), and its root must be the root that the same entries had then; one of a log
  that this one succeeds must agree with what this one commits to.

How much of it is done is the audit's *depth*. With a memory (`audit_state`) an audit goes on where an earlier one
stopped. What was not looked at is said in the report. Several findings may have one cause. A *notice* is something that
a reader must know and nobody can put right: what was signed with a key before its compromise was noticed stands in the
log for good, and is no finding for good.

What is checked within a chunk is in `audit_chunks`, what is found beforehand in `audit_keys`, the tree above the
bundles in `audit_tree`, what is said in the end in `audit_report`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from ledger.audit_chunks import (
    BAD,
    AuditSources,
    BundleReader,
    CheckedBundle,
    CheckedChunk,
    Chunk,
    ChunkSetup,
    compare_tile,
)
from ledger.audit_ids import RecordIds
from ledger.audit_keys import KeyRecords, find_key_records
from ledger.audit_progress import AuditProgress
from ledger.audit_report import AuditReport, Depth, Finding
from ledger.audit_state import AuditMemory, AuditState
from ledger.audit_workers import AuditWorkers, InProcess
from ledger.bodies import Succession
from ledger.catalog import Catalog
from ledger.completeness import assess_streams
from ledger.errors import MalformedError, NotFoundError, StateError, VerificationError
from ledger.keyring import Keyring
from ledger.merkle import RootHash, hash_leaf
from ledger.own_keys import recognise
from ledger.ports import TileStore
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.records import decode_entry
from ledger.succession import find_succession, verify_predecessor
from ledger.tiles import TILE_WIDTH, TileCoordinate
from ledger.trust import TrustPolicy, VerifiedCheckpoint
from ledger.vault import Vault

__all__ = ["Auditor"]

_CHUNK_BUNDLES: Final = 16
"""4,096 leaves: little enough to be joined often, much enough that sending them about costs nothing."""
_CHUNKS_PER_NOTE: Final = 32
"""Chunks after which a memory is written: what a killed audit reads again."""


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
        anchored_checkpoints: Callable[[int], Iterable[bytes]] | None = None,
        progress: Callable[[int, int], None] | None = None,
        depth: Depth = Depth.FULL,
        workers: AuditWorkers | None = None,
        memory: AuditMemory | None = None,
        now_ms: int = 0,
    ) -> None:
        """Prepare an audit.

        Args:
            log_id: Which log.
            tiles: Its tile store.
            policy: Whose signatures count; from outside the log.
            catalog: Its SQL projection, if that is to be compared.
            vault: Its vault, if payloads are to be opened.
            other_checkpoints: Checkpoints from earlier publications or that somebody kept.
            anchored_checkpoints: Returns those of more leaves than a number that an anchor keeps.
            progress: Called with leaves done and leaves in all.
            depth: How much of each entry is looked at.
            workers: Who looks at the entries; this process by itself if None. They have stores of their own.
            memory: Where this audit remembers how far it came, and goes on from; it reads everything if None.
            now_ms: The time, for the memory; POSIX milliseconds.
        """
        self._log_id = log_id
        self._sources = AuditSources(tiles=tiles, catalog=catalog, vault=vault)
        self._prover = Prover(tiles, log_id)
        self._policy = policy
        self._other = other_checkpoints
        self._anchored = anchored_checkpoints
        self._tell = progress
        self._depth = depth
        self._workers = workers or InProcess(self._sources)
        self._memory = memory
        self._now_ms = now_ms
        self._report = AuditReport(log_id=log_id, depth=depth)
        self._progress = AuditProgress()
        self._keys = KeyRecords()
        self._own_keys: KeyRecords | None = None
        self._erased: list[tuple[int, str, frozenset[str]]] = []
        self._wanted_roots: dict[int, list[tuple[bytes, VerifiedCheckpoint]]] = defaultdict(list)
        self._of_other_logs: list[VerifiedCheckpoint] = []
        self._met: dict[bytes, tuple[bool, TrustPolicy]] = {}
        """By checkpoint: whether it is the published one, and the policy that it met."""

    def audit(self) -> AuditReport:
        """Audit the published log.

        Raises:
            ConflictError: Another audit uses the same memory at this moment.
            StorageError: A store could not be read; the audit is not finished and says nothing.
        """
        with ExitStack() as stack:
            if self._memory is not None:
                stack.enter_context(self._memory.held())
            return self._audit()

    def _audit(self) -> AuditReport:
        report = self._report
        report.not_checked += self._depth.left_out()
        if self._sources.catalog is None and self._depth.checks_projection:
            report.not_checked.append("the SQL projection: none was given")
        if self._sources.vault is None and self._depth.opens_payloads:
            report.not_checked.append("vaulted payloads: no vault was given")
        verified = self._published()
        state = None if verified is None else self._take_up(verified.head)
        if verified is not None and self._progress.begun_ms is None:
            self._keys = self._find_keys(verified.head, 0)
        self._read_other_checkpoints(-1 if state is None else state.bundles * TILE_WIDTH, verified)
        if verified is None:
            self._refuse_larger(0)
            return report
        report.head = verified.head
        published = next(data for data, (is_published, _) in self._met.items() if is_published)
        self._wanted_roots[verified.head.size].append((published, verified))
        self._compare_earlier_roots(verified.head)
        note = self._walk(verified.head)
        self._check_erasures(verified.head)
        self._check_log_keys()
        self._check_succession(verified.head)
        self._note_compromises()
        self._note_simulation()
        if self._depth.checks_records:
            report.streams = assess_streams(
                self._progress.streams, enrolments=self._progress.enrolments(dict(self._keys.keys)).all()
            )
        self._remember_the_end(note)
        return report

    def _find(self, check: str, reason: object, *, leaf: int | None = None, place: str | None = None) -> None:
        self._report.findings.append(Finding(check=check, reason=str(reason), leaf=leaf, place=place))

    # --- checkpoints

    def _published(self) -> VerifiedCheckpoint | None:
        try:
            data = self._prover.checkpoint()
            verified = self._policy.verify(data)
        except NotFoundError:
            self._report.not_checked.append("the tree: no checkpoint has been published")
            return None
        except BAD as error:
            self._find("checkpoint", error, place="checkpoint")
            return None
        self._met[data] = (True, self._policy)
        self._report.checked["checkpoints"] += 1
        return verified

    def _read_other_checkpoints(self, above: int, published: VerifiedCheckpoint | None) -> None:
        anchored = () if self._anchored is None else self._anchored(above)
        for given in (self._other, anchored):
            for data in given:
                self._read_other_checkpoint(data, published)

    def _read_other_checkpoint(self, data: bytes, published: VerifiedCheckpoint | None) -> None:
        try:
            verified, policy = recognise(data, self._policy, lambda: self._keyring(published))
        except BAD as error:
            self._find("checkpoint", error, place="a kept checkpoint")
            return
        self._report.checked["checkpoints"] += 1
        if published is not None and verified.checkpoint.origin != published.checkpoint.origin:
            # It may be of the log that this one succeeds: a policy can name both.
            self._of_other_logs.append(verified)
            return
        self._wanted_roots[verified.head.size].append((data, verified))
        self._met.setdefault(data, (False, policy))

    def _keyring(self, published: VerifiedCheckpoint | None) -> Keyring:
        """Return what the published tree says of its keys, also at a depth that does not look at them otherwise."""
        if published is not None and self._own_keys is None:
            head = published.head
            self._own_keys = self._keys if self._depth.checks_records else self._look_for_keys(head, 0)
        return Keyring() if self._own_keys is None else self._own_keys.keyring

    def _refuse_larger(self, size: int) -> None:
        for known in sorted(known for known in self._wanted_roots if known > size):
            self._find("checkpoint", f"a checkpoint of {known} leaves is known, the log shows {size}")

    def _compare_earlier_roots(self, head: TreeHead) -> None:
        """Compare the roots of sizes whose entries are not read again: by a consistency proof, which is as good."""
        below = self._progress.tree.bundles * TILE_WIDTH
        for size in sorted(size for size in self._wanted_roots if 0 < size <= below):
            for data, verified in self._wanted_roots[size]:
                self._report.checked["roots"] += 1
                try:
                    verify_consistency(verified.head, head, self._prover.consistency(size, head.size))
                except BAD as error:
                    self._find("root", error, place=f"checkpoint {size}")
                    self._report.contradicting.append(data)

    # --- the memory

    def _take_up(self, head: TreeHead) -> AuditState | None:
        """Take up what is remembered, if it is of a tree that the published one extends."""
        if self._memory is None:
            return None
        try:
            state = self._memory.load()
            if state is None:
                self._memory.forget()
                return None
            known = self._known_keys(state, head)
            progress = AuditProgress.resumed(state)
            self._check_ids(state)
        except BAD as error:
            self._find_or_note_memory(error)
            self._memory.forget()
            return None
        keys = self._find_keys(head, state.bundles, known, state.buried)
        later = [one for one in keys.keyring.compromises if one.leaf >= state.bundles * TILE_WIDTH]
        if any(one.purpose == "enforcer" and one.since < state.bundles * TILE_WIDTH for one in later):
            self._note("a key was declared compromised from before the last audit: everything is read again")
            self._memory.forget()
            return None
        self._keys, self._progress = keys, progress
        self._report.read_from = state.bundles * TILE_WIDTH
        if state.bundles:
            self._report.not_checked.append(_as_audited(state))
        return state

    def _known_keys(self, state: AuditState, head: TreeHead) -> list[tuple[int, bytes]]:
        """Return the key records below, after proving that the tree that was audited is part of the published one."""
        verify_consistency(
            TreeHead(size=state.size, root=RootHash(state.root)),
            head,
            self._prover.consistency(state.size, head.size),
        )
        known = []
        for leaf in state.key_leaves:
            entry = self._prover.entry(leaf, head.size)
            path = self._prover.inclusion(leaf, head.size)
            verify_inclusion(self._prover.leaf(leaf, head.size), leaf, head, path)
            known.append((leaf, entry))
        return known

    def _check_ids(self, state: AuditState) -> None:
        assert self._memory is not None
        if not self._depth.checks_records:
            return
        ids = self._memory.record_ids()
        try:
            count = ids.count_below(state.bundles * TILE_WIDTH)
            if count != state.records:
                raise MalformedError(f"the audit's notes list {count} record ids of {state.records}")
            ids.forget_from(state.bundles * TILE_WIDTH)
        finally:
            ids.close()

    def _find_or_note_memory(self, error: Exception) -> None:
        if isinstance(error, MalformedError):
            self._note(f"{error}: everything is read again")
        else:
            self._find("consistency", f"the tree is not the one that was audited before: {error}")

    def _note(self, reason: str) -> None:
        self._report.notices.append(Finding(check="audit", reason=reason))

    def _snapshot(self, head: TreeHead) -> AuditState:
        return self._progress.state(
            log_id=self._log_id,
            depth=self._depth,
            now_ms=self._now_ms,
            head=head,
            key_leaves=[leaf for leaf, _ in self._keys.keys],
            buried=self._keys.buried,
        )

    def _remember(self, state: AuditState) -> None:
        # INVARIANT: only what is clean is remembered. After a finding the next audit reads everything again. A payload
        # without a key and without a tombstone so far may become one in the end, which this audit may not live to see.
        if self._memory is not None and not self._report.findings and not self._erased:
            self._memory.save(state)

    def _remember_the_end(self, note: AuditState | None) -> None:
        if self._memory is None:
            return
        if self._report.findings or note is None:
            self._memory.forget()
            return
        note.finished = True
        self._memory.save(note)

    # --- the walk

    def _find_keys(
        self,
        head: TreeHead,
        first: int,
        known: Iterable[tuple[int, bytes]] = (),
        buried: Mapping[str, int] = MappingProxyType({}),
    ) -> KeyRecords:
        if not self._depth.checks_records:
            return KeyRecords()
        return self._look_for_keys(head, first, known, buried)

    def _look_for_keys(
        self,
        head: TreeHead,
        first: int,
        known: Iterable[tuple[int, bytes]] = (),
        buried: Mapping[str, int] = MappingProxyType({}),
    ) -> KeyRecords:
        reader = BundleReader(self._sources.tiles, self._log_id, head.size)
        return find_key_records(reader, range(first, -(-head.size // TILE_WIDTH)), known, buried=buried)

    def _walk(self, head: TreeHead) -> AuditState | None:
        """Read every bundle, and return what is to be remembered, or None if one could not be read."""
        if self._progress.begun_ms is None:
            self._progress.begun_ms = self._now_ms
            self._compare_roots(0, 0, ())
        setup = ChunkSetup(
            log_id=self._log_id,
            size=head.size,
            depth=self._depth,
            key_records=tuple(self._keys.keys),
            watched=self._keys.watched(),
        )
        self._progress.watched = setup.watched
        reader = BundleReader(self._sources.tiles, self._log_id, head.size)
        chunks = self._chunks(head.size)
        with ExitStack() as stack:
            ids = RecordIds() if self._memory is None else self._memory.record_ids()
            stack.callback(ids.close)
            note = self._snapshot(head)
            checked = self._workers.check(setup, chunks)
            stack.callback(_closed, checked)
            for count, chunk in enumerate(checked, 1):
                self._join(chunk, head, reader, ids)
                if chunk.unreadable is not None:
                    return None
                whole = self._progress.tree.bundles == head.size // TILE_WIDTH
                # Not what is behind the last full bundle: it is read again once that is full.
                if chunk.bundles[-1].root is not None and (whole or count % _CHUNKS_PER_NOTE == 0):
                    note = self._snapshot(head)
                    self._remember(note)
        self._compare_tiles(reader, self._progress.tree.partial_tiles())
        self._refuse_larger(head.size)
        return note

    def _chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the chunks that are to be read; a bundle that is not full is one by itself, for it is read again."""
        full = size // TILE_WIDTH
        wanted = sorted(self._wanted_roots)
        bounds = [*range(self._progress.tree.bundles, full, _CHUNK_BUNDLES), full]
        if size % TILE_WIDTH:
            bounds.append(full + 1)
        for first, last in pairwise(bounds):
            between = slice(bisect_right(wanted, first * TILE_WIDTH), bisect_right(wanted, last * TILE_WIDTH))
            yield Chunk(first, last, tuple(wanted[between]))

    def _join(self, chunk: CheckedChunk, head: TreeHead, reader: BundleReader, ids: RecordIds) -> None:
        """Take in what a chunk came to; chunks come in order."""
        for name, count in chunk.checked.items():
            self._report.checked[name] += count
        for leaf, first in ids.add(chunk.record_ids):
            place = next(bundle for bundle in chunk.bundles if leaf // TILE_WIDTH == bundle.number)
            reason = f"the record id stands at leaf {first} already"
            place.findings.append(Finding(check="record", reason=reason, leaf=leaf))
        for bundle in chunk.bundles:
            self._join_bundle(bundle, reader)
            if self._tell is not None:
                self._tell(bundle.number * TILE_WIDTH + bundle.width, head.size)
        buried = self._keys.buried
        self._erased += [one for one in chunk.erased if not _is_buried(one[2], one[0], buried)]
        self._progress.join(chunk)
        if chunk.unreadable is not None:
            self._report.findings.append(chunk.unreadable)
            first = self._progress.tree.bundles * TILE_WIDTH
            self._report.not_checked.append(f"leaves from {first} on: a bundle cannot be read")

    def _join_bundle(self, bundle: CheckedBundle, reader: BundleReader) -> None:
        start = bundle.number * TILE_WIDTH
        for size, subtrees in bundle.subtrees.items():
            self._compare_roots(size, size - start, subtrees)
        if bundle.root is not None:
            self._report.findings += bundle.tile_findings
            self._compare_tiles(reader, self._progress.tree.add(bundle.root))
        self._report.findings += bundle.findings
        if bundle.root is None:
            self._report.findings += bundle.tile_findings

    def _compare_roots(self, size: int, further_leaves: int, subtrees: tuple[bytes, ...]) -> None:
        wanted = self._wanted_roots.get(size, ())
        if not wanted:
            return
        calculated = self._progress.tree.root(further_leaves, subtrees)
        for data, verified in wanted:
            self._report.checked["roots"] += 1
            if calculated != verified.head.root:
                self._report.contradicting.append(data)
                self._find(
                    "root",
                    f"the entries lead to root {calculated.hex()}, the checkpoint says {verified.head.root.hex()}",
                    place=f"checkpoint {size}",
                )

    def _compare_tiles(self, reader: BundleReader, expected: Iterable[tuple[TileCoordinate, bytes]]) -> None:
        for coordinate, data in expected:
            self._report.findings += compare_tile(reader, coordinate, data, self._report.checked)

    # --- what is said of the whole

    def _check_erasures(self, head: TreeHead) -> None:
        """A destroyed key without a tombstone is no erasure: somebody has made evidence unreadable unseen."""
        if not self._erased:
            return
        # What went while the log was read has its tombstone behind the tree that is audited.
        buried = self._buried_beyond(head)
        for index, name, subjects in self._erased:
            if not _is_buried(subjects, index, buried):
                self._find("vault", "the payload's key is gone and no tombstone says so", leaf=index, place=name)

    def _buried_beyond(self, head: TreeHead) -> dict[str, int]:
        """Return the tombstones of what was published since, as far as it extends the tree and holds them."""
        buried: dict[str, int] = {}
        try:
            newer = self._policy.verify(self._prover.checkpoint()).head
            verify_consistency(head, newer, self._prover.consistency(head.size, newer.size))
            reader = BundleReader(self._sources.tiles, self._log_id, newer.size)
            bundles = range(head.size // TILE_WIDTH, -(-newer.size // TILE_WIDTH))
            for subject, leaf in find_key_records(reader, bundles, ()).buried.items():
                entry = self._prover.entry(leaf, newer.size)
                verify_inclusion(hash_leaf(entry), leaf, newer, self._prover.inclusion(leaf, newer.size))
                buried[subject] = leaf
        except BAD:
            # Of what cannot be shown to be a part of the log nothing is believed; the next audit says what is wrong.
            return buried
        return buried

    def _check_log_keys(self) -> None:
        """Verify every checkpoint once more, with what the log itself says about its keys.

        The published one must be signed by keys that count for its size. An older one that is not was signed before the
        end of a key was known; its root has been compared, so it does no harm, and it vouches for nothing any more.
        """
        for data, (published, policy) in self._met.items():
            try:
                policy.narrowed(self._keys.keyring.log_validity).verify(data)
            except BAD as error:
                if published:
                    self._find("checkpoint", error, place="checkpoint")
                else:
                    self._report.notices.append(
                        Finding(check="checkpoint", reason=str(error), place="a kept checkpoint")
                    )

    def _check_succession(self, head: TreeHead) -> None:
        """Tell which log this one succeeds, and compare checkpoints of that one with what this one commits to."""
        if not (self._of_other_logs or self._depth.checks_records):
            return
        found = self._find_succession(head)
        if found is not None:
            leaf, told = found
            reason = (
                f"this log succeeds {told.origin} ({told.reason}): it commits to {told.size} leaves, root {told.root}"
            )
            self._report.notices.append(Finding(check="succession", reason=reason, leaf=leaf))
        for known in self._of_other_logs:
            place = f"checkpoint {known.head.size} of {known.checkpoint.origin}"
            if found is None:
                self._find("succession", "it is of another log, which this one does not succeed", place=place)
                continue
            try:
                verify_predecessor(found[1], known)
            except VerificationError as error:
                self._find("succession", error, place=place)
            except StateError as error:
                self._report.not_checked.append(str(error))

    def _find_succession(self, head: TreeHead) -> tuple[int, Succession] | None:
        try:
            return find_succession(lambda leaf: decode_entry(self._prover.entry(leaf, head.size)), head.size)
        except BAD:
            # Whoever checks the chunk in which it stands says so.
            return None

    def _note_compromises(self) -> None:
        for compromise in self._keys.keyring.compromises:
            told = f"the {compromise.purpose} key {compromise.key_id} is declared compromised"
            count, first = self._progress.signed.get(compromise.leaf, (0, 0))
            signed = f"; it signed {count} records from leaf {first} on" if count else ""
            self._report.notices.append(
                Finding(check="key", reason=f"{told} since {compromise.since} leaves{signed}", leaf=compromise.leaf)
            )

    def _note_simulation(self) -> None:
        simulated, records = self._progress.simulated, self._progress.records
        if simulated:
            told = f"SIMULATED: {simulated} of {records} records were made with demonstration keys or clocks"
            self._report.notices.append(Finding(check="simulated", reason=f"{told}; they are evidence of nothing real"))


def _is_buried(subjects: Iterable[str], leaf: int, buried: Mapping[str, int]) -> bool:
    """Whether a tombstone says why a payload of these subjects at a leaf cannot be opened.

    It speaks of what stands before it: whoever was erased has a new key afterwards, and that is not gone.
    """
    return any(buried.get(subject, -1) > leaf for subject in subjects)


def _closed(checked: Iterator[CheckedChunk]) -> None:
    # A generator that is left early ends its processes here, and not when somebody collects it.
    close = getattr(checked, "close", None)
    if close is not None:
        close()


def _as_audited(state: AuditState) -> str:
    day = datetime.fromtimestamp(state.audited_ms / 1000, UTC).isoformat(timespec="seconds")
    return (
        f"leaves 0 to {state.bundles * TILE_WIDTH - 1}, their rows and payloads: this installation audited them by "
        f"{day}, and they are part of the same tree; nothing else was looked at again"
    )
