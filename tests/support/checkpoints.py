"""Signed checkpoints for tests that need no log behind them."""

from __future__ import annotations

import hashlib

from ledger.checkpoints import Checkpoint
from ledger.envelopes import ED25519
from ledger.merkle import EMPTY_ROOT, RootHash
from ledger.notes import SignedNote
from ledger.signers.local import LocalSigner
from tests.support.ledger import NOW_MS, ORIGIN, EmbeddedLedger, make_key


def make_checkpoint(size: int, *, tree: str = "a", seed: int = 1) -> bytes:
    """Return a checkpoint signed with Ed25519.

    Args:
        size: Leaves.
        tree: Names the tree: the same name and size give the same root.
        seed: Of the key: the same claim signed with another key has other bytes.
    """
    root = RootHash(hashlib.sha256(f"{tree} {size}".encode()).digest()) if size else EMPTY_ROOT
    claim = Checkpoint(origin=ORIGIN, size=size, root=root)
    signer = LocalSigner(make_key("log", ED25519, seed=seed))
    return SignedNote(claim.body(), (signer.sign(claim, NOW_MS // 1000),)).encode()


def sign_tree(ledger: EmbeddedLedger, size: int, *, tree: str = "forged") -> bytes:
    """Return a checkpoint that both keys of a log signed, over a tree that is not the log's."""
    claim = Checkpoint(origin=ORIGIN, size=size, root=RootHash(hashlib.sha256(f"{tree} {size}".encode()).digest()))
    seconds = ledger.clock.now_ms() // 1000
    return SignedNote(claim.body(), tuple(signer.sign(claim, seconds) for signer in ledger.signers)).encode()
