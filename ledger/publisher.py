"""The publisher: the sole writer of checkpoints.

One publication, and what a crash at each point leaves behind:

1. integrate: write the tiles and bundles of the new size. *A crash leaves files that no checkpoint covers; they are
   written again, with the same bytes.*
2. sign with every key, and verify each signature with another implementation than the one that made it. *Nothing.*
3. swap: compare-and-swap the checkpoint in the log store, the only authority. *After this the checkpoint is published,
   whether or not anybody saw it.*
4. expose: replace the live checkpoint in the tile store. *`load` exposes it at the next start.*
5. release: forget entry bytes that full bundles hold. *They are released by the next publication.*
6. anchor: keep an independent copy. *`load` and every later publication anchor what is newest; a failure here never
   stops ingestion, it shows as lag.*

A lost swap means that somebody else publishes: the loser raises `SwapLostError`, shows nothing, and goes on only from
what is published (`load`, `follow`). Which of several processes is to publish is `ledger.publishing_turns`' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.checkpoints import Checkpoint
from ledger.clock import Clock
from ledger.errors import (
    AnchorError,
    ConflictError,
    MalformedError,
    NotFoundError,
    RollbackError,
    SplitViewError,
    StateError,
    SwapLostError,
    VerificationError,
)
from ledger.integrator import Integrator
from ledger.log_keys import CheckpointKeys, FixedKeys
from ledger.notes import SignedNote
from ledger.ports import Anchor, AnchorReceipt, LogStore, Signer, TileStore
from ledger.proofs import TreeHead, verify_consistency
from ledger.prover import Prover
from ledger.tiles import CHECKPOINT_PATH, TILE_WIDTH
from ledger.trust import VerifiedCheckpoint

__all__ = ["AnchorStatus", "Published", "Publisher"]


@dataclass(frozen=True, slots=True)
class Published:
    """The present checkpoint.

    Attributes:
        checkpoint: Its bytes.
        head: Size and root.
        timestamp_seconds: When it was signed, by the log's clock.
    """

    checkpoint: bytes
    head: TreeHead
    timestamp_seconds: int


@dataclass(frozen=True, slots=True)
class AnchorStatus:
    """How far the anchor has come.

    Attributes:
        receipt: Of the newest copy, or None.
        failure: Why the last attempt failed, or None.
    """

    receipt: AnchorReceipt | None = None
    failure: str | None = None


class Publisher:
    """Publishes one log. One task owns it; it is not safe for concurrent use."""

    def __init__(
        self,
        *,
        log_id: str,
        origin: str,
        store: LogStore,
        tiles: TileStore,
        integrator: Integrator,
        signers: Sequence[Signer] | CheckpointKeys,
        anchor: Anchor,
        clock: Clock,
    ) -> None:
        """Publish with these parts; call `load` before anything else.

        ``signers`` are all that ever sign, or what says who signs which tree.
        """
        self._log_id = log_id
        self._origin = origin
        self._store = store
        self._tiles = tiles
        self._integrator = integrator
        self._keys = FixedKeys(signers) if isinstance(signers, Sequence) else signers
        self._anchor = anchor
        self._clock = clock
        self._published: Published | None = None
        self._followed = False
        self._signed_seconds = 0
        self._anchor_status = AnchorStatus()
        self._anchor_silence: str | None = "not asked"

    @property
    def published(self) -> Published | None:
        """The present checkpoint, or None before the first."""
        return self._published

    @property
    def anchor_status(self) -> AnchorStatus:
        """How far the anchor has come."""
        return self._anchor_status

    @property
    def followed(self) -> bool:
        """Whether the present checkpoint is another's, whose tree `load` has to take up before publishing."""
        return self._followed

    @property
    def anchored(self) -> bool:
        """Whether the anchor holds the present checkpoint, as far as this publisher knows; True before the first."""
        receipt = self._anchor_status.receipt
        size = self._published.head.size if self._published else None
        return size is None or (self._anchor_status.failure is None and receipt is not None and receipt.size == size)

    def waiting(self) -> bool:
        """Return whether something is sequenced that the present checkpoint does not cover.

        Raises:
            StorageError: The store failed.
        """
        return self._store.sequenced_size(self._log_id) != (self._published.head.size if self._published else 0)

    def load(self) -> None:
        """Take up the log as the store has it: verify, expose and anchor its checkpoint.

        Raises:
            VerificationError: The checkpoint is not signed by our keys, does not extend what we published or followed
                before, or the tiles do not lead to its root.
            RollbackError: A larger checkpoint of ours was exposed or anchored than the store knows: the store was put
                back to an earlier state, and what it would publish next is another tree. An anchor that does not
                answer cannot say so: then nothing is signed until it did.
            ConflictError: Another tree of this size was exposed or anchored.
            StorageError: A store failed.
        """
        # Looked up before the store's own: what is shown was published first, so that it is never the larger of the
        # two, however many others publish meanwhile.
        exposed = self._exposed_size()
        anchored = self._anchored_sizes(above=exposed)
        checkpoint = self._store.checkpoint(self._log_id)
        verified = None if checkpoint is None else self._keys.verify(checkpoint)
        size = 0 if verified is None else verified.head.size
        # INVARIANT 2: a store that was put back publishes nothing.
        shown = max(exposed, self._largest_of_ours(anchored, above=size))
        if shown > size:
            raise RollbackError(f"the log was shown with {shown} leaves, its store has published {size}")
        if checkpoint is None or verified is None:
            self._require_extended(None)
            return
        self._require_extended(verified.head)
        self._integrator.load(verified.head)
        self._tiles.expose(self._log_id, checkpoint)
        self._remember(checkpoint, verified)
        self._followed = False
        self.anchor_newest()

    def follow(self) -> bool:
        """Take up what somebody else has published since; nothing is written.

        Returns:
            Whether there was anything.

        Raises:
            VerificationError: The checkpoint is not signed by our keys, or does not extend what we published or
                followed before: the log is damaged, or forked.
            NotFoundError: A tile that would show it is missing.
            MalformedError: The checkpoint or a tile is damaged.
            StorageError: A store failed.
        """
        checkpoint = self._store.checkpoint(self._log_id)
        if checkpoint == (self._published.checkpoint if self._published else None):
            return False
        if self._published is None:
            self.load()
            return True
        verified = None if checkpoint is None else self._keys.verify(checkpoint)
        self._require_extended(None if verified is None else verified.head)
        assert checkpoint is not None
        assert verified is not None
        self._remember(checkpoint, verified)
        self._followed = True
        return True

    def _require_extended(self, head: TreeHead | None) -> None:
        """Refuse a tree that does not extend the one we know.

        INVARIANT 2: each of many processes sees for itself that no two checkpoints are inconsistent.
        """
        known = None if self._published is None else self._published.head
        if known is None or head == known:
            return
        size = 0 if head is None else head.size
        if head is None or size < known.size:
            raise RollbackError(f"the store has published {known.size} leaves before, and {size} now")
        if size == known.size:
            raise SplitViewError(f"two trees of {size} leaves were published")
        proof = Prover(self._tiles, self._log_id).consistency(known.size, size)
        verify_consistency(known, head, proof)

    def _exposed_size(self) -> int:
        try:
            return self._keys.recognise(self._tiles.get(self._log_id, CHECKPOINT_PATH)).head.size
        except NotFoundError:
            return 0

    def _anchored_sizes(self, *, above: int) -> list[int]:
        self._anchor_silence = None
        try:
            return self._anchor.sizes(self._log_id, above=above)
        except AnchorError as failure:
            self._anchor_silence = str(failure)
            return []

    def _largest_of_ours(self, sizes: Sequence[int], *, above: int) -> int:
        """Return the largest size beyond one that a checkpoint of ours is anchored under, or 0."""
        for size in reversed(sizes):
            if size <= above:
                break
            try:
                return self._keys.recognise(self._anchor.get(self._log_id, size)).head.size
            except AnchorError as failure:
                self._anchor_silence = str(failure)
            except (NotFoundError, MalformedError, VerificationError):
                # What we never signed stops nothing, and hides nothing that is smaller; the audit names it.
                continue
        return 0

    def _remember(self, checkpoint: bytes, verified: VerifiedCheckpoint) -> None:
        timestamp = max(verified.timestamps.values(), default=0)
        self._published = Published(checkpoint, verified.head, timestamp)

    def _timestamp(self) -> int:
        now = self._clock.now_ms() // 1000
        last = max(self._signed_seconds, self._published.timestamp_seconds if self._published else 0)
        # INVARIANT 2: a clock behind the last signed timestamp signs nothing.
        if now < last:
            raise StateError(f"the clock is {last - now} s behind the last signed checkpoint: nothing is signed")
        return now

    def _sign(self, claim: Checkpoint, timestamp_seconds: int) -> tuple[bytes, VerifiedCheckpoint]:
        # Also of what is never published: a swap that was reported lost may have persisted.
        self._signed_seconds = timestamp_seconds
        lines = tuple(signer.sign(claim, timestamp_seconds) for signer in self._keys.signers(claim.size))
        checkpoint = SignedNote(claim.body(), lines).encode()
        # Two implementations must agree before anything is published: the policy verifies with the other one.
        return checkpoint, self._keys.verify(checkpoint)

    def publish(self) -> Published | None:
        """Publish everything that is sequenced; see the module's text for the order of the steps.

        Returns:
            The new checkpoint, or None if nothing was new.

        Raises:
            SwapLostError: Somebody else has published this log meanwhile.
            ConflictError: There are two trees of this log.
            StateError: The present checkpoint is another's, and was not loaded; the clock is behind the last signed
                timestamp; the anchor has not answered since `load`; or a key that must sign is not at hand.
            SignatureInvalidError: A signature that we made does not verify.
            StorageError: A store failed; reload before doing anything else.
        """
        size = self._store.sequenced_size(self._log_id)
        expected = self._published
        if size == (expected.head.size if expected else 0):
            return None
        if self._followed:
            raise StateError("another publisher's checkpoint was followed: load it before publishing")
        # INVARIANT 2: only the anchor knows of a store that was put back together with what it had shown.
        if self._anchor_silence is not None:
            raise StateError(f"nothing is signed until the anchor was asked what it holds: {self._anchor_silence}")
        timestamp = self._timestamp()
        root = self._integrator.integrate(size)
        claim = Checkpoint(origin=self._origin, size=size, root=root)
        checkpoint, verified = self._sign(claim, timestamp)
        self._swap(checkpoint, size)
        # INVARIANT 2: only what has won the swap is exposed or anchored.
        self._remember(checkpoint, verified)
        self._tiles.expose(self._log_id, checkpoint)
        self._store.release(self._log_id, size // TILE_WIDTH * TILE_WIDTH)
        return self._published

    def _swap(self, checkpoint: bytes, size: int) -> None:
        expected = self._published.checkpoint if self._published else None
        try:
            self._store.swap_checkpoint(
                self._log_id, expected=expected, new=checkpoint, size=size, published_ms=self._clock.now_ms()
            )
        except ConflictError as error:
            raise SwapLostError(str(error)) from error

    def anchor_newest(self) -> None:
        """Keep an independent copy of the present checkpoint; a failure is remembered, not raised.

        Raises:
            ConflictError: The anchor holds another checkpoint of this size: two trees of one log.
        """
        if self._published is None:
            return
        try:
            receipt = self._anchor.put(self._log_id, self._published.head.size, self._published.checkpoint)
        except AnchorError as failure:
            self._anchor_status = AnchorStatus(self._anchor_status.receipt, str(failure))
        else:
            self._anchor_status = AnchorStatus(receipt)
