"""The searchable projection of a record: table rows derived from the entry alone.

Pure, so that the auditor derives the same rows again and compares, and a rebuild gives them back. The tables are a
convenience: whatever a query finds is read from the log before it is shown or becomes evidence (invariant 3).

There is one wide row for each record, which has None for what its type does not say, one row for each rule of a
decision, and one for each content of an outcome. How a database stores the rows, smaller than they are written here, is
the store's part (`stores.sql_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ledger.bodies import Decision, Outcome, SessionEnd
from ledger.merkle import LeafHash
from ledger.records import Record, record_type

__all__ = ["PROJECTED_TABLES", "Row", "project"]

Row = Mapping[str, object]

PROJECTED_TABLES: Final = ("records", "decision_rules", "contents")
"""Names of the projected tables, in the order in which rows are written."""

_UNSAID: Final = dict.fromkeys(
    (
        "agent",
        "user",
        "session",
        "server",
        "method",
        "tool",
        "decision",
        "enforcement",
        "mode",
        "reason",
        "bundle_revision",
        "trace_id",
        "fingerprint",
        "decision_id",
        "status",
    )
)
"""What most types of record say nothing of."""


def _said(body: object) -> dict[str, object]:
    """Return the columns that a body has something for."""
    if isinstance(body, Decision):
        return {
            "agent": body.agent,
            "user": body.user,
            "session": body.session,
            "server": body.server,
            "method": body.method,
            "tool": body.tool,
            "decision": body.decision,
            "enforcement": body.enforcement,
            "mode": body.mode,
            "reason": body.reason,
            "bundle_revision": body.bundle.revision if body.bundle else None,
            "trace_id": body.trace_id,
            "fingerprint": body.arguments_fingerprint,
        }
    if isinstance(body, Outcome):
        return {
            "session": body.session,
            "fingerprint": body.result_fingerprint,
            "decision_id": body.decision_id,
            "status": body.status,
        }
    if isinstance(body, SessionEnd):
        # Its session alone: whatever has an agent is counted and searched as a decision (`stores.sql_catalog`).
        return {"session": body.session}
    return {}


def project(record: Record, index: int, leaf: LeafHash) -> dict[str, list[Row]]:
    """Return the rows of each projected table that one record makes.

    Args:
        record: The decoded entry.
        index: Its leaf index.
        leaf: Its leaf hash, 32 bytes.

    Returns:
        Rows by table name; every name of `PROJECTED_TABLES` is present, possibly without rows.
    """
    body = record.body
    row = {
        "log_id": record.log_id,
        "leaf_index": index,
        "record_id": record.record_id,
        "leaf_hash": bytes(leaf),
        "record_type": record_type(record),
        "time_ms": record.time_ms,
        "enforcer_id": record.enforcer_id,
        "epoch": record.epoch,
        "seq": record.seq,
        **_UNSAID,
        **_said(body),
    }
    rules = sorted(set(body.rules)) if isinstance(body, Decision) else ()
    contents = sorted(set(body.contents)) if isinstance(body, Outcome) else ()
    return {
        "records": [row],
        "decision_rules": [{"log_id": record.log_id, "leaf_index": index, "rule": rule} for rule in rules],
        "contents": [
            {"log_id": record.log_id, "leaf_index": index, "fingerprint": fingerprint} for fingerprint in contents
        ],
    }
