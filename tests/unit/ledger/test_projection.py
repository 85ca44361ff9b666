"""The projection: which rows a record makes. The tables' columns and the projection's must be the same."""

from __future__ import annotations

import pytest

from ledger.bodies import (
    AccessEvent,
    Approval,
    BundleEvent,
    BundleReference,
    Dropped,
    Heartbeat,
    KeyEvent,
    Outcome,
    SessionEnd,
    Succession,
    Tombstone,
)
from ledger.ports import commit
from ledger.projection import PROJECTED_TABLES, project
from ledger.records import Record, commitments, leaf_hash, record_type
from tests.support.ledger import LOG_ID, Enforcer, make_decision

SOME_ID = "01990000-0000-7000-8000-000000000000"
PSEUDONYM = "4" * 32
COMMITMENT = commit("comment", bytes(16), b"text")[0]

OTHER_BODIES = [
    BundleEvent(action="published", name="b", revision="0" * 64, engine="cedar", actor=PSEUDONYM, actor_role="admin"),
    KeyEvent(action="created", purpose="vault", algorithm="a", subject="s", key_id="k"),
    Heartbeat(kind="start", version="1", spool_depth=0),
    Dropped(first_seq=1, last_seq=2, decisions=1, reason="spool_lost"),
    Succession(origin="o", size=1, root="0" * 64, checkpoint_sha256="1" * 64, reason="key_lost"),
    Approval(approval_id=SOME_ID, decision_id=SOME_ID, action="held", binding="b" * 64, expires_ms=1),
    Tombstone(subject=PSEUDONYM, payloads=1, reason="erasure", actor=PSEUDONYM),
    AccessEvent(action="query", actor=PSEUDONYM, actor_role="auditor", target_kind="log", result="ok"),
]


@pytest.fixture
def writer() -> Enforcer:
    return Enforcer()


def rows(record: Record, index: int = 5) -> dict[str, list[dict[str, object]]]:
    return {name: [dict(row) for row in found] for name, found in project(record, index, leaf_hash(record)).items()}


def full_decision(writer: Enforcer) -> Record:
    body, _ = make_decision(
        rules=("b", "a", "b"),
        bundle=BundleReference(name="b", revision="1" * 64, engine="cedar", engine_version="4"),
        trace_id="a" * 32,
        arguments_fingerprint="b" * 32,
    )
    return writer.record(body)


def envelope(record: Record) -> dict[str, object]:
    return {
        "log_id": LOG_ID,
        "leaf_index": 5,
        "record_id": record.record_id,
        "leaf_hash": bytes(leaf_hash(record)),
        "record_type": record_type(record),
        "time_ms": record.time_ms,
        "enforcer_id": "service",
        "epoch": "0" * 32,
        "seq": 1,
    }


def said(record: Record) -> dict[str, object]:
    """Return what the row of a record says beyond its envelope."""
    (row,) = rows(record)["records"]
    assert {column: row[column] for column in envelope(record)} == envelope(record)
    return {column: value for column, value in row.items() if column not in envelope(record) and value is not None}


def test_every_record_has_one_row_that_carries_its_envelope(writer):
    assert said(writer.record(writer.heartbeat())) == {}


def test_a_decision_is_searchable_by_what_it_says(writer):
    assert said(full_decision(writer)) == {
        "agent": "finance-bot",
        "user": "6" * 32,
        "session": "5" * 32,
        "server": "finance",
        "method": "tools/call",
        "tool": "Payroll-DB",
        "decision": "DENY",
        "enforcement": "deny",
        "mode": "enforce",
        "reason": "policy",
        "bundle_revision": "1" * 64,
        "trace_id": "a" * 32,
        "fingerprint": "b" * 32,
    }


def test_each_rule_has_one_row_however_often_it_spoke(writer):
    assert [row["rule"] for row in rows(full_decision(writer))["decision_rules"]] == ["a", "b"]


def test_what_a_decision_lacks_is_null(writer):
    record = writer.record(make_decision(rules=(), user=None, method=None, tool=None, bundle=None)[0])
    assert sorted(said(record)) == ["agent", "decision", "enforcement", "mode", "reason", "server", "session"]
    assert rows(record)["decision_rules"] == []


def test_an_outcome_is_found_by_its_decision_session_and_content(writer):
    record = writer.record(Outcome(decision_id=SOME_ID, status="failed", session="5" * 32, result_fingerprint="c" * 32))
    assert said(record) == {
        "decision_id": SOME_ID,
        "status": "failed",
        "session": "5" * 32,
        "fingerprint": "c" * 32,
    }
    assert rows(record)["decision_rules"] == []


def test_each_content_of_an_answer_has_one_row(writer):
    contents = ("1c" * 16, "2c" * 16, "1c" * 16)
    record = writer.record(Outcome(decision_id=SOME_ID, status="completed", session="5" * 32, contents=contents))
    assert [row["fingerprint"] for row in rows(record)["contents"]] == ["1c" * 16, "2c" * 16]
    assert "fingerprint" not in said(record)


def test_the_end_of_a_session_is_found_by_its_session_and_passes_for_no_decision(writer):
    end = SessionEnd(session=PSEUDONYM, calls=3, denied=1, reason="idle", agent="bot", started_ms=1, user="6" * 32)
    found = writer.record(end)
    assert said(found) == {"session": PSEUDONYM}
    assert rows(found)["records"][0]["record_type"] == "session_end"


@pytest.mark.parametrize("body", OTHER_BODIES, ids=lambda body: type(body).__name__)
def test_every_other_record_has_its_envelope_row_alone(writer, body):
    record = writer.record(body)
    found = rows(record)
    assert set(found) == set(PROJECTED_TABLES)
    assert [len(found[name]) for name in PROJECTED_TABLES] == [1, 0, 0]
    assert found["records"][0]["record_type"] == record_type(record)
    assert said(record) == {}


def test_every_row_of_a_table_has_the_same_columns_whatever_the_record(writer):
    outcome = writer.record(Outcome(decision_id=SOME_ID, status="failed", session="5" * 32))
    beat = writer.record(writer.heartbeat())
    of_decision, of_outcome, of_beat = (rows(one)["records"][0] for one in (full_decision(writer), outcome, beat))
    assert list(of_decision) == list(of_outcome) == list(of_beat)


def test_no_vaulted_value_is_projected(writer):
    # Not even the commitments: a search needs neither digest nor size.
    for record in (
        full_decision(writer),
        writer.record(Outcome(decision_id=SOME_ID, status="failed", session="5" * 32, result=COMMITMENT)),
    ):
        text = repr(rows(record))
        assert commitments(record)
        for commitment in commitments(record).values():
            assert commitment.digest not in text
