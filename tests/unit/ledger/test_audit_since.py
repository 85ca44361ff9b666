"""Audits that go on where an earlier one stopped, of one log by several processes, and at each depth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ledger.audit_chunks import AuditSources, CheckedChunk, Chunk, ChunkSetup
from ledger.audit_report import AuditReport, Depth
from ledger.audit_state import AuditMemory
from ledger.audit_workers import InProcess, Processes
from ledger.auditor import Auditor
from ledger.bodies import Tombstone
from ledger.completeness import Verdict
from ledger.database import open_engine
from ledger.errors import ConflictError, StorageError
from ledger.records import decode_entry, encode_record
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.tiles import unpack_bundle
from tests.support.forge import write_bundle, write_log
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, pending


def beats(ledger: EmbeddedLedger, count: int, service: Enforcer | None = None) -> None:
    writer = service or ledger.service
    ledger.append(*(pending(writer.record(writer.heartbeat())) for _ in range(count)))


def introduced(ledger: EmbeddedLedger, enforcer_id: str, seed: int) -> Enforcer:
    gateway = Enforcer(enforcer_id, seed=seed, epoch=f"{seed:032x}")
    ledger.append(pending(ledger.service.record(ledger.service.introduction(gateway))))
    return gateway


def compromised(ledger: EmbeddedLedger, gateway: Enforcer, last_size: int) -> None:
    body = ledger.service.introduction(gateway)
    declared = {"action": "compromised", "public_key": None, "last_size": last_size}
    ledger.append(pending(ledger.service.record(body.__class__(**{**_fields(body), **declared}))))


def _fields(body: object) -> dict[str, object]:
    return {name: getattr(body, name) for name in body.__struct_fields__}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    """Return a log of 1,300 leaves: five full bundles and a part."""
    (tmp_path / "log").mkdir()
    with EmbeddedLedger(tmp_path / "log") as opened:
        opened.introduce()
        gateway = introduced(opened, "gateway-1", 11)
        beats(opened, 600)
        beats(opened, 98, gateway)
        opened.publish()
        beats(opened, 600, gateway)
        opened.publish()
        yield opened


def memory(ledger: EmbeddedLedger, depth: Depth = Depth.RECORDS) -> AuditMemory:
    return AuditMemory(ledger.root / "notes", LOG_ID, depth)


def since_last(ledger: EmbeddedLedger, depth: Depth = Depth.RECORDS, **changes: object) -> AuditReport:
    options = {"memory": memory(ledger, depth), "now_ms": NOW_MS, "catalog": ledger.catalog, "depth": depth, **changes}
    return Auditor(LOG_ID, ledger.tiles, ledger.policy, **options).audit()


def entire(ledger: EmbeddedLedger, depth: Depth = Depth.RECORDS) -> AuditReport:
    return Auditor(LOG_ID, ledger.tiles, ledger.policy, catalog=ledger.catalog, depth=depth).audit()


def change_entry(ledger: EmbeddedLedger, leaf: int) -> None:
    folder = ledger.root / "logs" / LOG_ID
    number, place = divmod(leaf, 256)
    path = folder / "tile" / "entries" / f"{number:03d}"
    entries = unpack_bundle(path.read_bytes(), 256)
    entries[place] = entries[place].replace(b'"time_ms":1', b'"time_ms":2')
    write_bundle(folder, entries, number)


# --- going on --------------------------------------------------------------------------------------------------------


def test_the_second_audit_reads_from_the_last_full_bundle_on_and_says_the_same(ledger):
    first = since_last(ledger)
    beats(ledger, 700)
    ledger.publish()
    second = since_last(ledger)
    whole = entire(ledger)
    assert [report.clean for report in (first, second, whole)] == [True, True, True]
    assert (first.read_from, second.read_from, whole.read_from) == (0, 1280, 0)
    assert second.head == whole.head
    assert second.streams == whole.streams
    assert second.notices == whole.notices
    assert second.checked["entries"] == 2000 - 1280
    assert [line for line in second.not_checked if line.startswith("leaves 0 to 1279")]


def test_an_audit_without_anything_new_reads_the_part_behind_the_last_full_bundle(ledger):
    since_last(ledger)
    again = since_last(ledger)
    assert again.clean
    assert again.checked["entries"] == 1300 - 1280
    assert again.streams == entire(ledger).streams


@pytest.mark.parametrize("depth", list(Depth))
def test_each_depth_remembers_by_itself(ledger, depth):
    assert since_last(ledger, depth).clean
    assert since_last(ledger, depth).read_from == 1280
    others = [other for other in Depth if other is not depth]
    assert [since_last(ledger, other).read_from for other in others] == [0, 0, 0]


def test_what_was_read_before_is_not_looked_at_again_and_that_is_said(ledger):
    # Pins what a memory costs: damage below it is found by the next full audit, or by whoever keeps no memory.
    since_last(ledger)
    change_entry(ledger, 700)
    again = since_last(ledger)
    assert again.clean
    assert any("nothing else was looked at again" in line for line in again.not_checked)
    assert {finding.leaf for finding in entire(ledger).findings if finding.check == "leaf"} == {700}


def test_after_a_finding_everything_is_read_again(ledger):
    since_last(ledger)
    beats(ledger, 700)
    ledger.publish()
    change_entry(ledger, 1500)
    assert {finding.leaf for finding in since_last(ledger).findings if finding.check == "leaf"} == {1500}
    again = since_last(ledger)
    assert again.read_from == 0
    assert {finding.leaf for finding in again.findings if finding.check == "leaf"} == {1500}


def test_a_record_that_stood_before_the_last_audit_and_stands_again_is_found(ledger):
    since_last(ledger)
    entries = list(ledger.prover.entries(0, 1300, 1300))
    folder = ledger.root / "logs" / LOG_ID
    write_log(folder, [*entries, entries[300]], ledger.signers, NOW_MS // 1000)
    report = since_last(ledger)
    assert report.read_from == 1280
    assert [(f.check, f.leaf, f.reason) for f in report.findings] == [
        ("record", 1300, "the record id stands at leaf 300 already")
    ]


def test_a_tree_that_does_not_extend_the_audited_one_is_found_though_it_is_signed(ledger):
    since_last(ledger)
    entries = list(ledger.prover.entries(0, 1300, 1300))
    record = decode_entry(entries[300])
    entries[300] = encode_record(ledger.service.record(record.body))
    write_log(ledger.root / "logs" / LOG_ID, entries, ledger.signers, NOW_MS // 1000)
    report = since_last(ledger)
    assert report.read_from == 0
    assert report.findings[0].check == "consistency"
    assert "not the one that was audited before" in report.findings[0].reason


def test_a_log_that_was_cut_short_since_the_last_audit_is_found(ledger):
    since_last(ledger)
    entries = list(ledger.prover.entries(0, 1200, 1300))
    write_log(ledger.root / "logs" / LOG_ID, entries, ledger.signers, NOW_MS // 1000)
    assert "consistency" in {finding.check for finding in since_last(ledger).findings}


def test_a_checkpoint_of_before_the_last_audit_is_compared_by_proof(ledger):
    since_last(ledger)
    honest = ledger.published_checkpoints()[0]
    entries = list(ledger.prover.entries(0, 500, 1300))
    entries[300] = encode_record(ledger.service.record(decode_entry(entries[300]).body))
    forged = write_log(ledger.root / "elsewhere", entries, ledger.signers, NOW_MS // 1000)
    assert since_last(ledger, other_checkpoints=[honest]).clean
    report = since_last(ledger, other_checkpoints=[honest, forged])
    assert report.read_from == 1280
    assert [(finding.check, finding.place) for finding in report.findings] == [("root", "checkpoint 500")]


def test_the_anchor_is_asked_for_what_is_beyond_the_last_audit(ledger):
    asked: list[int] = []

    def anchored(above: int) -> list[bytes]:
        asked.append(above)
        return []

    since_last(ledger, anchored_checkpoints=anchored)
    since_last(ledger, anchored_checkpoints=anchored)
    assert asked == [-1, 1280]


def test_a_silent_enforcer_of_before_the_last_audit_is_still_named(ledger):
    introduced(ledger, "gateway-9", 19)
    beats(ledger, 600)
    ledger.publish()
    since_last(ledger)
    beats(ledger, 600)
    ledger.publish()
    report = since_last(ledger)
    assert report.streams == entire(ledger).streams
    assert [stream.verdict for stream in report.streams if stream.enforcer_id == "gateway-9"] == [Verdict.TAIL_UNKNOWN]


def test_records_that_a_compromised_key_signed_are_counted_across_audits(ledger):
    gateway = introduced(ledger, "gateway-9", 19)
    beats(ledger, 300, gateway)
    compromised(ledger, gateway, 1400)
    beats(ledger, 600)
    ledger.publish()
    since_last(ledger)
    beats(ledger, 600)
    ledger.publish()
    report = since_last(ledger)
    assert report.read_from > 1602
    assert report.notices == entire(ledger).notices
    assert "it signed 201 records from leaf 1400 on" in report.notices[0].reason


def test_a_compromise_from_before_the_last_audit_has_everything_read_again(ledger):
    gateway = introduced(ledger, "gateway-9", 19)
    beats(ledger, 600, gateway)
    ledger.publish()
    since_last(ledger)
    compromised(ledger, gateway, 1400)
    beats(ledger, 600)
    ledger.publish()
    report = since_last(ledger)
    assert report.read_from == 0
    assert any("everything is read again" in notice.reason for notice in report.notices)
    assert any("it signed 501 records from leaf 1400 on" in notice.reason for notice in report.notices)


def test_the_tombstones_of_before_the_last_audit_are_remembered(ledger):
    tombstone = Tombstone(subject="7" * 32, payloads=0, reason="erasure", actor="4" * 32)
    ledger.append(pending(ledger.service.record(tombstone)))
    beats(ledger, 600)
    ledger.publish()
    since_last(ledger)
    kept = memory(ledger).load()
    assert kept is not None
    assert kept.buried == {"7" * 32: 1300}


# --- stopped in the middle -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Killed(InProcess):
    """Checks some chunks and is gone."""

    chunks: int = 2

    def check(self, setup: ChunkSetup, chunks: Iterator[Chunk]) -> Iterator[CheckedChunk]:
        for count, checked in enumerate(InProcess.check(self, setup, chunks)):
            if count == self.chunks:
                raise StorageError("killed")
            yield checked


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.auditor._CHUNK_BUNDLES", 1)
    monkeypatch.setattr("ledger.auditor._CHUNKS_PER_NOTE", 1)


@pytest.mark.usefixtures("small_chunks")
def test_an_audit_that_was_stopped_in_the_middle_goes_on(ledger):
    sources = AuditSources(tiles=ledger.tiles, catalog=ledger.catalog)
    with pytest.raises(StorageError):
        since_last(ledger, workers=Killed(sources))
    report = since_last(ledger)
    assert report.clean
    assert report.read_from == 512
    assert report.streams == entire(ledger).streams
    assert memory(ledger).load().finished


@pytest.mark.usefixtures("small_chunks")
def test_an_audit_that_was_stopped_behind_a_finding_begins_anew(ledger):
    change_entry(ledger, 100)
    with pytest.raises(StorageError):
        since_last(ledger, workers=Killed(AuditSources(tiles=ledger.tiles)))
    report = since_last(ledger)
    assert report.read_from == 0
    assert {finding.leaf for finding in report.findings if finding.check == "leaf"} == {100}


@pytest.mark.usefixtures("small_chunks")
def test_an_audit_that_was_stopped_behind_a_payload_without_a_key_begins_anew(ledger):
    """Whether a tombstone says so is known in the end alone: until then nothing behind it counts as audited."""
    leaf = ledger.decide()
    beats(ledger, 600)
    ledger.publish()
    destroy(ledger, leaf)
    options = {"depth": Depth.FULL, "vault": ledger.vault}
    sources = AuditSources(tiles=ledger.tiles, catalog=ledger.catalog, vault=ledger.vault)
    with pytest.raises(StorageError):
        since_last(ledger, workers=Killed(sources, 7), **options)
    report = since_last(ledger, **options)
    assert {finding.leaf for finding in report.findings} == {leaf}


def destroy(ledger: EmbeddedLedger, leaf: int) -> str:
    """Destroy the key of a decision's user, and return who that is."""
    user = ledger.reader.record(leaf).body.user
    keys = ledger.vault._keys
    keys.destroy(LOG_ID, {user: frozenset({keys.get(LOG_ID, user).key_id})})
    return user


@dataclass(frozen=True, slots=True)
class Erased(InProcess):
    """Destroys a user's key before the chunks are checked, and then says so, or does not."""

    ledger: EmbeddedLedger
    leaf: int
    told: bool

    def check(self, setup: ChunkSetup, chunks: Iterator[Chunk]) -> Iterator[CheckedChunk]:
        tombstone = Tombstone(subject=destroy(self.ledger, self.leaf), payloads=2, reason="erasure", actor="4" * 32)
        if self.told:
            self.ledger.append(pending(self.ledger.service.record(tombstone)))
        beats(self.ledger, 300)
        self.ledger.publish()
        yield from InProcess.check(self, setup, chunks)


@pytest.mark.parametrize("told", [True, False])
def test_what_is_erased_while_the_log_is_read_is_no_finding_if_the_log_says_so_since(ledger, told):
    leaf = ledger.decide()
    ledger.publish()
    sources = AuditSources(tiles=ledger.tiles, catalog=ledger.catalog, vault=ledger.vault)
    report = since_last(ledger, workers=Erased(sources, ledger, leaf, told), depth=Depth.FULL, vault=ledger.vault)
    assert {finding.leaf for finding in report.findings} == (set() if told else {leaf})
    assert report.checked["erased payloads"] == 2
    assert report.head.size == leaf + 1


# --- notes that are damaged or made up -------------------------------------------------------------------------------


def rewritten(ledger: EmbeddedLedger, **changes: object) -> None:
    notes = memory(ledger)
    state = notes.load()
    for name, value in changes.items():
        setattr(state, name, value)
    notes.save(state)


@pytest.mark.parametrize("damage", [b"", b"{}", b"not JSON", b"\xff", b"[" * 3000])
def test_damaged_notes_are_said_and_not_used(ledger, damage):
    since_last(ledger)
    memory(ledger).path.write_bytes(damage)
    report = since_last(ledger)
    assert report.clean
    assert report.read_from == 0
    assert any("the audit's notes are damaged" in notice.reason for notice in report.notices)


def test_a_flipped_bit_in_the_notes_is_noticed_by_their_digest(ledger):
    since_last(ledger)
    path = memory(ledger).path
    document = json.loads(path.read_text())
    document["state"]["simulated"] += 1
    path.write_text(json.dumps(document))
    report = since_last(ledger)
    assert report.read_from == 0
    assert any("their digest is another" in notice.reason for notice in report.notices)


def test_notes_of_another_log_are_not_used(ledger):
    since_last(ledger)
    rewritten(ledger, log_id="other")
    assert since_last(ledger).read_from == 0


def test_made_up_notes_of_another_tree_are_found(ledger):
    since_last(ledger)
    rewritten(ledger, root=bytes(32))
    report = since_last(ledger)
    assert report.findings[0].check == "consistency"


def test_made_up_notes_with_another_edge_do_not_lead_to_the_signed_root(ledger):
    since_last(ledger)
    rewritten(ledger, rows=[[bytes(32)] * 5])
    report = since_last(ledger)
    assert {finding.check for finding in report.findings} == {"root", "tile"}


def test_an_edge_that_does_not_fit_its_size_is_said_and_not_used(ledger):
    since_last(ledger)
    rewritten(ledger, rows=[[bytes(32)] * 4])
    report = since_last(ledger)
    assert report.clean
    assert report.read_from == 0


def test_a_list_of_record_ids_that_was_lost_is_said_and_everything_is_read(ledger):
    since_last(ledger)
    memory(ledger).ids_path.unlink()
    report = since_last(ledger)
    assert report.clean
    assert report.read_from == 0
    assert any("list 0 record ids of 1280" in notice.reason for notice in report.notices)


def test_a_list_of_record_ids_that_is_no_database_ends_the_audit(ledger):
    since_last(ledger)
    memory(ledger).ids_path.write_bytes(b"nothing that SQLite would read" * 100)
    with pytest.raises(StorageError, match="record ids"):
        since_last(ledger)


def test_two_audits_at_once_do_not_share_their_notes(ledger):
    with memory(ledger).held(), pytest.raises(ConflictError, match="another audit"):
        since_last(ledger)


# --- several processes -----------------------------------------------------------------------------------------------


def opened_sources(root: Path) -> AuditSources:
    return AuditSources(
        tiles=DirectoryTileStore(root / "logs"), catalog=SQLCatalog(open_engine(f"sqlite:///{root / 'ledger.db'}"))
    )


def unopened_sources() -> AuditSources:
    raise StorageError("the bucket does not answer")


@pytest.mark.usefixtures("small_chunks")
def test_several_processes_find_what_one_finds_in_the_same_order(ledger):
    for leaf in (1, 3, 300, 700, 1100):
        change_entry(ledger, leaf)
    (ledger.root / "logs" / LOG_ID / "tile" / "0" / "002").write_bytes(b"\0" * 8192)
    open_sources = partial(opened_sources, ledger.root)
    here = AuditSources(tiles=ledger.tiles, catalog=ledger.catalog)
    workers = Processes(count=2, open_sources=open_sources, here=here, few=0, niceness=1)
    options = {"catalog": ledger.catalog, "depth": Depth.FULL}
    apart = Auditor(LOG_ID, ledger.tiles, ledger.policy, workers=workers, **options).audit()
    alone = Auditor(LOG_ID, ledger.tiles, ledger.policy, **options).audit()
    assert len(alone.findings) > 256
    assert apart == alone


def test_sources_that_a_process_cannot_open_end_the_audit_without_a_verdict(ledger):
    here = AuditSources(tiles=ledger.tiles)
    workers = Processes(count=2, open_sources=unopened_sources, here=here, few=0)
    with pytest.raises(StorageError, match="does not answer"):
        Auditor(LOG_ID, ledger.tiles, ledger.policy, workers=workers).audit()


def test_a_bundle_that_cannot_be_read_ends_the_walk_in_several_processes_too(ledger):
    (ledger.root / "logs" / LOG_ID / "tile" / "entries" / "002").unlink()
    workers = Processes(
        count=2,
        open_sources=partial(opened_sources, ledger.root),
        here=AuditSources(tiles=ledger.tiles),
        few=0,
    )
    report = Auditor(LOG_ID, ledger.tiles, ledger.policy, workers=workers, depth=Depth.RECORDS).audit()
    assert [finding.place for finding in report.findings] == ["tile/entries/002"]
    assert any("leaves from 512 on" in line for line in report.not_checked)


# --- depths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "kinds"),
    [
        (Depth.HASHES, {"checkpoints", "roots", "tiles", "entries"}),
        (Depth.PROJECTION, {"checkpoints", "roots", "tiles", "entries", "projected rows"}),
        (Depth.RECORDS, {"checkpoints", "roots", "tiles", "entries", "record signatures"}),
        (Depth.FULL, {"checkpoints", "roots", "tiles", "entries", "record signatures", "projected rows", "payloads"}),
    ],
)
def test_each_depth_looks_at_what_it_says_and_tells_what_it_leaves_out(ledger, depth, kinds):
    ledger.decide()
    ledger.publish()
    report = Auditor(
        LOG_ID, ledger.tiles, ledger.policy, catalog=ledger.catalog, vault=ledger.vault, depth=depth
    ).audit()
    assert report.clean
    assert {kind for kind, count in report.checked.items() if count} == kinds
    assert report.not_checked == depth.left_out()
    assert bool(report.streams) is depth.checks_records


@pytest.mark.parametrize("depth", list(Depth))
def test_every_depth_finds_an_entry_that_was_changed(ledger, depth):
    change_entry(ledger, 700)
    assert {finding.leaf for finding in entire(ledger, depth).findings if finding.check == "leaf"} == {700}


def test_what_is_found_twice_leaves_no_copy_of_the_notes(ledger):
    change_entry(ledger, 700)
    since_last(ledger)
    assert not memory(ledger).path.exists()
    assert not memory(ledger).ids_path.exists()


def test_a_copy_of_the_log_is_audited_with_notes_of_its_own(ledger, tmp_path):
    shutil.copytree(ledger.root / "logs", tmp_path / "copies")
    tiles = DirectoryTileStore(tmp_path / "copies")
    notes = AuditMemory(tmp_path / "notes-elsewhere", LOG_ID, Depth.RECORDS)
    options = {"memory": notes, "depth": Depth.RECORDS, "now_ms": NOW_MS}
    reports = [Auditor(LOG_ID, tiles, ledger.policy, **options).audit() for _ in range(2)]
    assert [report.read_from for report in reports] == [0, 1280]
    assert reports[0].streams == reports[1].streams
