"""Random proofs hold; with any one thing changed, they do not."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ledger.errors import ProofError, RootMismatchError, VerificationError
from ledger.merkle import LeafHash, RootHash
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.conformance.requirements import requirement

_LIMIT = 3_000
_TREE = NaiveTree([b"entry %d" % number for number in range(_LIMIT)])
_sizes = st.integers(1, 20) | st.integers(1, _LIMIT)


def flipped(data: st.DataObject, value: bytes) -> bytes:
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(len(value), "big")


def changed_path(data: st.DataObject, path: list[bytes]) -> list[bytes]:
    """Return the path with a flipped bit, a hash removed, doubled, cut, inserted, or two hashes swapped."""
    kinds = ["insert", *(["flip", "remove", "double", "cut"] if path else []), *(["swap"] if len(path) > 1 else [])]
    kind = data.draw(st.sampled_from(kinds))
    place = data.draw(st.integers(0, max(len(path) - 1, 0)))
    changed = path.copy()
    if kind == "insert":
        changed.insert(place, data.draw(st.binary(min_size=32, max_size=32)))
    elif kind == "flip":
        changed[place] = flipped(data, path[place])
    elif kind == "remove":
        del changed[place]
    elif kind == "double":
        changed.insert(place, path[place])
    elif kind == "cut":
        changed[place] = path[place][: data.draw(st.integers(0, 31))]
    else:
        other = data.draw(st.integers(0, len(path) - 1).filter(lambda index: index != place))
        changed[place], changed[other] = path[other], path[place]
    assume(changed != path)
    return changed


def head(size: int) -> TreeHead:
    return TreeHead(size=size, root=RootHash(_TREE.root(size)))


@requirement("tree-06")
@settings(max_examples=200)
@given(_sizes, st.data())
def test_an_inclusion_proof_with_one_change_fails(size, data) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, path = LeafHash(_TREE.leaves[index]), _TREE.inclusion(index, size)
    verify_inclusion(leaf, index, head(size), path)
    with pytest.raises((ProofError, RootMismatchError)):
        verify_inclusion(leaf, index, head(size), changed_path(data, path))
    with pytest.raises(RootMismatchError):
        verify_inclusion(LeafHash(flipped(data, leaf)), index, head(size), path)
    with pytest.raises(RootMismatchError):
        verify_inclusion(leaf, index, TreeHead(size=size, root=RootHash(flipped(data, _TREE.root(size)))), path)
    other_index = data.draw(st.integers(-5, size + 5) | st.integers())
    assume(other_index != index)
    with pytest.raises(VerificationError):
        verify_inclusion(leaf, other_index, head(size), path)
    other_size = data.draw(st.integers(0, _LIMIT))
    assume(other_size != size)
    with pytest.raises(VerificationError):
        verify_inclusion(leaf, index, head(other_size), path)


@requirement("tree-08")
@settings(max_examples=200)
@given(_sizes, st.data())
def test_a_consistency_proof_with_one_change_fails(new, data) -> None:
    old = data.draw(st.integers(1, new))
    path = _TREE.consistency(old, new)
    verify_consistency(head(old), head(new), path)
    with pytest.raises((ProofError, RootMismatchError)):
        verify_consistency(head(old), head(new), changed_path(data, path))
    with pytest.raises(RootMismatchError):
        verify_consistency(TreeHead(size=old, root=RootHash(flipped(data, _TREE.root(old)))), head(new), path)
    with pytest.raises(RootMismatchError):
        verify_consistency(head(old), TreeHead(size=new, root=RootHash(flipped(data, _TREE.root(new)))), path)
    first, second = data.draw(st.integers(1, _LIMIT)), data.draw(st.integers(1, _LIMIT))
    assume((first, second) != (old, new) and (first != second or path))
    with pytest.raises(VerificationError):
        verify_consistency(head(first), head(second), path)


@settings(max_examples=200)
@given(_sizes, _sizes, st.lists(st.binary(min_size=32, max_size=32), max_size=14), st.binary(min_size=32, max_size=32))
def test_invented_hashes_prove_nothing(one, other, path, root) -> None:
    old, new = min(one, other), max(one, other)
    with pytest.raises(VerificationError):
        verify_inclusion(LeafHash(root), old - 1, head(new), path)
    assume(old != new)
    with pytest.raises(VerificationError):
        verify_consistency(head(old), TreeHead(size=new, root=RootHash(root)), path)
