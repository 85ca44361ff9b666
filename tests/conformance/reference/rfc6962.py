"""RFC 6962 section 2.1, read aloud: the recursive definitions and nothing else.

It shares no code with `ledger` and is slow on purpose; subtree hashes are kept so that 70,000 leaves are bearable.
The names MTH, PATH, PROOF and SUBPROOF are the RFC's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def largest_power_below(n: int) -> int:
    """Return k, the largest power of two smaller than n (k < n <= 2k)."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class NaiveTree:
    """D[0:n] of section 2.1, given by its entries."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.leaves = [leaf_hash(entry) for entry in entries]
        self._kept: dict[tuple[int, int], bytes] = {}

    def mth(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]), section 2.1."""
        if start == end:
            return hashlib.sha256(b"").digest()
        if end - start == 1:
            return self.leaves[start]
        if (start, end) not in self._kept:
            k = largest_power_below(end - start)
            self._kept[start, end] = node_hash(self.mth(start, start + k), self.mth(start + k, end))
        return self._kept[start, end]

    def root(self, size: int) -> bytes:
        return self.mth(0, size)

    def path(self, m: int, start: int, end: int) -> list[bytes]:
        """PATH(m, D[start:end]), section 2.1.1; m counts from start."""
        n = end - start
        if n == 1:
            return []
        k = largest_power_below(n)
        if m < k:
            return [*self.path(m, start, start + k), self.mth(start + k, end)]
        return [*self.path(m - k, start + k, end), self.mth(start, start + k)]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return self.path(index, 0, size)

    def subproof(self, m: int, start: int, end: int, *, known: bool) -> list[bytes]:
        """SUBPROOF(m, D[start:end], b), section 2.1.2; ``known`` is b, m counts from start."""
        n = end - start
        if m == n:
            return [] if known else [self.mth(start, end)]
        k = largest_power_below(n)
        if m <= k:
            return [*self.subproof(m, start, start + k, known=known), self.mth(start + k, end)]
        return [*self.subproof(m - k, start + k, end, known=False), self.mth(start, start + k)]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """PROOF(m, D[n]), section 2.1.2; for an empty old tree, which the RFC leaves out, the empty list."""
        return self.subproof(old, 0, new, known=True) if old else []
