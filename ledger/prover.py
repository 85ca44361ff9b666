"""Proofs for a record or between sizes, built from tiles.

Whatever is read here comes from the tile store alone, so that a proof can be built from a copy of the log's directory
as well as by the service. Reads are not verified against the checkpoint as they are made; the proofs that result are,
by whoever checks them, and `Prover.proof_file` checks its own before it hands it out.

A proof takes its hashes from all heights within a tile. A tile's inner hashes are therefore calculated once, when it is
read for the first proof, and kept with it: what stands at the path of a tile, full or partial, never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.equivocation import PrefixEvidence
from ledger.errors import MalformedError, NotFoundError, ProofError, RootMismatchError
from ledger.merkle import HASH_BYTES, CompactRange, LeafHash, hash_leaf, hash_node
from ledger.ports import TileStore
from ledger.proof_files import ProofFile
from ledger.proofs import consistency_nodes, fold_nodes, inclusion_nodes, range_nodes, verify_inclusion
from ledger.tiles import (
    BUNDLE_LEVEL,
    CHECKPOINT_PATH,
    TILE_WIDTH,
    TileCoordinate,
    hash_coordinate,
    pack_bundle,
    pack_tile,
    partial_width,
    unpack_bundle,
    unpack_tile,
)

__all__ = ["Prover"]

_CACHED_TILES: Final = 256
"""With their inner hashes, 16 KiB each."""
_CACHED_BUNDLES: Final = 32
"""A quarter of a MiB each, where entries have a thousand bytes."""


def _heights(row: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return, height by height, the hashes of the perfect subtrees in a tile: at height 0 the tile's own."""
    heights = [b"".join(row)]
    while len(row) > 1:
        row = [hash_node(left, right) for left, right in zip(row[::2], row[1::2], strict=False)]
        heights.append(b"".join(row))
    return tuple(heights)


class Prover:
    """Reads one log's published tiles and bundles; safe for any thread."""

    def __init__(self, tiles: TileStore, log_id: str) -> None:
        """Read from a tile store."""
        self._tiles = tiles
        self._log_id = log_id
        self._known_heights = lru_cache(maxsize=_CACHED_TILES)(self._read_heights)
        self._known_entries = lru_cache(maxsize=_CACHED_BUNDLES)(self._read_entries)

    def _read(self, coordinate: TileCoordinate) -> tuple[bytes, int]:
        """Return a tile's or bundle's bytes and their true width, falling back from a partial to the full one."""
        try:
            return self._tiles.get(self._log_id, coordinate.path), coordinate.width
        except NotFoundError:
            if coordinate.full:
                raise
            # A partial may be collected once its full tile exists (tlog-tiles, "Partial Tiles").
            full = TileCoordinate(coordinate.level, coordinate.number)
            return self._tiles.get(self._log_id, full.path), TILE_WIDTH

    def _read_row(self, coordinate: TileCoordinate) -> list[bytes]:
        return unpack_tile(*self._read(coordinate))[: coordinate.width]

    def _read_heights(self, coordinate: TileCoordinate) -> tuple[bytes, ...]:
        return _heights(self._read_row(coordinate))

    def _read_entries(self, coordinate: TileCoordinate) -> list[bytes]:
        return unpack_bundle(*self._read(coordinate))[: coordinate.width]

    def _forget(self) -> None:
        self._known_heights.cache_clear()
        self._known_entries.cache_clear()

    def checkpoint(self) -> bytes:
        """Return the exposed checkpoint's bytes.

        Raises:
            NotFoundError: Nothing has been published.
        """
        return self._tiles.get(self._log_id, CHECKPOINT_PATH)

    def tile_row(self, level: int, number: int, width: int) -> list[bytes]:
        """Return the first ``width`` hashes of a tile, as the store has them now.

        Raises:
            NotFoundError: The store has no such tile.
            MalformedError: The tile's bytes have the wrong length.
        """
        return self._read_row(TileCoordinate(level, number, width))

    def file(self, coordinate: TileCoordinate) -> bytes:
        """Return the bytes of a tile or bundle; of a collected partial, those that stood there.

        Raises:
            NotFoundError: There is no such file, and no full one that it would be the beginning of.
            MalformedError: The full one that stands in for it is damaged.
        """
        data, width = self._read(coordinate)
        if width == coordinate.width:
            return data
        if coordinate.level == BUNDLE_LEVEL:
            return pack_bundle(unpack_bundle(data)[: coordinate.width])
        return pack_tile(unpack_tile(data)[: coordinate.width])

    def bundle(self, number: int, width: int = TILE_WIDTH) -> list[bytes]:
        """Return the first ``width`` entries of a bundle.

        Raises:
            NotFoundError: The store has no such bundle.
            MalformedError: The bundle's bytes are not ``width`` entries.
        """
        return list(self._known_entries(TileCoordinate(BUNDLE_LEVEL, number, width)))

    def entries(self, start: int, end: int, size: int) -> Iterator[bytes]:
        """Yield the entries ``[start, end)`` of a tree of ``size`` leaves, in order.

        Raises:
            ProofError: The range does not lie in the tree.
            NotFoundError: A bundle is missing.
            MalformedError: A bundle is damaged.
        """
        if not 0 <= start <= end <= size:
            raise ProofError(f"entries {start} to {end} are not in a tree of {size}")
        for number in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            first = number * TILE_WIDTH
            width = min(TILE_WIDTH, size - first)
            yield from self.bundle(number, width)[max(start - first, 0) : end - first]

    def entry(self, index: int, size: int) -> bytes:
        """Return one entry; see `entries`."""
        return next(self.entries(index, index + 1, size))

    def _node(self, level: int, index: int, size: int) -> bytes:
        coordinate, first, last = hash_coordinate(level, index, size)
        span = last - first
        hashes = self._known_heights(coordinate)[span.bit_length() - 1]
        start = first // span * HASH_BYTES
        return hashes[start : start + HASH_BYTES]

    def _path(self, nodes: Sequence[Sequence[tuple[int, int]]], size: int) -> tuple[bytes, ...]:
        return tuple(fold_nodes([self._node(level, index, size) for level, index in group]) for group in nodes)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return the inclusion proof of a leaf in a tree of ``size`` leaves, leaf sibling first.

        Raises:
            ProofError: The leaf does not lie in the tree.
            NotFoundError: A tile is missing.
            MalformedError: A tile is damaged.
        """
        return self._path(inclusion_nodes(index, size), size)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the consistency proof from ``old`` to ``new`` leaves.

        Raises:
            ProofError: ``old`` exceeds ``new``.
            NotFoundError: A tile is missing.
            MalformedError: A tile is damaged.
        """
        return self._path(consistency_nodes(old, new), new)

    def compact_range(self, size: int, *, tree_size: int | None = None) -> CompactRange:
        """Return the perfect subtrees that cover the first ``size`` leaves.

        Args:
            size: Leaves to cover.
            tree_size: Size of the tree whose tiles are read; at least ``size``, which is the default.
        """
        wanted = [self._node(level, index, tree_size or size) for level, index in range_nodes(0, size)]
        return CompactRange(size, wanted)

    def prefix(self, size: int, tree_size: int) -> PrefixEvidence:
        """Return how a tree begins: the root of its first ``size`` leaves, and that it is their root.

        Raises:
            ProofError: ``size`` exceeds ``tree_size``.
            NotFoundError: A tile is missing.
            MalformedError: A tile is damaged.
        """
        path = self.consistency(size, tree_size)
        return PrefixEvidence(root=self.compact_range(size, tree_size=tree_size).root(), path=path)

    def edge_rows(self, size: int) -> list[list[bytes]]:
        """Return the rows from which a `ledger.tiles.Edge` of ``size`` leaves is taken up again."""
        rows: list[list[bytes]] = []
        level = 0
        while size >> (8 * level):
            width = partial_width(level, size)
            number = size >> (8 * (level + 1))
            rows.append(self.tile_row(level, number, width) if width else [])
            level += 1
        return rows

    def proof_file(self, index: int, checkpoint: bytes) -> ProofFile:
        """Return a leaf's proof file under a published checkpoint, after checking that the proof holds.

        Raises:
            MalformedError: Not a checkpoint, or a damaged tile.
            ProofError: The checkpoint does not cover the leaf.
            RootMismatchError: The tiles do not lead to the checkpoint's root: they are damaged.
            NotFoundError: A tile or bundle is missing.
        """
        head = parse_unverified_checkpoint(checkpoint).claim.head
        path = self.inclusion(index, head.size)
        try:
            verify_inclusion(self.leaf(index, head.size), index, head, path)
        except RootMismatchError:
            # What is damaged may be put back from a copy: it must not be remembered.
            self._forget()
            raise
        return ProofFile(index=index, path=path, checkpoint=checkpoint)

    def leaf(self, index: int, size: int) -> LeafHash:
        """Return the hash of the entry at ``index``, calculated from the entry itself."""
        if not 0 <= index < size:
            raise MalformedError(f"leaf {index} is not in a tree of {size}")
        return hash_leaf(self.entry(index, size))
