"""The searchable projection of a record: table rows derived from the entry alone.

Pure, so that the auditor derives the same rows again and compares, and a rebuild gives them back. The tables are a
convenience: whatever a query finds is read from the log before it is shown or becomes evidence (invariant 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.bodies import Decision, Outcome
from ledger.merkle import LeafHash
from ledger.records import Record, record_type

__all__ = ["PROJECTED_TABLES", "Row", "project"]

Row = Mapping[str, object]

PROJECTED_TABLES = ("records", "decisions", "decision_rules", "outcomes")
"""Names of the projected tables, in the order in which rows are written."""


@dataclass(frozen=True, slots=True)
class _Key:
    log_id: str
    leaf_index: int

    def row(self, **columns: object) -> Row:
        return {"log_id": self.log_id, "leaf_index": self.leaf_index, **columns}


def project(record: Record, index: int, leaf: LeafHash) -> dict[str, list[Row]]:
    """Return the rows of each projected table that one record makes.

    Args:
        record: The decoded entry.
        index: Its leaf index.
        leaf: Its leaf hash, 32 bytes.

    Returns:
        Rows by table name; every name of `PROJECTED_TABLES` is present, possibly without rows.
    """
    key = _Key(record.log_id, index)
    rows: dict[str, list[Row]] = {name: [] for name in PROJECTED_TABLES}
    rows["records"].append(
        key.row(
            record_id=record.record_id,
            leaf_hash=bytes(leaf),
            record_type=record_type(record),
            time_ms=record.time_ms,
            enforcer_id=record.enforcer_id,
            epoch=record.epoch,
            seq=record.seq,
        )
    )
    body = record.body
    if isinstance(body, Decision):
        rows["decisions"].append(
            key.row(
                time_ms=record.time_ms,
                agent=body.agent,
                user=body.user,
                session=body.session,
                server=body.server,
                method=body.method,
                tool=body.tool,
                decision=body.decision,
                enforcement=body.enforcement,
                mode=body.mode,
                reason=body.reason,
                bundle_revision=body.bundle.revision if body.bundle else None,
                trace_id=body.trace_id,
                arguments_fingerprint=body.arguments_fingerprint,
            )
        )
        rows["decision_rules"].extend(key.row(rule=rule) for rule in sorted(set(body.rules)))
    elif isinstance(body, Outcome):
        rows["outcomes"].append(
            key.row(
                time_ms=record.time_ms,
                decision_id=body.decision_id,
                status=body.status,
                session=body.session,
                result_fingerprint=body.result_fingerprint,
            )
        )
    return rows
