"""The integrator: sequenced entries become tiles and bundles.

It is the only writer of a log's tiles. What it writes is a function of the entries alone (invariant 3): written twice,
by two processes or after a crash, the same path gets the same bytes. Nothing it writes counts until `publisher` has
swapped a checkpoint that covers it.
"""

from __future__ import annotations

from functools import partial

from ledger.concurrent_puts import ConcurrentPuts
from ledger.errors import RootMismatchError, StateError
from ledger.merkle import RootHash, hash_leaf
from ledger.ports import TileStore
from ledger.proofs import TreeHead
from ledger.prover import Prover
from ledger.reader import EntryReader
from ledger.tiles import BUNDLE_LEVEL, TILE_WIDTH, Edge, TileCoordinate, pack_bundle

__all__ = ["Integrator"]


class Integrator:
    """Extends one log's tree. One task owns it; it is not safe for concurrent use."""

    def __init__(self, log_id: str, reader: EntryReader, tiles: TileStore, *, puts_at_once: int = 1) -> None:
        """Start with an empty tree; `load` takes up a published one.

        Args:
            log_id: Which log.
            reader: Of its entries.
            tiles: Where its tiles go.
            puts_at_once: How many of them are put at the same time, at most.
        """
        self._log_id = log_id
        self._reader = reader
        self._tiles = tiles
        self._puts_at_once = puts_at_once
        self._edge = Edge()
        self._bundle: list[bytes] = []

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return self._edge.size

    def root(self) -> RootHash:
        """Return the tree's root."""
        return self._edge.root()

    def load(self, head: TreeHead) -> None:
        """Take up a published tree from its tiles, and prove that they lead to its root.

        The entries of the last, partial bundle come from the log store, which holds them until the bundle is full; each
        must be the one that its tile commits to.

        Raises:
            RootMismatchError: The tiles or entries are damaged, or of another log: nothing may be published.
            NotFoundError: A tile or entry is missing.
            MalformedError: A tile is damaged.
            StorageError: A store failed.
        """
        rows = Prover(self._tiles, self._log_id).edge_rows(head.size)
        edge = Edge(head.size, rows)
        calculated = edge.root()
        if calculated != head.root:
            raise RootMismatchError(
                "the tiles do not lead to the checkpoint", expected=head.root, calculated=calculated
            )
        start = head.size // TILE_WIDTH * TILE_WIDTH
        bundle = list(self._reader.entries(start, head.size))
        # INVARIANT 1: what is written into the next bundle is what was published; the store forgets it afterwards.
        for index, (entry, leaf) in enumerate(zip(bundle, rows[0] if rows else (), strict=True), start):
            if hash_leaf(entry) != leaf:
                message = f"entry {index} is not the one that its tile commits to"
                raise RootMismatchError(message, expected=leaf, calculated=hash_leaf(entry))
        self._edge, self._bundle = edge, bundle

    def integrate(self, size: int) -> RootHash:
        """Extend the tree to ``size`` leaves and write every tile and bundle of the new size.

        All of them are durable when the call returns. When it raises, the tree is as it was; some files may have been
        written, and writing them again is harmless.

        Raises:
            StateError: ``size`` is smaller than the tree.
            StorageError: A store failed.
            ConflictError: Other bytes stand where a tile belongs: two trees, or damage. Publishing must stop.
        """
        if size < self.size:
            raise StateError(f"the tree has {self.size} leaves and cannot shrink to {size}")
        edge, bundle = self._edge.copy(), list(self._bundle)
        number = edge.size // TILE_WIDTH
        leaves = []
        with ConcurrentPuts(partial(self._tiles.put, self._log_id), at_once=self._puts_at_once) as files:
            for entry in self._reader.entries(edge.size, size):
                bundle.append(entry)
                leaves.append(hash_leaf(entry))
                if len(bundle) == TILE_WIDTH:
                    files.put(TileCoordinate(BUNDLE_LEVEL, number).path, pack_bundle(bundle))
                    bundle, number = [], number + 1
            if bundle and leaves:
                files.put(TileCoordinate(BUNDLE_LEVEL, number, len(bundle)).path, pack_bundle(bundle))
            for coordinate, data in edge.extend(leaves):
                files.put(coordinate.path, data)
        self._edge, self._bundle = edge, bundle
        return edge.root()
