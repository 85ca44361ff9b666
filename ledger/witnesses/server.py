"""A witness for other people's logs: C2SP tlog-witness, add-checkpoint, without its HTTP.

A request is judged in the order that the specification gives: is the log known (404), has it signed (403), is the old
size sound (400) and the one that was cosigned last (409), does the proof hold and is there one root for each size
(422). Only then is the checkpoint kept, and only then answered.

A log's keys are those of a trust policy: where it lists two algorithms for an origin, both must have signed. What the
log signed and what yet does not extend what was cosigned is refused and kept whole. Of one size it is evidence:
together with what was cosigned it proves two histories (`ledger.equivocation`). Of a larger size it may be, as soon as
somebody has the larger tree; or a stranger sent the log's honest checkpoint with a proof that does not hold, as anybody
can. So the two are kept apart, and of each a bounded number.

Source: C2SP tlog-witness v1.0.0.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from ledger.checkpoints import UnverifiedCheckpoint, parse_unverified_checkpoint
from ledger.clock import Clock
from ledger.cosignatures import AddCheckpoint, parse_add_checkpoint, with_cosignatures
from ledger.errors import MalformedError, VerificationError
from ledger.notes import NoteSignature
from ledger.ports import Cosigner, Refusal, Reply, WitnessedLogs
from ledger.proofs import TreeHead, verify_consistency
from ledger.trust import TrustPolicy

__all__ = ["WitnessServer"]

_SIZE_TYPE: Final = "text/x.tlog.size"


class _RefusedError(Exception):
    """A request is answered otherwise than with a cosignature; leaves this module as a `Reply`."""

    def __init__(self, reply: Reply, *, refusal: Refusal | None = None) -> None:
        super().__init__(reply.status)
        self.reply = reply
        self.refusal = refusal


def _refuse(status: int, sentence: str, *, refusal: Refusal | None = None) -> _RefusedError:
    return _RefusedError(Reply(status=status, body=f"{sentence}\n".encode()), refusal=refusal)


class WitnessServer:
    """Cosigns the checkpoints of the logs that it knows; safe for any thread and process on one database."""

    def __init__(self, logs: TrustPolicy, cosigner: Cosigner, witnessed: WitnessedLogs, clock: Clock) -> None:
        """Cosign for these logs.

        Args:
            logs: Their keys; a quorum in it is not asked for.
            cosigner: Signs.
            witnessed: Where it is kept what was cosigned.
            clock: For the time of a cosignature.
        """
        self._logs = replace(logs, quorum=None)
        self._cosigner = cosigner
        self._witnessed = witnessed
        self._clock = clock

    def add_checkpoint(self, body: bytes) -> Reply:
        """Answer a request.

        Raises:
            StorageError: The database failed; nothing was cosigned.
        """
        try:
            request = parse_add_checkpoint(body)
            offered = parse_unverified_checkpoint(request.checkpoint)
        except MalformedError as error:
            return Reply(status=400, body=f"{error}\n".encode("utf-8", "backslashreplace"))
        try:
            self._check_request(request, offered)
            line = self._advance(request, offered)
        except _RefusedError as error:
            if error.refusal is not None:
                self._keep_refused(request, offered, error.refusal)
            return error.reply
        return Reply(status=200, body=line.encode().encode())

    def _check_request(self, request: AddCheckpoint, offered: UnverifiedCheckpoint) -> None:
        if not self._logs.log_keys(offered.claim.origin):
            raise _refuse(404, "this log is not known here")
        try:
            self._logs.verify(request.checkpoint)
        except VerificationError:
            raise _refuse(403, "the log's keys have not signed this") from None
        if request.old_size > offered.claim.size:
            raise _refuse(400, "the old size is larger than the checkpoint's")

    def _advance(self, request: AddCheckpoint, offered: UnverifiedCheckpoint) -> NoteSignature:
        lines: list[NoteSignature] = []
        now_ms = self._clock.now_ms()

        def decide(newest: bytes | None) -> tuple[int, bytes]:
            known = TreeHead(size=0, root=offered.claim.root)
            if newest is not None:
                known = parse_unverified_checkpoint(newest).claim.head
            self._judge(request, known, offered.claim.head)
            lines.append(self._cosigner.cosign(offered, now_ms // 1000))
            return offered.claim.size, with_cosignatures(offered, lines)

        self._witnessed.advance(offered.claim.origin, decide, now_ms=now_ms)
        return lines[-1]

    @staticmethod
    def _judge(request: AddCheckpoint, known: TreeHead, offered: TreeHead) -> None:
        """Check that what is offered extends what was cosigned last."""
        # Signed, of the size that was cosigned, and another tree: no proof is needed to see it.
        forked = Refusal.CONTRADICTS if offered.size == known.size and offered.root != known.root else None
        if request.old_size != known.size:
            told = Reply(status=409, body=f"{known.size}\n".encode(), media_type=_SIZE_TYPE)
            raise _RefusedError(told, refusal=forked)
        try:
            if known.size == 0:
                if request.proof:
                    raise _refuse(422, "the proof from an empty tree is empty")
            else:
                verify_consistency(known, offered, request.proof)
        except VerificationError:
            unproved = Refusal.UNPROVED if offered.size > known.size else None
            raise _refuse(422, "this does not extend what was cosigned", refusal=forked or unproved) from None

    def _keep_refused(self, request: AddCheckpoint, offered: UnverifiedCheckpoint, refusal: Refusal) -> None:
        digest = hashlib.sha256(offered.note.text.encode()).hexdigest()
        now_ms = self._clock.now_ms()
        self._witnessed.refuse(offered.claim.origin, digest, request.checkpoint, refusal=refusal, now_ms=now_ms)
