"""What a report says of the stretch that it was made of: what is missing, late or not over is never passed over."""

from __future__ import annotations

import msgspec
import pytest

from ledger.bodies import Dropped, Heartbeat, OPADecision
from ledger.body_fields import Commitment
from ledger.records import Record
from policies.impact import Impact, Verdicts
from policies.impact_coverage import Coverage
from policies.impact_report import ImpactReport, Stretch, make_report
from policies.replay_results import ReplayClass
from tests.support.ledger import NOW_MS, Enforcer, make_decision

END_MS = NOW_MS + 1000
STRETCH = Stretch(tree_size=10, first_leaf=0, end_leaf=10)


@pytest.fixture
def gateway() -> Enforcer:
    return Enforcer("gateway-1")


def decision(gateway: Enforcer, time_ms: int) -> Record:
    gateway.time_ms = time_ms - 1
    return gateway.record(make_decision()[0])


def beat(gateway: Enforcer, time_ms: int) -> Record:
    gateway.time_ms = time_ms - 1
    return gateway.record(Heartbeat(kind="periodic", version="1", spool_depth=0))


def covered(*records: Record) -> Coverage:
    coverage = Coverage(from_ms=NOW_MS, to_ms=END_MS)
    for record in records:
        coverage.add(record)
    return coverage


def report_of(coverage: Coverage, impact: Impact | None = None, stretch: Stretch = STRETCH) -> ImpactReport:
    impact = impact or Impact(from_ms=NOW_MS, to_ms=END_MS, read_from_ms=NOW_MS)
    return make_report(impact, coverage, stretch, bundle_name=None, lines_sha256="0" * 64)


def test_an_enforcer_is_open_until_a_heartbeat_is_past_the_period(gateway):
    first = decision(gateway, NOW_MS)
    assert covered(first).open
    assert covered(first, beat(gateway, END_MS - 1)).open
    assert not covered(first, beat(gateway, END_MS)).open
    assert not Coverage(from_ms=NOW_MS, to_ms=END_MS).open


def test_an_enforcer_that_is_open_is_named(gateway):
    (sentence,) = [told for told in report_of(covered(decision(gateway, NOW_MS))).left_out if "gateway-1" in told]
    assert "not said yet that it is past the period" in sentence


def test_a_decision_behind_the_heartbeat_beyond_is_late_and_opens_the_period_again(gateway):
    records = [decision(gateway, NOW_MS), beat(gateway, END_MS), decision(gateway, NOW_MS + 5)]
    coverage = covered(*records)
    assert (coverage.late, coverage.open) == (1, True)
    outside = covered(records[0], records[1], decision(gateway, END_MS + 5))
    assert outside.late == 0


def test_numbers_missing_in_between_are_counted_and_those_before_the_stretch_are_not(gateway):
    for _ in range(4):
        beat(gateway, NOW_MS)
    first = decision(gateway, NOW_MS + 1)
    for _ in range(3):
        decision(gateway, NOW_MS + 2)
    line, *_ = covered(first, beat(gateway, END_MS)).lines()
    assert (line.first_seq, line.last_seq, line.missing, line.lost) == (5, 9, 3, 0)


def test_numbers_that_were_declared_lost_are_told_apart(gateway):
    first = decision(gateway, NOW_MS)
    decision(gateway, NOW_MS + 1)
    lost = gateway.record(Dropped(first_seq=2, last_seq=2, decisions=1, reason="spool_lost"))
    report = report_of(covered(first, lost, beat(gateway, END_MS)))
    assert (report.streams[0].missing, report.streams[0].lost) == (0, 1)
    assert any(told.startswith("1 records of gateway-1") and "declared lost" in told for told in report.left_out)


@pytest.mark.parametrize(
    ("members", "others"),
    [
        ({"decided_ms": NOW_MS + 5}, 1),
        ({}, 1),
        ({"decided_ms": END_MS}, 0),
        ({"kind": "unreadable"}, 0),
    ],
)
def test_decisions_of_somebody_elses_opa_are_counted_and_not_made_again(members, others):
    service = Enforcer("service")
    event = Commitment(digest="0" * 64, size_bytes=0)
    body = OPADecision(**{"kind": "taken", "client": "1" * 32, "fingerprint": "2" * 32, "event": event, **members})
    report = report_of(covered(service.record(body)))
    assert any("somebody else's OPA" in told for told in report.left_out) is bool(others)


def test_what_was_pruned_is_said():
    stretch = Stretch(tree_size=10, first_leaf=4, end_leaf=10, pruned_below=4)
    told = report_of(covered(), stretch=stretch).left_out
    assert any("below leaf 4" in sentence for sentence in told)


@pytest.mark.parametrize("name", [ReplayClass.ERASED, ReplayClass.ENGINE_CHANGED, ReplayClass.LIMITED])
def test_each_class_without_an_answer_is_said(name):
    impact = Impact(from_ms=NOW_MS, to_ms=END_MS, read_from_ms=NOW_MS, classes={name: Verdicts(unknown=2)})
    assert any(f"2 decisions ({name.value})" in sentence for sentence in report_of(covered(), impact).left_out)


def test_what_no_policy_was_asked_is_no_answer_that_is_missing():
    classes = {ReplayClass.MISSING_FACT: Verdicts(unknown=3)}
    impact = Impact(from_ms=NOW_MS, to_ms=END_MS, read_from_ms=NOW_MS, classes=classes, not_asked=3)
    report = report_of(covered(), impact)
    assert report.unknown == 0
    assert not any("missing_fact" in sentence for sentence in report.left_out)


def test_a_report_survives_being_written_down(gateway):
    report = report_of(covered(decision(gateway, NOW_MS)))
    assert msgspec.json.decode(msgspec.json.encode(report), type=ImpactReport) == report
