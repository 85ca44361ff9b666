"""Records for the benchmarks: signed and numbered as an enforcer's, of about 800 bytes, with and without a payload.

A decision always commits to the message that it judged, so that it always has a payload in the vault; what has none is
an outcome that keeps no result. These two are therefore the records "with" and "without" payload.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import nacl.signing

from enforcement.batches import QueuedRecord
from enforcement.ledger_client import encode_submission
from ledger.bodies import Body, BundleReference, Decision, Outcome
from ledger.clock import SystemClock
from ledger.commitments import SALT_BYTES
from ledger.ports import Opening, commit
from ledger.records import Record, encode_record, new_record_id, sign_record

__all__ = [
    "ENVIRONMENT",
    "LOG_ID",
    "PAYLOAD_BYTES",
    "SESSIONS",
    "TENANT",
    "Kind",
    "Signed",
    "Writer",
    "decision",
    "lines",
    "outcome",
]

LOG_ID = "acme"
TENANT = "acme"
ENVIRONMENT = "production"
PAYLOAD_BYTES = 300
"""Of the vaulted message of each decision."""

Kind: TypeAlias = Literal["decision", "outcome"]
Signed: TypeAlias = tuple[Record, tuple[Opening, ...]]
"""A signed record with what opens its commitments."""

_PEOPLE = 50
SESSIONS = 400
"""Subjects with a key of their own, which whoever measures has made first."""
_UNSIGNED = "A" * 86 + "=="
_REVISION = hashlib.sha256(b"bundle").hexdigest()


def _pseudonym(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()[:32]


def decision(number: int) -> tuple[Decision, tuple[Opening, ...]]:
    """Return a decision with every searchable column, whose message has 300 bytes, and what opens its commitment."""
    payload = (b'{"jsonrpc":"2.0","id":%d,"method":"tools/call"' % number).ljust(PAYLOAD_BYTES, b" ")
    message, opening = commit("message", secrets.token_bytes(SALT_BYTES), payload)
    body = Decision(
        agent=f"bot-{number % 9}",
        server="finance",
        method="tools/call",
        tool=f"tool-{number % 23}",
        decision="PERMIT",
        enforcement="allow",
        mode="enforce",
        reason="policy",
        bundle=BundleReference(name="finance", revision=_REVISION, engine="cedar", engine_version="4.12.2"),
        rules=("refunds",),
        evaluation_us=180 + number % 100,
        session=_pseudonym("session", number % SESSIONS),
        user=_pseudonym("user", number % _PEOPLE),
        message=message,
        arguments_fingerprint=_pseudonym("arguments", number),
    )
    return body, (opening,)


def outcome(number: int) -> tuple[Outcome, tuple[Opening, ...]]:
    """Return an outcome that keeps no result; names as long as real ones can be bring it near 800 bytes."""
    body = Outcome(
        decision_id=new_record_id(number, secrets.token_bytes(10)),
        status="failed",
        reason=f"upstream_disconnected/{'a-server-with-a-long-name.example/' * 3}{number % 10}",
        session=_pseudonym("session", number % SESSIONS),
        user=_pseudonym("user", number % _PEOPLE),
        latency_us=1500 + number % 900,
        http_status=502,
        result_fingerprint=_pseudonym("result", number),
    )
    return body, ()


class Writer:
    """An enforcer: numbers and signs records.

    Attributes:
        enforcer_id: Its name.
        key: Its key.
    """

    def __init__(self, enforcer_id: str, *, simulated: bool = False) -> None:
        """Begin an epoch under a new key.

        Args:
            enforcer_id: Its name.
            simulated: The log is a simulated one.
        """
        self.enforcer_id = enforcer_id
        self.key = nacl.signing.SigningKey.generate()
        self._simulated = simulated
        self._clock = SystemClock()
        self._epoch = secrets.token_hex(16)
        self._seq = 0
        self._decisions = 0

    def sign(self, body: Body) -> Record:
        """Return the next record."""
        self._seq += 1
        self._decisions += isinstance(body, Decision)
        now_ms = self._clock.now_ms()
        record = Record(
            schema_version=1,
            record_id=new_record_id(now_ms, secrets.token_bytes(10)),
            log_id=LOG_ID,
            tenant=TENANT,
            environment=ENVIRONMENT,
            enforcer_id=self.enforcer_id,
            epoch=self._epoch,
            seq=self._seq,
            running_count=self._decisions,
            time_ms=now_ms,
            body=body,
            signature=_UNSIGNED,
            simulated=self._simulated,
        )
        return sign_record(record, self.key)

    def write(self, kind: Kind, count: int) -> Iterator[Signed]:
        """Yield records of a kind."""
        make = decision if kind == "decision" else outcome
        for _ in range(count):
            body, openings = make(self._seq)
            yield self.sign(body), openings


def lines(batch: Sequence[Signed]) -> bytes:
    """Return a batch as a gateway posts it."""
    return b"".join(
        encode_submission(
            QueuedRecord(
                position=position,
                record_id=record.record_id,
                epoch=record.epoch,
                seq=record.seq,
                entry=encode_record(record),
                openings=openings,
            )
        )
        for position, (record, openings) in enumerate(batch)
    )
