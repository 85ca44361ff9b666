"""Merkle trees: hashing, growing, inclusion and consistency.

Pure, standard library only.

Source: RFC 6962 section 2.1; RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from evidence.standalone.faults import FailedError, demand

__all__ = ["EMPTY_ROOT", "Tree", "check_extension", "check_inclusion", "leaf_hash"]

EMPTY_ROOT = hashlib.sha256().digest()
_HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry as a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows leaf by leaf; of it the roots of its perfect subtrees are kept, largest first."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Begin with a tree of some leaves.

        Raises:
            MalformedError: There are not as many perfect subtrees in a tree of that size.
        """
        self.size = size
        self.hashes = list(hashes)
        wanted = bin(size).count("1")
        demand(
            len(self.hashes) == wanted and all(len(one) == _HASH_BYTES for one in self.hashes),
            f"a tree of {size} leaves has {wanted} perfect subtrees",
        )

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        size = self.size
        while size & 1:
            leaf = _node(self.hashes.pop(), leaf)
            size >>= 1
        self.hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = _node(left, root)
        return root


def _check_hashes(path: Sequence[bytes]) -> None:
    demand(all(len(one) == _HASH_BYTES for one in path), "a proof holds something else than hashes", FailedError)


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash stands at an index of a tree.

    Raises:
        FailedError: The proof does not lead to the root.
    """
    demand(0 <= index < size, f"leaf {index} is not in a tree of {size}", FailedError)
    _check_hashes(path)
    node, position, last = leaf, index, size - 1
    for item in path:
        demand(last > 0, "the inclusion proof is longer than the tree is deep", FailedError)
        if position & 1 or position == last:
            node = _node(item, node)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            node = _node(node, item)
        position >>= 1
        last >>= 1
    demand(last == 0, "the inclusion proof is shorter than the tree is deep", FailedError)
    demand(node == root, f"leaf {index} is not in the tree", FailedError)


def check_extension(old: tuple[int, bytes], new: tuple[int, bytes], path: Sequence[bytes]) -> None:
    """Check that a tree begins with exactly the leaves of an older one.

    Args:
        old: Size and root of the older one, at least one leaf.
        new: Size and root of the newer one.
        path: The proof.

    Raises:
        FailedError: The proof does not lead to both roots.
    """
    (old_size, old_root), (new_size, new_root) = old, new
    demand(0 < old_size <= new_size, f"no consistency proof leads from {old_size} to {new_size}", FailedError)
    _check_hashes(path)
    if old_size == new_size:
        demand(not path and old_root == new_root, f"the trees of {old_size} leaves differ", FailedError)
        return
    hashes = list(path)
    if bin(old_size).count("1") == 1:
        hashes.insert(0, old_root)
    demand(bool(hashes), "the consistency proof is empty", FailedError)
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    one = two = hashes[0]
    for item in hashes[1:]:
        demand(last > 0, "the consistency proof is too long", FailedError)
        if position & 1 or position == last:
            one, two = _node(item, one), _node(item, two)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            two = _node(two, item)
        position >>= 1
        last >>= 1
    demand(last == 0, "the consistency proof is too short", FailedError)
    demand((one, two) == (old_root, new_root), "the newer tree does not extend the older one", FailedError)
