"""The projection: which rows a record makes. The tables' columns and the projection's must be the same."""

from __future__ import annotations

import pytest
from sqlalchemy import String

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
from ledger.records import Record, field_classes, leaf_hash, record_type
from ledger.stores import tables
from tests.support.ledger import LOG_ID, Enforcer, make_decision

SOME_ID = "01990000-0000-7000-8000-000000000000"
PSEUDONYM = "4" * 32
COMMITMENT = commit("comment", bytes(16), b"text")[0]

OTHER_BODIES = [
    BundleEvent(action="published", name="b", revision="0" * 64, engine="cedar", actor=PSEUDONYM, actor_role="admin"),
    KeyEvent(action="created", purpose="vault", algorithm="a", subject="s", key_id="k"),
    Heartbeat(kind="start", version="1", spool_depth=0),
    Dropped(first_seq=1, last_seq=2, decisions=1, reason="spool_lost"),
    SessionEnd(session=PSEUDONYM, calls=3, denied=1, reason="idle", agent="bot", started_ms=1),
    Succession(origin="o", size=1, root="0" * 64, checkpoint_sha256="1" * 64, reason="key_lost"),
    Approval(approval_id=SOME_ID, decision_id=SOME_ID, action="requested", binding=COMMITMENT, expires_ms=1),
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


def test_every_record_has_one_row_that_carries_its_envelope(writer):
    record = writer.record(writer.heartbeat())
    assert rows(record)["records"] == [
        {
            "log_id": LOG_ID,
            "leaf_index": 5,
            "record_id": record.record_id,
            "leaf_hash": bytes(leaf_hash(record)),
            "record_type": "heartbeat",
            "time_ms": record.time_ms,
            "enforcer_id": "service",
            "epoch": "0" * 32,
            "seq": 1,
        }
    ]


def test_a_decision_is_searchable_by_what_it_says(writer):
    record = full_decision(writer)
    assert rows(record)["decisions"] == [
        {
            "log_id": LOG_ID,
            "leaf_index": 5,
            "time_ms": record.time_ms,
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
            "arguments_fingerprint": "b" * 32,
        }
    ]


def test_each_rule_has_one_row_however_often_it_spoke(writer):
    assert [row["rule"] for row in rows(full_decision(writer))["decision_rules"]] == ["a", "b"]


def test_what_a_decision_lacks_is_null(writer):
    record = writer.record(make_decision(rules=(), user=None, method=None, tool=None, bundle=None)[0])
    (row,) = rows(record)["decisions"]
    assert [name for name, value in row.items() if value is None] == [
        "user",
        "method",
        "tool",
        "bundle_revision",
        "trace_id",
        "arguments_fingerprint",
    ]
    assert rows(record)["decision_rules"] == []


def test_an_outcome_is_found_by_its_decision_session_and_content(writer):
    outcome = Outcome(decision_id=SOME_ID, status="failed", session="5" * 32, result_fingerprint="c" * 32)
    record = writer.record(outcome)
    found = rows(record)
    assert found["outcomes"] == [
        {
            "log_id": LOG_ID,
            "leaf_index": 5,
            "time_ms": record.time_ms,
            "decision_id": SOME_ID,
            "status": "failed",
            "session": "5" * 32,
            "result_fingerprint": "c" * 32,
        }
    ]
    assert found["decisions"] == found["decision_rules"] == []


@pytest.mark.parametrize("body", OTHER_BODIES, ids=lambda body: type(body).__name__)
def test_every_other_record_has_its_envelope_row_alone(writer, body):
    record = writer.record(body)
    found = rows(record)
    assert set(found) == set(PROJECTED_TABLES)
    assert [len(found[name]) for name in PROJECTED_TABLES] == [1, 0, 0, 0]
    assert found["records"][0]["record_type"] == record_type(record)


def test_the_columns_are_those_of_the_tables(writer):
    outcome = writer.record(Outcome(decision_id=SOME_ID, status="failed", session="5" * 32))
    projected = rows(full_decision(writer)) | {"outcomes": rows(outcome)["outcomes"]}
    for name in PROJECTED_TABLES:
        columns = {column.name for column in tables.metadata.tables[name].c} - {"received_ms"}
        assert set(projected[name][0]) == columns


def test_no_vaulted_value_is_projected(writer):
    # Not even the commitments: a search needs neither digest nor size.
    for record in (
        full_decision(writer),
        writer.record(Outcome(decision_id=SOME_ID, status="failed", session="5" * 32)),
    ):
        text = repr(rows(record))
        for path, declared in field_classes().items():
            if declared == "vaulted":
                name = path.split(".")[-2]
                value = getattr(record.body, name, None)
                assert value is None or value.digest not in text


def test_every_text_column_is_as_wide_as_the_longest_value_that_a_record_may_hold(writer):
    longest = {"agent": "a" * 128, "server": "a" * 128, "method": "a" * 128, "tool": "a" * 128, "reason": "a" * 128}
    record = writer.record(make_decision(**longest, rules=("r" * 128,))[0])
    for name, found in rows(record).items():
        for row in found:
            for column, value in row.items():
                kind = tables.metadata.tables[name].c[column].type
                if isinstance(kind, String) and isinstance(value, str):
                    assert kind.length is not None
                    assert len(value) <= kind.length
