"""Tree hashing and compact ranges."""

from __future__ import annotations

import hashlib

import pytest

from ledger.errors import MalformedError
from ledger.merkle import EMPTY_ROOT, CompactRange, hash_leaf, hash_node, root_of_leaves, subtree_root
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.conformance.requirements import requirement

_ENTRIES = [b"entry %d" % number for number in range(40)]
_LEAVES = [hash_leaf(entry) for entry in _ENTRIES]
_TREE = NaiveTree(_ENTRIES)


@requirement("tree-01")
def test_a_leaf_is_hashed_behind_a_zero_byte() -> None:
    assert hash_leaf(b"") == hashlib.sha256(b"\x00").digest()
    assert hash_leaf(b"entry") == hashlib.sha256(b"\x00entry").digest()


@requirement("tree-02")
def test_a_node_is_hashed_behind_a_one_byte() -> None:
    assert hash_node(b"l" * 32, b"r" * 32) == hashlib.sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()


@requirement("tree-01", "tree-02")
def test_two_leaves_cannot_pass_for_an_entry() -> None:
    # Second preimage: without the prefixes, the concatenation of two hashes would be an entry with the same root.
    one, two = _LEAVES[:2]
    assert hash_leaf(one + two) != root_of_leaves([one, two])
    assert hash_leaf(b"\x01" + one + two) != root_of_leaves([one, two])


@requirement("tree-03")
def test_the_empty_tree_has_the_hash_of_nothing_for_its_root() -> None:
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT == root_of_leaves([]) == CompactRange().root()


def test_a_tree_of_one_leaf_has_the_leaf_for_its_root() -> None:
    assert root_of_leaves(_LEAVES[:1]) == _LEAVES[0]


class TestSubtreeRoot:
    @pytest.mark.parametrize("height", range(6))
    def test_a_perfect_subtree_has_the_recursive_root(self, height) -> None:
        assert subtree_root(_LEAVES[: 1 << height]) == _TREE.root(1 << height)

    @pytest.mark.parametrize("count", [0, 3, 5, 6, 7, 9, 31])
    def test_a_count_that_is_no_power_of_two_is_malformed(self, count) -> None:
        with pytest.raises(MalformedError, match=f"not {count}"):
            subtree_root(_LEAVES[:count])

    def test_the_hashes_that_were_given_stay_as_they_are(self) -> None:
        row = _LEAVES[:8]
        subtree_root(row)
        assert row == _LEAVES[:8]


class TestCompactRange:
    @pytest.mark.parametrize("size", range(len(_LEAVES) + 1))
    def test_it_has_the_recursive_root_and_one_hash_for_each_set_bit(self, size) -> None:
        compact = CompactRange()
        compact.extend(_LEAVES[:size])
        assert compact.root() == _TREE.root(size)
        assert compact.size == size
        assert len(compact.hashes) == size.bit_count()

    @pytest.mark.parametrize("size", range(len(_LEAVES)))
    def test_it_can_be_taken_up_again_at_any_size(self, size) -> None:
        first = CompactRange()
        first.extend(_LEAVES[:size])
        again = CompactRange(first.size, first.hashes)
        again.extend(_LEAVES[size:])
        assert again.root() == _TREE.root(len(_LEAVES))

    @pytest.mark.parametrize(
        ("size", "hashes"), [(-1, 0), (-1, 1), (-2, 1), (0, 1), (1, 0), (1, 2), (2, 2), (3, 1), (255, 7), (256, 8)]
    )
    def test_a_wrong_number_of_hashes_is_malformed(self, size, hashes) -> None:
        with pytest.raises(MalformedError):
            CompactRange(size, [b"\x00" * 32] * hashes)

    @pytest.mark.parametrize("bad", [b"", b"\x00" * 31, b"\x00" * 33])
    def test_a_hash_of_another_length_is_malformed(self, bad) -> None:
        with pytest.raises(MalformedError, match="32 bytes"):
            CompactRange(3, [b"\x00" * 32, bad])

    def test_a_copy_does_not_follow_its_original(self) -> None:
        compact = CompactRange()
        compact.extend(_LEAVES[:3])
        copied = compact.copy()
        compact.append(_LEAVES[3])
        assert (copied.size, copied.root()) == (3, _TREE.root(3))

    def test_the_hashes_that_it_shows_cannot_change_it(self) -> None:
        compact = CompactRange(1, [bytearray(_LEAVES[0])])
        assert isinstance(compact.hashes, tuple)
        assert isinstance(compact.hashes[0], bytes)
