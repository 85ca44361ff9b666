"""The tree as it grows: edge, compact range, tiles and proofs against the recursive definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.merkle import CompactRange, LeafHash, RootHash, root_of_leaves
from ledger.proofs import TreeHead, consistency_nodes, inclusion_nodes, verify_consistency, verify_inclusion
from ledger.tiles import Edge, TileCoordinate, hash_coordinate, partial_width, tile_coordinates, unpack_tile
from tests.conformance.reference.rfc6962 import NaiveTree

_LIMIT = 66_400
_TREE = NaiveTree([b"entry %d" % number for number in range(_LIMIT)])
_STARTS = (0, 200, 65_000)
"""Where a machine begins: at nothing, shortly before the first tile, shortly before the first tile of level 2."""


def _grown(size: int) -> tuple[Edge, dict[str, bytes]]:
    edge = Edge()
    leaves = [LeafHash(leaf) for leaf in _TREE.leaves[:size]]
    return edge, {tile.path: data for tile, data in edge.extend(leaves)}


_GROWN = {size: _grown(size) for size in _STARTS}


def _head(size: int) -> TreeHead:
    return TreeHead(size=size, root=RootHash(_TREE.root(size)))


class GrowingTree(RuleBasedStateMachine):
    """Batches of any length; the tree is put away and taken up again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.edge = Edge()
        self.range = CompactRange()
        self.files: dict[str, bytes] = {}

    @initialize(start=st.sampled_from(_STARTS))
    def begin(self, start: int) -> None:
        edge, files = _GROWN[start]
        self.size, self.edge, self.files = start, edge.copy(), dict(files)
        bits = [bit for bit in reversed(range(start.bit_length())) if start >> bit & 1]
        position, hashes = 0, []
        for bit in bits:
            hashes.append(_TREE.mth(position, position + (1 << bit)))
            position += 1 << bit
        self.range = CompactRange(start, hashes)

    @rule(count=st.integers(0, 3) | st.integers(0, 300))
    def append(self, count: int) -> None:
        batch = [LeafHash(leaf) for leaf in _TREE.leaves[self.size : min(self.size + count, _LIMIT)]]
        before = set(tile_coordinates(self.size))
        written = dict(self.edge.extend(batch))
        self.range.extend(batch)
        self.size += len(batch)
        assert set(tile_coordinates(self.size)) - before <= set(written)
        self.files |= {tile.path: data for tile, data in written.items()}

    @rule()
    def take_up_again_from_the_partial_tiles(self) -> None:
        rows = []
        level = 0
        while self.size >> 8 * level:
            width = partial_width(level, self.size)
            tile = TileCoordinate(level, self.size >> 8 * (level + 1), width)
            rows.append(unpack_tile(self.files[tile.path], width) if width else [])
            level += 1
        self.edge = Edge(self.size, rows)
        self.range = CompactRange(self.range.size, self.range.hashes)

    @rule()
    def go_on_with_copies(self) -> None:
        self.edge, self.range = self.edge.copy(), self.range.copy()

    @rule(data=st.data())
    def prove_a_leaf(self, data: st.DataObject) -> None:
        if self.size:
            size = data.draw(st.integers(1, self.size))
            index = data.draw(st.integers(0, size - 1))
            path = _TREE.inclusion(index, size)
            verify_inclusion(LeafHash(_TREE.leaves[index]), index, _head(size), path)

    @rule(data=st.data())
    def prove_an_older_tree(self, data: st.DataObject) -> None:
        old = data.draw(st.integers(0, self.size))
        verify_consistency(
            _head(old), TreeHead(size=self.size, root=self.edge.root()), _TREE.consistency(old, self.size)
        )

    @rule(data=st.data())
    def find_a_subtree_in_its_tile(self, data: st.DataObject) -> None:
        if self.size:
            level = data.draw(st.integers(0, self.size.bit_length() - 1))
            index = data.draw(st.integers(0, (self.size >> level) - 1))
            tile, first, last = hash_coordinate(level, index, self.size)
            row = unpack_tile(self.files[tile.path], tile.width)[first:last]
            span = (1 << level) // (last - first)
            start = index << level
            assert row == [_TREE.mth(start + i * span, start + (i + 1) * span) for i in range(last - first)]

    @invariant()
    def all_agree_on_size_and_root(self) -> None:
        assert self.edge.size == self.range.size == self.size
        assert self.edge.root() == self.range.root() == _TREE.root(self.size)

    @invariant()
    def every_tile_of_the_tree_is_there(self) -> None:
        assert all(self.files[tile.path] for tile in tile_coordinates(self.size))


TestGrowingTree = GrowingTree.TestCase
TestGrowingTree.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


@given(st.integers(0, 700))
def test_the_three_ways_to_a_root_agree(size) -> None:
    leaves = [LeafHash(leaf) for leaf in _TREE.leaves[:size]]
    compact, edge = CompactRange(), Edge()
    compact.extend(leaves)
    edge.extend(leaves)
    assert root_of_leaves(leaves) == compact.root() == edge.root() == _TREE.root(size)


_sizes = st.integers(1, 2**63 - 1) | st.integers(1, 300)


@given(_sizes, st.data())
def test_an_inclusion_proof_covers_all_but_its_leaf_exactly_once(size, data) -> None:
    index = data.draw(st.integers(0, size - 1))
    nodes = sorted((i << level, (i + 1) << level) for row in inclusion_nodes(index, size) for level, i in row)
    position = 0
    for start, end in nodes:
        position += position == index
        assert start == position
        position = end
    assert position + (position == index) == size


@given(_sizes, st.data())
def test_a_consistency_proof_covers_all_that_is_new_exactly_once_and_never_mixes_old_and_new(new, data) -> None:
    old = data.draw(st.integers(1, new))
    nodes = sorted((i << level, (i + 1) << level) for row in consistency_nodes(old, new) for level, i in row)
    assert all(end <= old or start >= old for start, end in nodes)
    position = old
    for start, end in nodes:
        if start >= old:
            assert start == position
            position = end
    assert new in {old, position}
