"""Proofs from tiles: every one holds, or none is handed out."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import MalformedError, NotFoundError, ProofError, RootMismatchError, VerificationError
from ledger.merkle import CompactRange, hash_leaf
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.stores.directory import DirectoryTileStore
from ledger.tiles import Edge, bundle_coordinates, tile_coordinates
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending

SIZES = (1, 2, 3, 7, 8, 255, 256, 257, 300, 512, 513, 560)


class Log:
    def __init__(self, ledger: EmbeddedLedger) -> None:
        self.ledger = ledger
        self.entries: list[bytes] = []
        self.checkpoints: dict[int, bytes] = {}
        service = ledger.service
        for size in SIZES:
            batch = [pending(service.record(service.heartbeat())) for _ in range(size - len(self.entries))]
            ledger.append(*batch)
            self.entries += [entry.entry for entry in batch]
            self.checkpoints[size] = ledger.publish()

    def head(self, size: int) -> TreeHead:
        return parse_unverified_checkpoint(self.checkpoints[size]).claim.head


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """Return a log with checkpoints of several sizes, which tests only read."""
    with EmbeddedLedger(tmp_path_factory.mktemp("prover")) as ledger:
        yield Log(ledger)


@pytest.fixture
def copy(log: Log, tmp_path: Path) -> tuple[Path, Prover]:
    """Return a copy of the log's directory, for damaging, and its prover."""
    shutil.copytree(log.ledger.root / "logs", tmp_path / "logs")
    return tmp_path / "logs" / LOG_ID, Prover(DirectoryTileStore(tmp_path / "logs"), LOG_ID)


def flip(path: Path, position: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


# --- what holds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_is_proved_in_every_published_tree(log, size):
    prover = log.ledger.prover
    for index in {*range(0, size, 37), size - 1, size // 2, min(255, size - 1), min(256, size - 1)}:
        verify_inclusion(hash_leaf(log.entries[index]), index, log.head(size), prover.inclusion(index, size))


def test_every_two_published_trees_are_proved_consistent(log):
    for old, new in itertools.combinations(SIZES, 2):
        verify_consistency(log.head(old), log.head(new), log.ledger.prover.consistency(old, new))
    assert log.ledger.prover.consistency(300, 300) == ()
    assert log.ledger.prover.consistency(0, 300) == ()


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 560), (299, 300), (512, 513), (559, 560)])
def test_a_proof_file_convinces_whoever_has_the_entry_and_the_trust_policy(log, index, size):
    data = log.ledger.prover.proof_file(index, log.checkpoints[size]).encode()
    verified = verify_entry(log.entries[index], parse_proof_file(data), log.ledger.policy)
    assert verified.head == log.head(size)


def test_a_proof_file_convinces_nobody_of_another_entry(log):
    proof = log.ledger.prover.proof_file(5, log.checkpoints[300])
    with pytest.raises(VerificationError):
        verify_entry(log.entries[6], proof, log.ledger.policy)


def test_entries_are_read_in_any_published_tree(log):
    prover = log.ledger.prover
    for size in SIZES:
        assert list(prover.entries(0, size, size)) == log.entries[:size]
    assert list(prover.entries(254, 258, 560)) == log.entries[254:258]
    assert list(prover.entries(7, 7, 8)) == []
    assert prover.entry(559, 560) == log.entries[559]
    assert prover.leaf(559, 560) == hash_leaf(log.entries[559])


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_is_taken_up_from_its_tiles(log, size):
    prover = log.ledger.prover
    assert Edge(size, prover.edge_rows(size)).root() == log.head(size).root
    assert prover.compact_range(size).root() == log.head(size).root
    expected = CompactRange()
    expected.extend(hash_leaf(entry) for entry in log.entries[:size])
    assert prover.compact_range(size, tree_size=560).hashes == expected.hashes


def test_partial_tiles_may_be_collected_once_full_ones_exist(log, copy):
    folder, prover = copy
    collected = [partial for partial in folder.glob("tile/*/*.p") if partial.with_suffix("").exists()]
    assert sorted(str(partial.relative_to(folder)) for partial in collected) == [
        "tile/0/000.p",
        "tile/0/001.p",
        "tile/entries/000.p",
        "tile/entries/001.p",
    ]
    for partial in collected:
        shutil.rmtree(partial)
    for old, new in itertools.combinations(SIZES, 2):
        verify_consistency(log.head(old), log.head(new), prover.consistency(old, new))
    for size in SIZES:
        verify_inclusion(hash_leaf(log.entries[0]), 0, log.head(size), prover.inclusion(0, size))
        assert list(prover.entries(0, size, size)) == log.entries[:size]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("index", "size"), [(1, 1), (560, 560), (-1, 560), (0, 0), (10_000, 560)])
def test_a_leaf_outside_the_tree_has_no_proof(log, index, size):
    with pytest.raises(ProofError):
        log.ledger.prover.inclusion(index, size)
    with pytest.raises((ProofError, MalformedError)):
        log.ledger.prover.leaf(index, size)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (561, 560), (-1, 560)])
def test_no_proof_leads_back(log, old, new):
    with pytest.raises(ProofError):
        log.ledger.prover.consistency(old, new)


@pytest.mark.parametrize(("start", "end", "size"), [(-1, 1, 8), (3, 2, 8), (0, 9, 8)])
def test_a_range_outside_the_tree_has_no_entries(log, start, end, size):
    with pytest.raises(ProofError):
        list(log.ledger.prover.entries(start, end, size))


def test_a_tree_that_was_never_published_has_no_tiles(log):
    with pytest.raises(NotFoundError):
        log.ledger.prover.inclusion(561, 700)


def test_a_proof_file_is_not_made_for_a_leaf_that_its_checkpoint_does_not_cover(log):
    with pytest.raises(ProofError):
        log.ledger.prover.proof_file(300, log.checkpoints[300])


def test_a_proof_file_is_not_made_of_what_is_no_checkpoint(log):
    with pytest.raises(MalformedError):
        log.ledger.prover.proof_file(0, log.checkpoints[300][:40])


def test_a_proof_file_is_not_made_under_another_trees_checkpoint(log):
    text = log.checkpoints[300].replace(b"\n300\n", b"\n257\n", 1)
    with pytest.raises(RootMismatchError):
        log.ledger.prover.proof_file(0, text)


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/001", "tile/0/002.p/48", "tile/1/000.p/2"])
def test_a_proof_over_a_damaged_tile_is_not_handed_out(log, copy, path):
    folder, prover = copy
    flip(folder / path, 3)
    failed = 0
    for index in (1, 257, 559):
        try:
            proof = prover.proof_file(index, log.checkpoints[560])
        except RootMismatchError:
            failed += 1
        else:
            verify_entry(log.entries[index], proof, log.ledger.policy)
    assert failed


def test_a_proof_over_a_damaged_entry_is_not_handed_out(log, copy):
    folder, prover = copy
    flip(folder / "tile" / "entries" / "000", 10)
    with pytest.raises(RootMismatchError):
        prover.proof_file(0, log.checkpoints[560])
    prover.proof_file(1, log.checkpoints[560])


@pytest.mark.parametrize("path", ["tile/0/000", "tile/entries/000", "tile/1/000.p/2"])
def test_a_proof_over_a_missing_file_is_not_found(log, copy, path):
    folder, prover = copy
    (folder / path).unlink()
    with pytest.raises(NotFoundError):
        prover.proof_file(0, log.checkpoints[560])


@pytest.mark.parametrize("path", ["tile/0/000", "tile/entries/000", "tile/1/000.p/2"])
@pytest.mark.parametrize("cut", [0, 1, 33])
def test_a_proof_over_a_file_cut_short_is_malformed(log, copy, path, cut):
    folder, prover = copy
    (folder / path).write_bytes((folder / path).read_bytes()[:cut])
    with pytest.raises(MalformedError):
        prover.proof_file(0, log.checkpoints[560])


@pytest.mark.parametrize(("path", "index"), [("tile/0/000", 1), ("tile/entries/000", 0), ("tile/1/000.p/2", 257)])
def test_a_file_put_back_from_a_copy_is_taken_up(log, copy, path, index):
    folder, prover = copy
    flip(folder / path, 10)
    with pytest.raises(RootMismatchError):
        prover.proof_file(index, log.checkpoints[560])
    flip(folder / path, 10)
    proof = prover.proof_file(index, log.checkpoints[560])
    verify_entry(log.entries[index], proof, log.ledger.policy)


def test_no_file_is_read_twice_for_the_proofs_of_a_tree(log):
    reads = Counter[str]()

    class Counting(DirectoryTileStore):
        def get(self, log_id: str, path: str) -> bytes:
            reads[path] += 1
            return super().get(log_id, path)

    prover = Prover(Counting(log.ledger.root / "logs"), LOG_ID)
    for index in range(560):
        prover.proof_file(index, log.checkpoints[560])
    assert set(reads) == {coordinate.path for coordinate in (*tile_coordinates(560), *bundle_coordinates(560))}
    assert set(reads.values()) == {1}


def test_an_unpublished_log_has_no_checkpoint(log):
    with pytest.raises(NotFoundError):
        Prover(log.ledger.tiles, "other").checkpoint()
    assert log.ledger.prover.checkpoint() == log.checkpoints[560]
