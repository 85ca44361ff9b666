"""The publisher: the sole writer of checkpoints.

One publication, and what a crash at each point leaves behind:

1. integrate: write the tiles and bundles of the new size. *A crash leaves files that no checkpoint covers; they are
   written again, with the same bytes.*
2. sign with every key, and verify each signature with another implementation than the one that made it. *Nothing.*
3. swap: compare-and-swap the checkpoint in the log store, the only authority. *After this the checkpoint is published,
   whether or not anybody saw it.*
4. witness: have it cosigned, if there is a witness policy. *Cosignatures are kept before they are shown; what was not
   kept is asked for again.*
5. expose: replace the live checkpoint in the tile store by it, cosignatures included. *`load` exposes it at the next
   start.* Where the policy is fail-closed and the quorum has not cosigned, nothing is exposed, and what was exposed
   before stays: the published checkpoint is then not *shown*, and no proof is made under it.
6. release: forget entry bytes that full bundles hold. *They are released by the next publication.*
7. anchor: keep an independent copy of what is shown. *`load` and every later publication anchor what is newest; a
   failure here never stops ingestion, it shows as lag.*

A lost swap means that somebody else publishes: the loser raises `SwapLostError`, shows nothing, and goes on only from
what is published (`load`, `follow`). Which of several processes is to publish is `ledger.publishing_turns`' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from ledger.witnessing import Witnessing, WitnessMode, WitnessStatus

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


def _published(checkpoint: bytes, verified: VerifiedCheckpoint) -> Published:
    return Published(checkpoint, verified.head, max(verified.timestamps.values(), default=0))


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
        witnessing: Witnessing | None = None,
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
        self._witnessing = witnessing
        # What has won its swap, and what of it the world is shown: they differ while witnesses are awaited.
        self._published: Published | None = None
        self._shown: Published | None = None
        self._followed = False
        self._signed_seconds = 0
        self._anchor_status = AnchorStatus()
        self._anchor_silence: str | None = "not asked"

    @property
    def published(self) -> Published | None:
        """The checkpoint that is shown, or None before the first."""
        return self._shown

    @property
    def witness_status(self) -> WitnessStatus | None:
        """How far witnessing has come, or None without a witness policy."""
        return None if self._witnessing is None else self._witnessing.status

    @property
    def witnessed(self) -> bool:
        """Whether the quorum cosigned the present checkpoint, as far as this publisher knows; True without a policy."""
        status, present = self.witness_status, self._published
        return status is None or present is None or status.witnessed_size == present.head.size

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
        """Whether the anchor holds what is shown, as far as this publisher knows; True before the first."""
        receipt = self._anchor_status.receipt
        size = self._shown.head.size if self._shown else None
        return size is None or (self._anchor_status.failure is None and receipt is not None and receipt.size == size)

    @property
    def withheld(self) -> bool:
        """Whether something is published that is not shown, as far as this publisher knows."""
        return self._published is not None and (self._shown is None or self._shown.head != self._published.head)

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
        exposed = self._exposed()
        exposed_size = 0 if exposed is None else exposed.head.size
        anchored = self._anchored_sizes(above=exposed_size)
        checkpoint = self._store.checkpoint(self._log_id)
        verified = None if checkpoint is None else self._keys.verify(checkpoint)
        size = 0 if verified is None else verified.head.size
        # INVARIANT 2: a store that was put back publishes nothing.
        shown = max(exposed_size, self._largest_of_ours(anchored, above=size))
        if shown > size:
            raise RollbackError(f"the log was shown with {shown} leaves, its store has published {size}")
        if checkpoint is None or verified is None:
            self._require_extended(None)
            return
        self._require_extended(verified.head)
        self._integrator.load(verified.head)
        self._remember(checkpoint, verified)
        self._followed = False
        self._adopt(exposed)
        self.witness_newest()
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
            if self._followed:
                self._look()
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
        self._look()
        return True

    def _look(self) -> None:
        """Take up what whoever leads shows of what is published."""
        if self._witnessing is None:
            self._shown = self._published
        elif (
            self._shown is None
            or self._published is None
            or self._shown.head != self._published.head
            # Fail-open shows a checkpoint first and the cosignatures when they come.
            or not self.witnessed
        ):
            self._adopt(self._exposed())

    def _adopt(self, exposed: Published | None) -> None:
        """Take for shown what is exposed, if it is of the history that the present checkpoint ends.

        INVARIANT 2: what is exposed is believed only as far as it leads to what has won its swap.
        """
        present = self._published
        if exposed is None or present is None or exposed.head.size > present.head.size:
            return
        verified = self._keys.verify(exposed.checkpoint)
        proof = Prover(self._tiles, self._log_id).consistency(verified.head.size, present.head.size)
        verify_consistency(verified.head, present.head, proof)
        self._shown = _published(exposed.checkpoint, verified)
        if self._witnessing is not None:
            self._witnessing.observe(exposed.checkpoint)

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

    def _exposed(self) -> Published | None:
        try:
            checkpoint = self._tiles.get(self._log_id, CHECKPOINT_PATH)
        except NotFoundError:
            return None
        return _published(checkpoint, self._keys.recognise(checkpoint))

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
        self._published = _published(checkpoint, verified)

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
            What is shown now, or None if nothing was new.

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
        # INVARIANT 2: only what has won the swap is witnessed, exposed or anchored.
        self._remember(checkpoint, verified)
        self.witness_newest()
        self._store.release(self._log_id, size // TILE_WIDTH * TILE_WIDTH)
        return self._shown

    def witness_newest(self) -> None:
        """Have the present checkpoint cosigned by whoever has not done so, and expose it as the witness policy allows.

        Witnesses that fail show in `witness_status`; they raise nothing.

        Raises:
            ConflictError: Another tree of this size is exposed.
            StorageError: A store failed.
        """
        present = self._published
        if present is None:
            return
        checkpoint = present.checkpoint
        if self._witnessing is not None:
            cosigned = self._witnessing.cosign(checkpoint)
            # INVARIANT: where the policy is fail-closed, nothing is shown that the quorum has not cosigned.
            if self._witnessing.mode is WitnessMode.CLOSED and not cosigned.quorum_met:
                return
            checkpoint = cosigned.checkpoint
        if self._shown is None or self._shown.checkpoint != checkpoint:
            self._tiles.expose(self._log_id, checkpoint)
            self._shown = replace(present, checkpoint=checkpoint)

    def _swap(self, checkpoint: bytes, size: int) -> None:
        expected = self._published.checkpoint if self._published else None
        try:
            self._store.swap_checkpoint(
                self._log_id, expected=expected, new=checkpoint, size=size, published_ms=self._clock.now_ms()
            )
        except ConflictError as error:
            raise SwapLostError(str(error)) from error

    def anchor_newest(self) -> None:
        """Keep an independent copy of what is shown; a failure is remembered, not raised.

        Raises:
            ConflictError: The anchor holds another checkpoint of this size that our keys signed: two trees of one log.
        """
        if self._shown is None:
            return
        size = self._shown.head.size
        try:
            try:
                receipt = self._anchor.put(self._log_id, size, self._shown.checkpoint)
            except ConflictError as conflict:
                if self._is_ours(size):
                    raise
                # Whoever may write there can put anything under a size that is still to come, and lock it for years:
                # what we never signed stops nothing.
                told = f"under size {size} the anchor holds what no key of this log has signed: that copy is missing"
                raise AnchorError(told) from conflict
        except AnchorError as failure:
            self._anchor_status = AnchorStatus(self._anchor_status.receipt, str(failure))
        else:
            self._anchor_status = AnchorStatus(receipt)

    def _is_ours(self, size: int) -> bool:
        """Tell whether what is anchored under a size is a checkpoint that our keys signed."""
        try:
            self._keys.recognise(self._anchor.get(self._log_id, size))
        except (NotFoundError, MalformedError, VerificationError):
            return False
        return True
