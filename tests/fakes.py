"""A log in memory, made of the pure core alone: real tiles, real signatures, no store, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.merkle import CompactRange, RootHash, hash_leaf, subtree_root
from ledger.notes import parse_vkey
from ledger.proof_files import ProofFile
from ledger.proofs import Node, TreeHead, consistency_nodes, fold_nodes, inclusion_nodes
from ledger.tiles import BUNDLE_LEVEL, Edge, TileCoordinate, hash_coordinate, pack_bundle, unpack_tile
from ledger.trust import TrustPolicy
from tests.conformance.reference.c2sp import Ed25519Signer, MLDSA44Signer, body, note

ORIGIN = "log.example/simulated"


class LogSimulator:
    """Appends entries, keeps every tile by its path, proves from tiles, and signs with both algorithms.

    `grow` takes one batch; a tile that a smaller tree had is never forgotten, as tlog-tiles allows.
    """

    def __init__(self, origin: str = ORIGIN, *, seed: int = 1) -> None:
        self.origin = origin
        self.ed25519 = Ed25519Signer(origin, bytes([seed]) * 32)
        self.mldsa44 = MLDSA44Signer(origin, bytes([seed + 1]) * 32)
        self.entries: list[bytes] = []
        self.files: dict[str, bytes] = {}
        self.edge = Edge()
        self._range = CompactRange()
        self._roots: dict[int, RootHash] = {0: self._range.root()}

    @property
    def size(self) -> int:
        return self.edge.size

    @property
    def policy(self) -> TrustPolicy:
        return TrustPolicy(logs=(parse_vkey(self.ed25519.vkey), parse_vkey(self.mldsa44.vkey)))

    def grow(self, entries: Iterable[bytes]) -> None:
        batch = list(entries)
        leaves = [hash_leaf(entry) for entry in batch]
        self.entries += batch
        for coordinate, data in self.edge.extend(leaves):
            self.files[coordinate.path] = data
        for leaf in leaves:
            self._range.append(leaf)
            self._roots[self._range.size] = self._range.root()

    def head(self, size: int) -> TreeHead:
        return TreeHead(size=size, root=self._roots[size])

    def bundle(self, number: int) -> bytes:
        return pack_bundle(self.entries[256 * number : 256 * number + 256])

    def _path(self, nodes: Sequence[Sequence[Node]], at: int) -> tuple[bytes, ...]:
        return tuple(fold_nodes([self._hash(node, at) for node in row]) for row in nodes)

    def _hash(self, node: Node, at: int) -> bytes:
        coordinate, first, last = hash_coordinate(*node, at)
        return subtree_root(unpack_tile(self.files[coordinate.path], coordinate.width)[first:last])

    def inclusion(self, index: int, size: int, *, at: int | None = None) -> tuple[bytes, ...]:
        """Prove a leaf from the tiles that a tree of ``at`` leaves has: a batch's end, by default the last."""
        return self._path(inclusion_nodes(index, size), at or self.size)

    def consistency(self, old: int, new: int, *, at: int | None = None) -> tuple[bytes, ...]:
        return self._path(consistency_nodes(old, new), at or self.size)

    def checkpoint(self, size: int, *, timestamp: int = 1_763_546_400) -> bytes:
        text = body(self.origin, size, self._roots[size])
        return note(text, self.ed25519.line(text), self.mldsa44.line(text, timestamp=timestamp))

    def proof_file(self, index: int, size: int) -> bytes:
        path = self.inclusion(index, size)
        return ProofFile(index=index, path=path, checkpoint=self.checkpoint(size)).encode()


def bundle_path(number: int, width: int = 256) -> str:
    return TileCoordinate(BUNDLE_LEVEL, number, width).path
