"""RFC 6962 tree hashing: leaf and node hashes, compact ranges, roots.

Pure. Proofs are in `proofs`, the layout in files in `tiles`.

A *compact range* is the shortest list of perfect subtrees that cover leaves ``[0, size)``: their roots, largest
(leftmost) first. It is all that must be kept to append leaves and to know the root, and it grows with log2 of the size.

Source: RFC 6962 section 2.1; RFC 9162 section 2.1.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NewType

from ledger.errors import MalformedError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "CompactRange",
    "LeafHash",
    "NodeHash",
    "RootHash",
    "hash_leaf",
    "hash_node",
    "root_of_leaves",
    "subtree_root",
]

LeafHash = NewType("LeafHash", bytes)
NodeHash = NewType("NodeHash", bytes)
RootHash = NewType("RootHash", bytes)

HASH_BYTES: Final = 32
_LEAF_PREFIX: Final = b"\x00"
_NODE_PREFIX: Final = b"\x01"

EMPTY_ROOT: Final = RootHash(hashlib.sha256(b"").digest())
"""Root of the tree without leaves: SHA-256 of no bytes."""


def hash_leaf(entry: bytes) -> LeafHash:
    """Return the 32-byte leaf hash of an entry: ``SHA-256(0x00 || entry)``."""
    return LeafHash(hashlib.sha256(_LEAF_PREFIX + entry).digest())


def hash_node(left: bytes, right: bytes) -> NodeHash:
    """Return the 32-byte interior hash: ``SHA-256(0x01 || left || right)``."""
    return NodeHash(hashlib.sha256(_NODE_PREFIX + left + right).digest())


def subtree_root(hashes: Sequence[bytes]) -> NodeHash:
    """Return the root of a perfect subtree.

    Args:
        hashes: The hashes of one level, 32 bytes each; their count is a power of two.

    Raises:
        MalformedError: The count is not a power of two.
    """
    if not hashes or len(hashes) & (len(hashes) - 1):
        raise MalformedError(f"a perfect subtree has a power of two of nodes, not {len(hashes)}")
    row = list(hashes)
    while len(row) > 1:
        row = [hash_node(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return NodeHash(row[0])


class CompactRange:
    """The perfect subtrees that cover leaves ``[0, size)``, growing to the right.

    Not safe for concurrent use: one task owns it.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Take up a range.

        Args:
            size: Leaves covered.
            hashes: One 32-byte root for each bit set in ``size``, largest subtree first.

        Raises:
            MalformedError: The hashes do not fit the size.
        """
        if size < 0 or len(hashes) != size.bit_count():
            raise MalformedError(f"a compact range of {size} leaves has {size.bit_count()} hashes, not {len(hashes)}")
        if any(len(item) != HASH_BYTES for item in hashes):
            raise MalformedError("a hash of a compact range is not 32 bytes")
        self._size = size
        self._hashes = [bytes(item) for item in hashes]

    @property
    def size(self) -> int:
        """Leaves covered."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._hashes)

    def copy(self) -> CompactRange:
        """Return an independent copy."""
        return CompactRange(self._size, self._hashes)

    def append(self, leaf: LeafHash) -> None:
        """Add one leaf on the right."""
        node: bytes = leaf
        # Each set low bit of the size is a subtree as large as the one in hand: join them, as a binary counter carries.
        carry = self._size
        while carry & 1:
            node = hash_node(self._hashes.pop(), node)
            carry >>= 1
        self._hashes.append(node)
        self._size += 1

    def extend(self, leaves: Iterable[LeafHash]) -> None:
        """Add leaves on the right, in order."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> RootHash:
        """Return the tree's root; `EMPTY_ROOT` for no leaves."""
        if not self._hashes:
            return EMPTY_ROOT
        node: bytes = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            node = hash_node(left, node)
        return RootHash(node)


def root_of_leaves(leaves: Iterable[LeafHash]) -> RootHash:
    """Return the RFC 6962 root over leaf hashes in order."""
    compact = CompactRange()
    compact.extend(leaves)
    return compact.root()
