"""The tree above the entry bundles, built anew from the roots of the bundles.

Pure. A full bundle of 256 entries is one node of level 1, so that what is left of a log of any size is 256 times
smaller: its tiles from level 1 upward, and its root at any size.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.merkle import CompactRange, NodeHash, RootHash
from ledger.tiles import TILE_WIDTH, Edge, TileCoordinate

__all__ = ["BundleTree"]


class BundleTree:
    """A tree whose leaves are the roots of full bundles, in order. One task owns it."""

    def __init__(self, bundles: int = 0, rows: Sequence[Sequence[bytes]] = ()) -> None:
        """Take up a tree.

        Args:
            bundles: Full bundles in it.
            rows: As `rows` gave them.

        Raises:
            MalformedError: The rows do not fit.
        """
        self._edge = Edge(bundles, rows)

    @property
    def bundles(self) -> int:
        """Full bundles in the tree."""
        return self._edge.size

    @property
    def rows(self) -> list[list[bytes]]:
        """For each level from 1 on the hashes of its partial tile, from which the tree is taken up again."""
        return self._edge.rows

    def add(self, root: NodeHash) -> list[tuple[TileCoordinate, bytes]]:
        """Add a full bundle by its root, and return the full tiles above level 0 that it completes."""
        # In this tree the root of a bundle is what a leaf hash is in the log's own: level 1 there is level 0 here.
        tiles = self._edge.extend([root])  # type: ignore[list-item]  # a node of level 1 stands for a leaf
        return [(_above(coordinate), data) for coordinate, data in tiles if coordinate.full]

    def partial_tiles(self) -> list[tuple[TileCoordinate, bytes]]:
        """Return the partial tiles above level 0, level by level upward."""
        return [(_above(coordinate), data) for coordinate, data in self._edge.partial_tiles()]

    def root(self, further_leaves: int = 0, subtrees: Sequence[bytes] = ()) -> RootHash:
        """Return the root of the log's tree over the full bundles and some leaves behind them.

        Args:
            further_leaves: How many leaves behind them, up to 256.
            subtrees: The perfect subtrees that cover those leaves, largest first.
        """
        covered = self._edge.compact_range()
        if further_leaves == TILE_WIDTH:
            covered.append(subtrees[0])  # type: ignore[arg-type]  # the root of one bundle, as in `add`
            return covered.root()
        size = self.bundles * TILE_WIDTH + further_leaves
        return CompactRange(size, [*covered.hashes, *subtrees]).root()


def _above(coordinate: TileCoordinate) -> TileCoordinate:
    return TileCoordinate(coordinate.level + 1, coordinate.number, coordinate.width)
