"""Inclusion and consistency proofs of small trees, every one of them, and every way in which one can be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ledger.errors import ProofError, RootMismatchError, VerificationError
from ledger.merkle import EMPTY_ROOT, LeafHash, RootHash
from ledger.proofs import (
    TreeHead,
    consistency_nodes,
    fold_nodes,
    inclusion_nodes,
    range_nodes,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
)
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.conformance.requirements import requirement

_LIMIT = 40
_TREE = NaiveTree([b"entry %d" % number for number in range(_LIMIT)])


def head(size: int) -> TreeHead:
    return TreeHead(size=size, root=RootHash(_TREE.root(size)))


def leaf(index: int) -> LeafHash:
    return LeafHash(_TREE.leaves[index])


def folded(nodes: Sequence[Sequence[tuple[int, int]]]) -> list[bytes]:
    return [fold_nodes([_TREE.mth(i << level, (i + 1) << level) for level, i in row]) for row in nodes]


def damaged(path: list[bytes]) -> Iterator[list[bytes]]:
    """Yield every path that differs from ``path`` in one place."""
    for position, item in enumerate(path):
        yield [*path[:position], item[:-1] + bytes([item[-1] ^ 1]), *path[position + 1 :]]
        yield [*path[:position], bytes([item[0] ^ 0x80]) + item[1:], *path[position + 1 :]]
        yield [*path[:position], *path[position + 1 :]]
        yield [*path[:position], item, *path[position:]]
        yield [*path[:position], b"", *path[position + 1 :]]
        yield [*path[:position], item[:-1], *path[position + 1 :]]
        yield [*path[:position], item + b"\x00", *path[position + 1 :]]
        if position and path[position - 1] != item:
            yield [*path[: position - 1], item, path[position - 1], *path[position + 1 :]]
    yield [*path, b"\x00" * 32]
    yield [b"\x00" * 32, *path]
    if len(path) > 1:
        yield path[::-1]


class TestInclusion:
    @requirement("tree-04", "tree-05", "tree-06")
    @pytest.mark.parametrize("size", range(1, _LIMIT + 1))
    def test_every_leaf_of_every_small_tree_is_proved_as_the_rfc_defines(self, size) -> None:
        for index in range(size):
            path = folded(inclusion_nodes(index, size))
            assert path == _TREE.inclusion(index, size)
            verify_inclusion(leaf(index), index, head(size), path)
            assert root_from_inclusion(leaf(index), index, size, path) == _TREE.root(size)

    @requirement("tree-06")
    @pytest.mark.parametrize("size", range(1, _LIMIT + 1))
    def test_a_leaf_does_not_stand_at_any_other_index(self, size) -> None:
        for index in range(size):
            path = _TREE.inclusion(index, size)
            for other in [*range(index), *range(index + 1, size + 3), -1, 1 << 63]:
                with pytest.raises(VerificationError):
                    verify_inclusion(leaf(index), other, head(size), path)

    @requirement("tree-06")
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 11, 32, 33, 40])
    def test_a_damaged_path_proves_nothing(self, size) -> None:
        for index in range(size):
            for path in damaged(_TREE.inclusion(index, size)):
                with pytest.raises((ProofError, RootMismatchError)):
                    verify_inclusion(leaf(index), index, head(size), path)

    @requirement("tree-06")
    @pytest.mark.parametrize("size", [2, 3, 7, 8, 11, 32, 33, 40])
    def test_another_leaf_root_or_size_is_refused(self, size) -> None:
        for index in range(size):
            path = _TREE.inclusion(index, size)
            with pytest.raises(RootMismatchError) as caught:
                verify_inclusion(LeafHash(b"\x00" * 32), index, head(size), path)
            assert caught.value.expected == _TREE.root(size)
            with pytest.raises(RootMismatchError):
                verify_inclusion(leaf(index), index, TreeHead(size=size, root=EMPTY_ROOT), path)
            with pytest.raises(RootMismatchError):
                verify_inclusion(leaf(index), index, TreeHead(size=size, root=RootHash(b"")), path)

    @requirement("tree-06")
    def test_no_proof_of_one_size_holds_for_the_root_of_another(self) -> None:
        for size in range(1, _LIMIT):
            for index in range(size):
                path = _TREE.inclusion(index, size)
                for claimed in (size - 1, size + 1):
                    with pytest.raises(VerificationError):
                        verify_inclusion(leaf(index), index, head(claimed), path)

    @pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (5, 3), (0, -1)])
    def test_a_leaf_outside_the_tree_has_no_proof(self, index, size) -> None:
        with pytest.raises(ProofError, match="is not in a tree"):
            inclusion_nodes(index, size)
        with pytest.raises(ProofError, match="is not in a tree"):
            root_from_inclusion(leaf(0), index, size, [])

    @pytest.mark.parametrize("bad", [b"", b"\x00" * 31, b"\x00" * 33])
    def test_a_leaf_hash_of_another_length_is_refused(self, bad) -> None:
        # 64 bytes here could otherwise pass for two siblings.
        with pytest.raises(ProofError, match="leaf hash"):
            root_from_inclusion(LeafHash(bad), 0, 1, [])

    def test_a_path_that_is_too_long_or_short_says_so(self) -> None:
        path = _TREE.inclusion(2, 7)
        with pytest.raises(ProofError, match="longer"):
            root_from_inclusion(leaf(2), 2, 7, [*path, b"\x00" * 32])
        with pytest.raises(ProofError, match="shorter"):
            root_from_inclusion(leaf(2), 2, 7, path[:-1])

    def test_an_inner_node_cannot_be_proved_as_a_leaf(self) -> None:
        # Dropping the lowest level of an honest proof proves a node: the size fixes the depth and refuses it.
        node = LeafHash(_TREE.mth(0, 2))
        with pytest.raises(ProofError, match="shorter"):
            verify_inclusion(node, 0, head(8), _TREE.inclusion(0, 8)[1:])


class TestConsistency:
    @requirement("tree-07", "tree-08")
    @pytest.mark.parametrize("new", range(_LIMIT + 1))
    def test_every_pair_of_small_trees_is_proved_as_the_rfc_defines(self, new) -> None:
        for old in range(new + 1):
            path = folded(consistency_nodes(old, new))
            assert path == _TREE.consistency(old, new)
            verify_consistency(head(old), head(new), path)

    @requirement("tree-08")
    @pytest.mark.parametrize("new", [2, 3, 7, 8, 11, 32, 33, 40])
    def test_a_damaged_path_proves_nothing(self, new) -> None:
        for old in range(1, new):
            for path in damaged(_TREE.consistency(old, new)):
                with pytest.raises((ProofError, RootMismatchError)):
                    verify_consistency(head(old), head(new), path)

    @requirement("tree-08")
    @pytest.mark.parametrize("new", [2, 3, 7, 8, 11, 32, 33, 40])
    def test_either_root_changed_is_refused(self, new) -> None:
        for old in range(1, new):
            path = _TREE.consistency(old, new)
            with pytest.raises(RootMismatchError):
                verify_consistency(TreeHead(size=old, root=RootHash(b"\x00" * 32)), head(new), path)
            with pytest.raises(RootMismatchError, match="new root"):
                verify_consistency(head(old), TreeHead(size=new, root=RootHash(b"\x00" * 32)), path)

    @requirement("tree-08")
    def test_a_proof_does_not_hold_for_neighbouring_sizes(self) -> None:
        for new in range(2, _LIMIT):
            for old in range(1, new):
                path = _TREE.consistency(old, new)
                for first, second in ((old - 1, new), (old + 1, new), (old, new - 1), (old, new + 1)):
                    if path or first not in (0, second):
                        with pytest.raises(VerificationError):
                            verify_consistency(head(first), head(second), path)

    @requirement("tree-09")
    @pytest.mark.parametrize("size", [0, 1, 2, 7, 40])
    def test_equal_sizes_need_equal_roots_and_an_empty_path(self, size) -> None:
        verify_consistency(head(size), head(size), [])
        with pytest.raises(RootMismatchError):
            verify_consistency(head(size), TreeHead(size=size, root=RootHash(b"\x00" * 32)), [])
        with pytest.raises(ProofError, match="must be empty"):
            verify_consistency(head(size), head(size), [b"\x00" * 32])

    @requirement("tree-09")
    @pytest.mark.parametrize("new", [1, 2, 7])
    def test_an_empty_old_tree_needs_the_empty_root_and_an_empty_path(self, new) -> None:
        verify_consistency(head(0), head(new), [])
        with pytest.raises(RootMismatchError):
            verify_consistency(TreeHead(size=0, root=RootHash(b"\x00" * 32)), head(new), [])
        with pytest.raises(ProofError, match="must be empty"):
            verify_consistency(head(0), head(new), [_TREE.root(new)])

    @pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 0), (-1, 1), (-5, -5), (-2, 0)])
    def test_a_shrinking_tree_or_a_negative_size_has_no_proof(self, old, new) -> None:
        # A negative old size once read as a power of two, so that any root was consistent with itself.
        one = RootHash(b"\x01" * 32)
        with pytest.raises(ProofError, match="no consistency proof"):
            consistency_nodes(old, new)
        with pytest.raises(ProofError, match="no consistency proof"):
            verify_consistency(TreeHead(size=old, root=one), TreeHead(size=new, root=one), [])

    def test_an_empty_path_between_two_sizes_is_refused(self) -> None:
        for old, new in ((3, 7), (4, 7), (4, 8), (1, 2)):
            with pytest.raises(ProofError):
                verify_consistency(head(old), head(new), [])

    def test_a_path_that_is_too_long_or_short_says_so(self) -> None:
        path = _TREE.consistency(3, 7)
        with pytest.raises(ProofError, match="longer"):
            verify_consistency(head(3), head(7), [*path, b"\x00" * 32])
        with pytest.raises(ProofError, match="shorter"):
            verify_consistency(head(3), head(7), path[:-1])


class TestNodes:
    @pytest.mark.parametrize(
        ("start", "end", "nodes"),
        [
            (0, 0, []),
            (0, 1, [(0, 0)]),
            (0, 8, [(3, 0)]),
            (0, 7, [(2, 0), (1, 2), (0, 6)]),
            (4, 7, [(1, 2), (0, 6)]),
            (8, 13, [(2, 2), (0, 12)]),
        ],
    )
    def test_a_range_is_covered_by_the_largest_subtrees_from_the_left(self, start, end, nodes) -> None:
        assert range_nodes(start, end) == nodes

    def test_the_nodes_of_a_range_cover_it_once_and_in_order(self) -> None:
        for end in range(_LIMIT):
            covered = [i for level, index in range_nodes(0, end) for i in range(index << level, (index + 1) << level)]
            assert covered == list(range(end))

    def test_a_row_of_nothing_cannot_be_folded(self) -> None:
        with pytest.raises(ProofError, match="nothing to fold"):
            fold_nodes([])

    def test_a_proof_is_logarithmic_in_the_largest_tree(self) -> None:
        size = 2**63 - 1
        assert len(inclusion_nodes(0, size)) == 63
        assert len(consistency_nodes(size - 2, size)) <= 64
