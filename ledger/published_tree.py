"""The published tree of a log, read from its tiles, for comparing other checkpoints with it.

INVARIANT 11: tiles and bundles are the log's word. What is compared with them is compared by a proof that leads to the
root of the signed checkpoint; a tile that says otherwise than that root is never the measure of anything.
"""

from __future__ import annotations

from ledger.audit_chunks import BundleReader
from ledger.audit_keys import find_key_records
from ledger.errors import NotFoundError, RollbackError
from ledger.keyring import Keyring
from ledger.merkle import hash_leaf
from ledger.ports import TileStore
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.tiles import TILE_WIDTH
from ledger.trust import TrustPolicy

__all__ = ["ShownTree"]


class ShownTree:
    """`ledger.anchor_checks.PublishedTree` of a log, which may be growing meanwhile. One task owns it."""

    def __init__(self, tiles: TileStore, log_id: str, policy: TrustPolicy) -> None:
        """Look what is shown.

        Args:
            tiles: The log's.
            log_id: Which log.
            policy: Whose signatures count; from outside the log.

        Raises:
            MalformedError: What is shown is not a checkpoint.
            VerificationError: It does not meet the policy.
            StorageError: The tile store failed.
        """
        self._tiles = tiles
        self._log_id = log_id
        self._policy = policy
        self._prover = Prover(tiles, log_id)
        self._head = self._look()
        self._keyring: Keyring | None = None

    @property
    def head(self) -> TreeHead | None:
        """The newest tree that was looked at, or None if nothing was published."""
        return self._head

    def _look(self) -> TreeHead | None:
        try:
            return self._policy.verify(self._prover.checkpoint()).head
        except NotFoundError:
            return None

    def _look_again(self) -> None:
        """Take up what the log has come to since; it may only have grown."""
        newest = self._look()
        if self._head is not None:
            if newest is None or newest.size < self._head.size:
                raise RollbackError(f"the log showed {self._head.size} leaves a moment ago, and fewer now")
            verify_consistency(self._head, newest, self._prover.consistency(self._head.size, newest.size))
        self._head = newest

    def require_begins_with(self, head: TreeHead) -> None:
        """See `PublishedTree.require_begins_with`."""
        if self._head is None or head.size > self._head.size:
            # A log that is at work anchors while its copies are read.
            self._look_again()
        if self._head is None or head.size > self._head.size:
            raise RollbackError(f"it shows {0 if self._head is None else self._head.size} leaves")
        verify_consistency(head, self._head, self._prover.consistency(head.size, self._head.size))

    def keyring(self) -> Keyring:
        """See `PublishedTree.keyring`. Reads the whole log, once."""
        if self._keyring is None:
            self._keyring = Keyring() if self._head is None else self._read_keyring(self._head)
        return self._keyring

    def _read_keyring(self, head: TreeHead) -> Keyring:
        reader = BundleReader(self._tiles, self._log_id, head.size)
        found = find_key_records(reader, range(-(-head.size // TILE_WIDTH)), ())
        for leaf, entry in found.keys:
            verify_inclusion(hash_leaf(entry), leaf, head, self._prover.inclusion(leaf, head.size))
        return found.keyring
