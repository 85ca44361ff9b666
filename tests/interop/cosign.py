"""Have the transparency-dev witness cosign a log of ours: ``python -m tests.interop.cosign WITNESS_PROGRAM FOLDER``.

The program is the Go one in `witness` beside this file: two witnesses, as they are published, one for each algorithm.
Here is our side as the service has it: publisher, witnessing, HTTP client, cosignatures in SQL. Each line that is
printed is a check; one that fails ends with status 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ledger.checkpoints import Checkpoint
from ledger.clock import SystemClock
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import TallystickError, WitnessError, WitnessSizeError
from ledger.merkle import RootHash
from ledger.notes import SignedNote, parse_vkey
from ledger.signers.local import LocalSigner
from ledger.stores.cosignatures import SQLCosignatures
from ledger.trust import TrustPolicy, Witness, WitnessGroup
from ledger.witnesses.client import HTTPWitness
from ledger.witnessing import Witnessing, WitnessMode
from tests.interop.make_log import STRANGER_SEED, append_records
from tests.support.ledger import LOG_ID, ORIGIN, EmbeddedLedger, make_key

SIZES = (1, 2, 255, 256, 257, 512, 600)
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Scene:
    """A log, its witnesses, and the policy of an auditor who demands both of them."""

    ledger: EmbeddedLedger
    policy: TrustPolicy
    clients: tuple[HTTPWitness, ...]

    def witnessing(self) -> Witnessing:
        return Witnessing(
            LOG_ID,
            policy=self.policy,
            witnesses=self.clients,
            mode=WitnessMode.CLOSED,
            store=SQLCosignatures(self.ledger.engine),
            prover=self.ledger.prover,
            clock=SystemClock(),
        )

    def checkpoint(self, size: int, root: bytes, *, origin: str = ORIGIN, seeds: tuple[int, int] = (1, 2)) -> bytes:
        """Sign any claim with keys of the log, or of a stranger."""
        claim = Checkpoint(origin=origin, size=size, root=RootHash(root))
        keys = (make_key("log", ED25519, origin, seed=seeds[0]), make_key("log", MLDSA44, origin, seed=seeds[1]))
        return SignedNote(claim.body(), tuple(LocalSigner(key).sign(claim, 1) for key in keys)).encode()


@contextmanager
def witnesses(program: Path, ledger: EmbeddedLedger, log: TextIO) -> Iterator[tuple[str, list[Witness]]]:
    """Run the Go program, whose own log goes to a file; yields its version and the witnesses that it runs."""
    keys = {key.verifier_key.signature_type: key.verifier_key.encode() for key in ledger.signers}
    command = [str(program), "-ed25519", keys[1], "-mldsa44", keys[6]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            yield (
                told["version"],
                [Witness(one["name"], parse_vkey(one["vkey"]), one["url"]) for one in told["witnesses"]],
            )
        finally:
            process.stdin.close()
            process.wait(TIMEOUT_SECONDS)


def refused(told: str, ask: Callable[[], object]) -> None:
    """Check that a witness refuses, in the words of our client for its status."""
    try:
        ask()
    except WitnessError as error:
        if told not in str(error):
            raise
    else:
        raise TallystickError(f"the witness did not refuse: {told}")


def follow(scene: Scene) -> None:
    """Publish one size after another; each is shown only when both witnesses have cosigned it."""
    publisher = scene.ledger.make_publisher(witnessing=scene.witnessing(), clock=SystemClock())
    publisher.load()
    for size in SIZES:
        append_records(scene.ledger, size)
        shown = publisher.publish()
        if shown is None or shown.head.size != size:
            raise TallystickError(f"size {size} is not shown: {publisher.witness_status}")
        verified = scene.policy.verify(shown.checkpoint)
        if verified.witnesses != tuple(sorted(client.name for client in scene.clients)):
            raise TallystickError(f"size {size} was cosigned by {verified.witnesses}")


def catch_up(scene: Scene) -> None:
    """Ask again without any memory of what was cosigned: the witness tells its size, and cosigns it again."""
    checkpoint = scene.ledger.store.checkpoint(LOG_ID)
    assert checkpoint is not None
    for client in scene.clients:
        try:
            client.add_checkpoint(checkpoint, old_size=0, proof=())
        except WitnessSizeError as error:
            if error.size != SIZES[-1]:
                raise
        else:
            raise TallystickError("a witness cosigned from size 0 what it had cosigned at another")
        client.add_checkpoint(checkpoint, old_size=SIZES[-1], proof=())


def rollback(scene: Scene) -> None:
    """Offer the log's own earlier checkpoint: the witness says which size it has cosigned."""
    early = scene.ledger.published_checkpoints()[2]
    for client in scene.clients:
        try:
            client.add_checkpoint(early, old_size=2, proof=scene.ledger.prover.consistency(2, 255))
        except WitnessSizeError as error:
            if error.size != SIZES[-1]:
                raise
        else:
            raise TallystickError("a witness cosigned an earlier tree")


def fork(scene: Scene) -> None:
    """Offer another tree, larger and of the same size, signed by the log's own keys."""
    size = SIZES[-1]
    for client in scene.clients:
        larger = scene.checkpoint(size + 1, b"\1" * 32)
        refused("another tree", lambda: client.add_checkpoint(larger, old_size=size, proof=(b"\2" * 32,) * 3))  # noqa: B023  # called at once
        same = scene.checkpoint(size, b"\1" * 32)
        refused("another tree", lambda: client.add_checkpoint(same, old_size=size, proof=()))  # noqa: B023  # called at once


def strangers(scene: Scene) -> None:
    """Offer what the witness does not know: another log, another key, an old size beyond the new one."""
    size = SIZES[-1]
    other = scene.checkpoint(1, b"\1" * 32, origin="log.example/other")
    unsigned = scene.checkpoint(size, b"\1" * 32, seeds=(STRANGER_SEED, STRANGER_SEED))
    checkpoint = scene.ledger.store.checkpoint(LOG_ID)
    assert checkpoint is not None
    for client in scene.clients:
        refused("does not know this log", lambda: client.add_checkpoint(other, old_size=0, proof=()))  # noqa: B023  # called at once
        # The specification says 403; this version answers 500.
        refused("refuses", lambda: client.add_checkpoint(unsigned, old_size=size, proof=()))  # noqa: B023  # called at once
        refused("malformed", lambda: client.add_checkpoint(checkpoint, old_size=size + 1, proof=()))  # noqa: B023  # called at once


CHECKS: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    (f"both witnesses cosign the log at {', '.join(map(str, SIZES))}, and a quorum of both is met", follow),
    ("a client that has forgotten all is told the size, and asks again from there", catch_up),
    ("an earlier checkpoint of the log is refused, with the size that was cosigned", rollback),
    ("another tree is refused, larger or of the same size, though the log's keys signed it", fork),
    ("another log, another key and an old size beyond the new one are refused", strangers),
)


def main(program: Path, folder: Path) -> int:
    """Run every check, and return the exit status."""
    folder.mkdir(parents=True)
    failed = 0
    with (
        (folder / "witness.log").open("w", encoding="utf-8") as log,
        EmbeddedLedger(folder) as ledger,
        witnesses(program, ledger, log) as (version, known),
    ):
        print(f"A log of ours, cosigned by {version}")
        policy = TrustPolicy(
            logs=ledger.policy.logs,
            witnesses={one.name: one for one in known},
            groups={"both": WitnessGroup("both", len(known), tuple(one.name for one in known))},
            quorum="both",
        )
        clients = tuple(HTTPWitness(one, timeout_seconds=TIMEOUT_SECONDS) for one in known)
        scene = Scene(ledger, policy, clients)
        for what, check in CHECKS:
            try:
                check(scene)
            except TallystickError as error:
                failed += 1
                print(f"FAILED  {what}: {error}")
            else:
                print(f"ok      {what}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
