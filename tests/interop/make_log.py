"""Write a real log for the Go program beside this file: ``python -m tests.interop.make_log FOLDER``.

The log is made by the parts that the service is made of (SQLite store, directory of tiles, publisher, local signers),
so that what the public tools verify is what we publish. Beside it lie the checkpoints of earlier sizes, proofs built by
our prover, and ``interop.json``, which names the keys and holds the consistency proofs.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

from ledger.collecting import PartialCollector
from ledger.envelopes import ED25519, MLDSA44
from ledger.notes import encode_base64
from tests.support.ledger import LOG_ID, ORIGIN, EmbeddedLedger, make_key, pending

SIZES = (1, 255, 256, 257, 600)
"""A leaf alone, either side of a full tile, and a tree with a partial tile on two levels."""

INDEXES = (0, 1, 255, 256, 257, 511, 512, 599)
HEARTBEAT_EVERY = 7
STRANGER_SEED = 99


def append_records(ledger: EmbeddedLedger, size: int) -> None:
    """Sequence records until the log has ``size`` of them: decisions, with a heartbeat now and then."""
    if ledger.store.sequenced_size(LOG_ID) == 0:
        ledger.introduce()
    for index in range(ledger.store.sequenced_size(LOG_ID), size):
        if index % HEARTBEAT_EVERY == 0:
            ledger.append(pending(ledger.service.record(ledger.service.heartbeat())))
        else:
            ledger.decide()


def collect(ledger: EmbeddedLedger) -> None:
    """Collect partial tiles, as a running service does: the public tools must do without them."""
    collector = PartialCollector(LOG_ID, ledger.tiles)
    collected = 0
    while not (turn := collector.turn(SIZES[-1])).done:
        collected += turn.collected
    assert collected + turn.collected, "there was nothing to collect"


def make_log(folder: Path) -> None:
    """Write the log, its older checkpoints, its proofs and the list of them."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "proofs").mkdir()
    ledger = EmbeddedLedger(folder)
    for size in SIZES:
        append_records(ledger, size)
        (folder / "checkpoints" / str(size)).write_bytes(ledger.publish())
    collect(ledger)
    newest = ledger.prover.checkpoint()
    for index in INDEXES:
        proof = ledger.prover.proof_file(index, newest)
        (folder / "proofs" / f"{index}.tlog-proof").write_bytes(proof.encode())
    listing = {
        "origin": ORIGIN,
        "log": f"logs/{LOG_ID}",
        "ed25519": ledger.signers[0].verifier_key.encode(),
        "mldsa44": ledger.signers[1].verifier_key.encode(),
        "strangers": [
            make_key("log", algorithm, seed=STRANGER_SEED).verifier_key.encode() for algorithm in (ED25519, MLDSA44)
        ],
        "sizes": SIZES,
        "indexes": INDEXES,
        "consistency": [
            {"old": old, "new": new, "proof": [encode_base64(item) for item in ledger.prover.consistency(old, new)]}
            for old, new in [*pairwise(SIZES), *((size, SIZES[-1]) for size in SIZES[:-2])]
        ],
    }
    (folder / "interop.json").write_text(json.dumps(listing, indent=1), encoding="utf-8")


if __name__ == "__main__":
    make_log(Path(sys.argv[1]))
