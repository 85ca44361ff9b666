"""Streams of records as an enforcer writes them: numbered, counted, unsigned."""

from __future__ import annotations

import msgspec

from ledger.bodies import Body, Decision, Heartbeat, Outcome
from ledger.body_fields import Commitment
from ledger.records import Record

_COMMITMENT = Commitment(digest="c0" * 32, size_bytes=0)
_BODIES: dict[str, Body] = {
    "decision": Decision(
        agent="agent",
        server="server",
        decision="PERMIT",
        enforcement="allow",
        mode="enforce",
        reason="policy",
        evaluation_us=1,
        session="5e" * 16,
        message=_COMMITMENT,
    ),
    "outcome": Outcome(decision_id="0" * 8 + "-0000-7000-8000-" + "0" * 12, status="completed", session="5e" * 16),
    "start": Heartbeat(kind="start", version="0.1.0", spool_depth=0),
    "periodic": Heartbeat(kind="periodic", version="0.1.0", spool_depth=0),
    "stop": Heartbeat(kind="stop", version="0.1.0", spool_depth=0),
}


class StreamWriter:
    """One enforcer in one epoch; its clock moves by a millisecond for each record, from 1,001 on."""

    def __init__(self, enforcer_id: str = "gateway-1", *, epoch: str = "e" * 32) -> None:
        self._enforcer_id = enforcer_id
        self._epoch = epoch
        self._seq = 0
        self._count = 0

    def write(self, *bodies: Body | str) -> list[Record]:
        """Return the next records; a word stands for a body of that kind."""
        return [self._record(_BODIES[body] if isinstance(body, str) else body) for body in bodies]

    def lose(self, records: int, *, decisions: int = 0) -> None:
        """Use up numbers for records that nobody will see."""
        self._seq += records
        self._count += decisions

    @staticmethod
    def recounted(record: Record, running_count: int) -> Record:
        return msgspec.structs.replace(record, running_count=running_count)

    def _record(self, body: Body) -> Record:
        self._seq += 1
        self._count += isinstance(body, Decision)
        return Record(
            schema_version=1,
            record_id=f"00000000-0000-7000-8000-{self._seq:012x}",
            log_id="acme",
            tenant="acme",
            environment="test",
            enforcer_id=self._enforcer_id,
            epoch=self._epoch,
            seq=self._seq,
            running_count=self._count,
            time_ms=1_000 + self._seq,
            body=body,
            signature="A" * 86 + "==",
        )
