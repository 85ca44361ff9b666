"""What an attacker with write access writes: a log over entries of his choice, signed with the keys that he has."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ledger.checkpoints import Checkpoint
from ledger.merkle import hash_leaf
from ledger.notes import SignedNote
from ledger.ports import Signer
from ledger.tiles import BUNDLE_LEVEL, CHECKPOINT_PATH, TILE_WIDTH, Edge, TileCoordinate, pack_bundle
from tests.support.ledger import ORIGIN


def write_bundle(folder: Path, entries: Sequence[bytes], number: int = 0) -> None:
    """Put other entries into a bundle of a log's directory, and leave everything else as it is."""
    coordinate = TileCoordinate(BUNDLE_LEVEL, number, len(entries))
    _write(folder / coordinate.path, pack_bundle(entries))


def write_tree(folder: Path, entries: Sequence[bytes]) -> Edge:
    """Put a consistent tree over other entries into a log's directory; its checkpoint stays."""
    shutil.rmtree(folder / "tile", ignore_errors=True)
    for number in range(-(-len(entries) // TILE_WIDTH)):
        write_bundle(folder, entries[number * TILE_WIDTH : (number + 1) * TILE_WIDTH], number)
    edge = Edge()
    for coordinate, data in edge.extend(hash_leaf(entry) for entry in entries):
        _write(folder / coordinate.path, data)
    return edge


def write_log(folder: Path, entries: Sequence[bytes], signers: Sequence[Signer], timestamp_seconds: int) -> bytes:
    """Put a whole log over other entries into a log's directory, and return the checkpoint over it."""
    edge = write_tree(folder, entries)
    claim = Checkpoint(origin=ORIGIN, size=edge.size, root=edge.root())
    checkpoint = SignedNote(claim.body(), tuple(s.sign(claim, timestamp_seconds) for s in signers)).encode()
    _write(folder / CHECKPOINT_PATH, checkpoint)
    return checkpoint


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
