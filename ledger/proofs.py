"""Inclusion and consistency proofs: which nodes they need, and how they are checked.

Pure. Building is split in two so that no store is needed here: `inclusion_nodes` and `consistency_nodes` say which
perfect subtrees a proof consists of; the caller (`prover`) looks their hashes up in tiles; ragged right edges are
folded with `fold_nodes`.

Checking follows RFC 9162 to the letter; a proof that is too long, too short, or leads elsewhere raises.

Source: RFC 9162 sections 2.1.3 and 2.1.4 (the same proofs as RFC 6962).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.errors import ProofError, RootMismatchError
from ledger.merkle import EMPTY_ROOT, HASH_BYTES, LeafHash, RootHash, hash_node

__all__ = [
    "Node",
    "TreeHead",
    "consistency_nodes",
    "fold_nodes",
    "inclusion_nodes",
    "range_nodes",
    "root_from_inclusion",
    "verify_consistency",
    "verify_inclusion",
]

Node = tuple[int, int]
"""A perfect subtree: ``(level, index)`` covers leaves ``[index * 2**level, (index + 1) * 2**level)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """A tree's size in leaves and its 32-byte root."""

    size: int
    root: RootHash


def range_nodes(start: int, end: int) -> list[Node]:
    """Return the perfect subtrees that cover leaves ``[start, end)``, left to right.

    Args:
        start: First leaf; a multiple of the largest power of two not above ``end - start``, as in every RFC 6962 split.
        end: One past the last leaf.
    """
    nodes: list[Node] = []
    while start < end:
        size = 1 << ((end - start).bit_length() - 1)
        level = size.bit_length() - 1
        nodes.append((level, start >> level))
        start += size
    return nodes


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (``size`` > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_nodes(index: int, size: int) -> list[list[Node]]:
    """Say which subtrees an inclusion proof holds.

    Args:
        index: Zero-based leaf index, below ``size``.
        size: Tree size in leaves.

    Returns:
        One list for each hash of the proof, leaf sibling first. A list of several subtrees is one hash: their fold.

    Raises:
        ProofError: The index lies outside the tree.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    path: list[list[Node]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_nodes(middle, end))
            end = middle
        else:
            path.append(range_nodes(start, middle))
            start = middle
    path.reverse()
    return path


def consistency_nodes(old: int, new: int) -> list[list[Node]]:
    """Say which subtrees a consistency proof from ``old`` to ``new`` holds.

    Returns:
        One list for each hash, in the order of RFC 9162; empty for equal sizes and for ``old`` = 0.

    Raises:
        ProofError: ``old`` exceeds ``new``, or either is negative.
    """
    if not 0 <= old <= new:
        raise ProofError(f"no consistency proof leads from size {old} to size {new}")
    if old in (0, new):
        return []
    path: list[list[Node]] = []
    start, end = 0, new
    # INVARIANT: start < old <= end. Every subtree to the right of the old tree is a hash of its own.
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(range_nodes(middle, end))
            end = middle
        else:
            path.append(range_nodes(start, middle))
            start = middle
    if start != 0:
        path.append(range_nodes(start, end))
    path.reverse()
    return path


def fold_nodes(hashes: Sequence[bytes]) -> bytes:
    """Return the one hash that a row of adjacent perfect subtrees, left to right and shrinking, makes.

    Raises:
        ProofError: The row is empty.
    """
    if not hashes:
        raise ProofError("nothing to fold")
    node = hashes[-1]
    for left in reversed(hashes[:-1]):
        node = hash_node(left, node)
    return node


def _check_lengths(path: Sequence[bytes]) -> None:
    for position, item in enumerate(path):
        if len(item) != HASH_BYTES:
            raise ProofError(f"hash {position} of the proof has {len(item)} bytes, not {HASH_BYTES}")


def root_from_inclusion(leaf: LeafHash, index: int, size: int, path: Sequence[bytes]) -> RootHash:
    """Return the root that an inclusion proof leads to.

    Args:
        leaf: Leaf hash, 32 bytes.
        index: Zero-based leaf index.
        size: Tree size in leaves.
        path: Sibling hashes, leaf to root.

    Raises:
        ProofError: Wrong number or length of hashes, or index out of range.

    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    if len(leaf) != HASH_BYTES:
        raise ProofError(f"the leaf hash has {len(leaf)} bytes, not {HASH_BYTES}")
    _check_lengths(path)
    node: bytes = leaf
    position, last = index, size - 1
    for item in path:
        if last == 0:
            raise ProofError("the inclusion proof is longer than the tree is deep")
        if position & 1 or position == last:
            node = hash_node(item, node)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            node = hash_node(node, item)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("the inclusion proof is shorter than the tree is deep")
    return RootHash(node)


def verify_inclusion(leaf: LeafHash, index: int, head: TreeHead, path: Sequence[bytes]) -> None:
    """Check that ``leaf`` stands at ``index`` in the tree ``head`` commits to.

    ``head`` is taken as true; checking its signatures is the caller's part.

    Args:
        leaf: RFC 6962 leaf hash, 32 bytes.
        index: Zero-based, 0 <= index < head.size.
        head: Tree size in leaves and 32-byte root.
        path: Sibling hashes, leaf to root; at most ceil(log2(size)) of 32 bytes.

    Raises:
        ProofError: Wrong number or length of hashes, or index out of range.
        RootMismatchError: The path leads to another root.

    Source: RFC 9162 section 2.1.3.2.
    """
    calculated = root_from_inclusion(leaf, index, head.size, path)
    if calculated != head.root:
        raise RootMismatchError(f"leaf {index} is not in the tree", expected=head.root, calculated=calculated)


def verify_consistency(old: TreeHead, new: TreeHead, path: Sequence[bytes]) -> None:
    """Check that the tree of ``new`` begins with exactly the leaves of ``old``.

    Both heads are taken as true; checking their signatures is the caller's part.

    Args:
        old: The earlier head.
        new: The later head.
        path: Hashes in the order of RFC 9162; empty for equal sizes and for an empty old tree.

    Raises:
        ProofError: Wrong number or length of hashes, ``old`` larger than ``new``, or a negative size.
        RootMismatchError: The path leads to another old or new root.

    Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 <= old.size <= new.size:
        raise ProofError(f"no consistency proof leads from size {old.size} to size {new.size}")
    _check_lengths(path)
    if old.size in (0, new.size):
        if path:
            raise ProofError("the consistency proof must be empty")
        for head in (old, new):
            expected = EMPTY_ROOT if head.size == 0 else old.root
            if head.size == old.size and head.root != expected:
                raise RootMismatchError(f"the trees of size {old.size} differ", expected=head.root, calculated=expected)
        return
    old_root, new_root = _roots_from_consistency(old, new.size, path)
    if old_root != old.root:
        raise RootMismatchError("the proof leads to another old root", expected=old.root, calculated=old_root)
    if new_root != new.root:
        raise RootMismatchError("the proof leads to another new root", expected=new.root, calculated=new_root)


def _roots_from_consistency(old: TreeHead, new_size: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the two roots that a consistency proof leads to (RFC 9162 section 2.1.4.2, steps 1 to 6)."""
    hashes = list(path)
    if old.size.bit_count() == 1:
        # The old tree is itself a perfect subtree of the new one: its root opens the path.
        hashes.insert(0, old.root)
    if not hashes:
        raise ProofError("the consistency proof is empty")
    position, last = old.size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old_node = new_node = hashes[0]
    for item in hashes[1:]:
        if last == 0:
            raise ProofError("the consistency proof is longer than the tree is deep")
        if position & 1 or position == last:
            old_node = hash_node(item, old_node)
            new_node = hash_node(item, new_node)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            new_node = hash_node(new_node, item)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("the consistency proof is shorter than the tree is deep")
    return old_node, new_node
