"""Witnessing: have each published checkpoint cosigned, and say whether the quorum of the witness policy has done so.

The step stands between the swap, which decides alone what is published, and exposing. What a crash leaves behind:
cosignatures are kept before a checkpoint that carries them is shown; those that were not kept are asked for again, and
a witness cosigns the same checkpoint as often as it is asked.

A witness that fails is left alone for a while that doubles with each failure, so that one that does not answer delays
few publications. Which of two ways is taken without a quorum is the policy's part (`WitnessMode`):

* *open*: the checkpoint is exposed all the same; readiness says so, and the witnesses are asked again;
* *closed*: nothing new is exposed until the quorum has cosigned it. Records are taken and numbered meanwhile.

The messages are in `cosignatures`, HTTP is in `witnesses`, what a verifier demands is in `trust`.

Source: C2SP tlog-witness v1.0.0, tlog-policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ledger.checkpoints import UnverifiedCheckpoint, parse_unverified_checkpoint
from ledger.clock import Clock
from ledger.cosignatures import verify_cosignature, with_cosignatures
from ledger.errors import LedgerError, SignatureError, WitnessError, WitnessSizeError
from ledger.notes import NoteSignature, VerifierKey
from ledger.ports import CosignatureStore, Witness
from ledger.prover import Prover
from ledger.trust import TrustPolicy

__all__ = ["Cosigned", "WitnessMode", "WitnessStatus", "Witnessing"]

_FIRST_PAUSE_MS: Final = 1_000
_LONGEST_PAUSE_MS: Final = 60_000
_UNKNOWN: Final = -1


class WitnessMode(StrEnum):
    """What is done with a checkpoint that the quorum has not cosigned."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A checkpoint with the cosignatures that there are.

    Attributes:
        checkpoint: With the log's own signatures first, then those of the witnesses in the policy's order.
        by: Policy names of the witnesses whose cosignatures it carries.
        quorum_met: Whether they are enough.
    """

    checkpoint: bytes
    by: tuple[str, ...]
    quorum_met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessStatus:
    """How far witnessing has come.

    Attributes:
        size: Tree size of the checkpoint that was offered last, or 0.
        witnessed_size: Tree size of the newest checkpoint that the quorum cosigned, or 0.
        by: Policy names of the witnesses that cosigned the one that was offered last.
        failures: By policy name, why a witness did not.
    """

    size: int = 0
    witnessed_size: int = 0
    by: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def quorum_met(self) -> bool:
        """Whether the quorum cosigned what was offered last."""
        return self.size == self.witnessed_size


@dataclass(slots=True)
class _Standing:
    """What we know of one witness. The thread that asks it owns it meanwhile.

    Attributes:
        last_size: Tree size that it cosigned last, or `_UNKNOWN` before the store was asked.
        pause_ms: How long it is left alone after its next failure.
        quiet_until_ms: When it may be asked again.
        failure: Why it did not cosign when it was asked last, or None.
    """

    last_size: int = _UNKNOWN
    pause_ms: int = _FIRST_PAUSE_MS
    quiet_until_ms: int = 0
    failure: str | None = None


def _verified(
    parsed: UnverifiedCheckpoint, lines: Mapping[VerifierKey, NoteSignature]
) -> dict[VerifierKey, NoteSignature]:
    """Return the cosignatures that hold: what a database or a file says is believed no more than a witness's answer."""
    held: dict[VerifierKey, NoteSignature] = {}
    for key, line in lines.items():
        with suppress(SignatureError):
            verify_cosignature(key, parsed, line)
            held[key] = line
    return held


class Witnessing:
    """Has the checkpoints of one log cosigned. The publisher's thread owns it."""

    def __init__(
        self,
        log_id: str,
        *,
        policy: TrustPolicy,
        witnesses: Sequence[Witness],
        mode: WitnessMode,
        store: CosignatureStore,
        prover: Prover,
        clock: Clock,
    ) -> None:
        """Ask these witnesses.

        Args:
            log_id: Which log.
            policy: Its groups and its quorum count; its log lines do not.
            witnesses: One for each witness of the policy that can be asked.
            mode: What is done without a quorum.
            store: Where cosignatures are kept.
            prover: Of the log's tiles.
            clock: For the pauses after failures.
        """
        self._log_id = log_id
        self._policy = policy
        self._witnesses = tuple(witnesses)
        self._mode = mode
        self._store = store
        self._prover = prover
        self._clock = clock
        self._standings = {witness.name: _Standing() for witness in self._witnesses}
        self._status = WitnessStatus()

    @property
    def mode(self) -> WitnessMode:
        """What is done without a quorum."""
        return self._mode

    @property
    def status(self) -> WitnessStatus:
        """How far witnessing has come."""
        return self._status

    def observe(self, checkpoint: bytes) -> None:
        """Take note of an exposed checkpoint and of the cosignatures that it carries; nobody is asked."""
        parsed = parse_unverified_checkpoint(checkpoint)
        by_id = {(key.name, key.key_id): key for key in (witness.verifier_key for witness in self._witnesses)}
        found = [(by_id.get((line.name, line.key_id)), line) for line in parsed.note.signatures]
        lines = _verified(parsed, {key: line for key, line in found if key is not None})
        self._remember(parsed.claim.size, self._cosigned(parsed, lines))

    def cosign(self, checkpoint: bytes) -> Cosigned:
        """Have a published checkpoint cosigned by every witness that has not done so; failures show in `status`.

        Args:
            checkpoint: As it was swapped, with the log's own signatures alone.

        Raises:
            StorageError: The store failed.
        """
        parsed = parse_unverified_checkpoint(checkpoint)
        lines = self._kept(parsed)
        fresh = self._ask_all(checkpoint, parsed, [one for one in self._witnesses if one.verifier_key not in lines])
        if fresh:
            # INVARIANT: a cosignature is kept before it is shown, so that a restart shows no less.
            self._store.keep(self._log_id, parsed.claim.size, fresh, now_ms=self._clock.now_ms())
        cosigned = self._cosigned(parsed, lines | fresh)
        self._remember(parsed.claim.size, cosigned)
        return cosigned

    def _kept(self, parsed: UnverifiedCheckpoint) -> dict[VerifierKey, NoteSignature]:
        keys = [witness.verifier_key for witness in self._witnesses]
        return _verified(parsed, self._store.kept(self._log_id, parsed.claim.size, keys))

    def _cosigned(self, parsed: UnverifiedCheckpoint, lines: Mapping[VerifierKey, NoteSignature]) -> Cosigned:
        present = [witness for witness in self._witnesses if witness.verifier_key in lines]
        names = tuple(witness.name for witness in present)
        return Cosigned(
            checkpoint=with_cosignatures(parsed, [lines[witness.verifier_key] for witness in present]),
            by=names,
            quorum_met=self._policy.has_quorum(names),
        )

    def _remember(self, size: int, cosigned: Cosigned) -> None:
        failures = {
            name: standing.failure or "it was not asked"
            for name, standing in self._standings.items()
            if name not in cosigned.by
        }
        self._status = WitnessStatus(
            size=size,
            witnessed_size=size if cosigned.quorum_met else self._status.witnessed_size,
            by=cosigned.by,
            failures=MappingProxyType(failures),
        )

    def _ask_all(
        self, checkpoint: bytes, parsed: UnverifiedCheckpoint, witnesses: Sequence[Witness]
    ) -> dict[VerifierKey, NoteSignature]:
        """Ask witnesses at the same time, but those that are left alone for a while."""
        now = self._clock.now_ms()
        asked = [one for one in witnesses if self._standings[one.name].quiet_until_ms <= now]
        if not asked:
            return {}
        with ThreadPoolExecutor(max_workers=len(asked), thread_name_prefix="witness") as threads:
            lines = list(threads.map(lambda one: self._ask(one, checkpoint, parsed.claim.size), asked))
        return {one.verifier_key: line for one, line in zip(asked, lines, strict=True) if line is not None}

    def _ask(self, witness: Witness, checkpoint: bytes, size: int) -> NoteSignature | None:
        standing = self._standings[witness.name]
        try:
            line = self._ask_in_step(witness, standing, checkpoint, size)
        except LedgerError as error:
            standing.failure = str(error)
            if standing.last_size > size:
                # A witness that once told a size beyond the log's would never be asked again: what is kept here counts.
                standing.last_size = _UNKNOWN
            standing.quiet_until_ms = self._clock.now_ms() + standing.pause_ms
            standing.pause_ms = min(2 * standing.pause_ms, _LONGEST_PAUSE_MS)
            return None
        standing.failure, standing.pause_ms, standing.quiet_until_ms = None, _FIRST_PAUSE_MS, 0
        standing.last_size = size
        return line

    def _ask_in_step(self, witness: Witness, standing: _Standing, checkpoint: bytes, size: int) -> NoteSignature:
        if standing.last_size == _UNKNOWN:
            standing.last_size = self._store.last_size(self._log_id, witness.verifier_key)
        try:
            return self._offer(witness, checkpoint, standing.last_size, size)
        except WitnessSizeError as error:
            # Another process of ours asked, or our database is older than what the witness saw. Once: whoever tells
            # another size each time is not asked for ever.
            standing.last_size = error.size
            return self._offer(witness, checkpoint, error.size, size)

    def _offer(self, witness: Witness, checkpoint: bytes, old_size: int, size: int) -> NoteSignature:
        if old_size > size:
            raise WitnessError(
                f"the witness {witness.name} has cosigned {old_size} leaves of this log, which has {size} here"
            )
        return witness.add_checkpoint(checkpoint, old_size=old_size, proof=self._prover.consistency(old_size, size))
