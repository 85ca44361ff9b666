"""The population: what lies in the period, what is late, what is missing, and what is not counted twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from evidence.lines import proof_path
from evidence.population import MAX_PERIOD_MS, Period, Survey
from evidence.summary import Population
from ledger.bodies import Dropped, Heartbeat, KeyEvent
from ledger.errors import EvidenceError, MalformedError, VerificationError
from ledger.merkle import hash_leaf, root_of_leaves
from ledger.records import decode_entry, encode_record, sign_record
from tests.support.ledger import Enforcer
from tests.support.packs import FROM_MS, TO_MS, PackLog, late_day


def survey(log: PackLog, **options: Any) -> Survey:
    made = Survey(period=Period(FROM_MS, TO_MS), **options)
    for entry in log.entries:
        made.add(entry)
    return made


def retirement(enforcer: Enforcer) -> KeyEvent:
    return KeyEvent(
        action="retired",
        purpose="enforcer",
        algorithm="ed25519",
        subject=enforcer.enforcer_id,
        key_id=f"{enforcer.enforcer_id}-key",
    )


def population(log: PackLog) -> Population:
    made = survey(log)
    return made.population(made.streams(), root_recomputed=True)


# --- periods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5), (0, MAX_PERIOD_MS + 1)])
def test_a_period_that_is_none_is_refused(start: int, end: int) -> None:
    with pytest.raises(EvidenceError):
        Period(start, end)


def test_a_period_holds_its_beginning_and_not_its_end() -> None:
    period = Period(10, 20)
    assert [period.contains(time) for time in (9, 10, 19, 20)] == [False, True, True, False]


# --- counts --------------------------------------------------------------------------------------------------------


def test_everything_is_counted_once(log: PackLog) -> None:
    log.ordinary_day()
    counts = population(log)
    assert counts.records == len(log.entries) == counts.end_leaf
    assert sum(counts.records_by_type.values()) == counts.records
    assert counts.decisions == counts.records_by_type["decision"] == 19
    assert sum(counts.by_effect.values()) == counts.decisions
    assert counts.by_enforcement == {"allow": 13, "ask": 1, "deny": 4, "kill": 1}
    assert counts.observed == 1
    assert sum(sum(day.values()) for day in counts.by_day.values()) == counts.decisions
    assert sum(sum(tool.values()) for tool in counts.by_tool.values()) == counts.decisions
    assert counts.by_rule == {
        "malformed": 1,
        "no-dumps": 1,
        "no_permit": 1,
        "sale-limit": 2,
        "void-needs-approval": 1,
    }
    assert counts.outside == 0


def test_a_record_belongs_to_the_period_by_its_own_time_wherever_it_stands(log: PackLog) -> None:
    log.begin()
    for time in (FROM_MS - 1, FROM_MS, TO_MS - 1, TO_MS):
        log.call(at_ms=time)
    counts = population(log)
    assert (counts.decisions, counts.outside) == (2, 2)


def test_days_are_those_of_utc(log: PackLog) -> None:
    log.begin()
    log.call(at_ms=FROM_MS)
    assert population(log).by_day == {"2025-11-19": {"deny": 1}}


def test_an_unreadable_message_is_counted_under_its_server(log: PackLog) -> None:
    log.begin()
    log.refuse(at_ms=FROM_MS)
    assert population(log).by_tool == {"shop/(unreadable)": {"deny": 1}}


def test_the_tree_is_that_of_the_entries(log: PackLog) -> None:
    log.ordinary_day()
    made = survey(log, roots_at=frozenset({0, 5, len(log.entries)}))
    leaves = [hash_leaf(entry) for entry in log.entries]
    assert made.tree.root() == root_of_leaves(leaves)
    assert made.roots == {size: root_of_leaves(leaves[:size]) for size in (0, 5, len(leaves))}


# --- the closing of the period -------------------------------------------------------------------------------------


def test_the_period_is_closed_once_every_enforcer_showed_life_beyond_its_end(log: PackLog) -> None:
    log.begin()
    log.call(at_ms=FROM_MS)
    assert survey(log).closed_at() is None
    assert survey(log).open_enforcers() == ["gateway-1", "service"]
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    assert survey(log).open_enforcers() == ["gateway-1"]
    leaf = log.add(log.gateway, log.gateway.heartbeat(), at_ms=TO_MS)
    assert survey(log).closed_at() == leaf + 1


def test_a_heartbeat_before_the_end_closes_nothing(log: PackLog) -> None:
    log.begin()
    for enforcer in (log.service, log.gateway):
        log.add(enforcer, enforcer.heartbeat(), at_ms=TO_MS - 1)
    assert survey(log).closed_at() is None


def test_an_enforcer_that_stopped_in_mid_period_keeps_it_open(log: PackLog) -> None:
    # Two seconds into the period, with records still waiting at the gateway: a restart would send them and more.
    log.begin()
    log.add(log.gateway, Heartbeat(kind="stop", version="1", spool_depth=5), at_ms=FROM_MS + 2000)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    made = survey(log)
    assert (made.closed_at(), made.open_enforcers()) == (None, ["gateway-1"])
    assert population(log).completeness == "tail unknown"


@pytest.mark.parametrize(("stopped", "completeness"), [(True, "complete"), (False, "tail unknown")])
def test_the_retirement_of_its_key_ends_an_enforcer(log: PackLog, stopped: bool, completeness: str) -> None:
    log.begin()
    if stopped:
        log.add(log.gateway, Heartbeat(kind="stop", version="1", spool_depth=0), at_ms=FROM_MS + 2000)
    retired = log.add(log.service, retirement(log.gateway), at_ms=FROM_MS + 3000)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    made = survey(log)
    assert (made.closed_at(), made.open_enforcers()) == (retired + 2, [])
    assert population(log).completeness == completeness


def test_an_enforcer_that_is_introduced_again_must_be_heard_of_again(log: PackLog) -> None:
    log.begin()
    log.add(log.gateway, Heartbeat(kind="stop", version="1", spool_depth=0), at_ms=FROM_MS + 2000)
    log.add(log.service, retirement(log.gateway), at_ms=FROM_MS + 3000)
    again = Enforcer(enforcer_id="gateway-1", seed=66, epoch="6" * 32)
    log.add(log.service, msgspec.structs.replace(log.service.introduction(again), key_id="another-key"))
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    assert survey(log).open_enforcers() == ["gateway-1"]
    assert population(log).completeness == "tail unknown"
    log.add(again, again.heartbeat(), at_ms=TO_MS)
    assert survey(log).open_enforcers() == []
    assert population(log).completeness == "complete"


def test_an_enforcer_that_was_introduced_and_never_heard_of_keeps_the_period_open(log: PackLog) -> None:
    log.begin()
    log.add(log.service, log.service.introduction(Enforcer(enforcer_id="gateway-2", seed=66)), at_ms=FROM_MS + 1)
    log.end()
    made = survey(log)
    assert (made.closed_at(), made.open_enforcers()) == (None, ["gateway-2"])
    assert population(log).completeness == "tail unknown"


def test_one_that_was_introduced_after_the_period_does_not(log: PackLog) -> None:
    log.begin()
    log.end()
    log.add(log.service, log.service.introduction(Enforcer(enforcer_id="gateway-2", seed=66)), at_ms=TO_MS + 5000)
    assert survey(log).open_enforcers() == []
    assert population(log).completeness == "complete"


def test_a_heartbeat_of_a_clock_that_was_ahead_closes_nothing(log: PackLog) -> None:
    log.begin()
    log.add(log.gateway, log.gateway.heartbeat(), at_ms=TO_MS + 999)
    log.call(at_ms=FROM_MS + 1000)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    made = survey(log)
    assert (made.closed_at(), made.open_enforcers()) == (None, ["gateway-1"])
    assert population(log).completeness == "tail unknown"
    leaf = log.add(log.gateway, log.gateway.heartbeat(), at_ms=TO_MS)
    assert survey(log).closed_at() == leaf + 1


def test_a_later_epoch_with_records_of_the_period_opens_it_again(log: PackLog) -> None:
    log.begin()
    log.end()
    log.gateway.epoch, log.gateway.seq, log.gateway.running_count = "9" * 32, 0, 0
    log.call(at_ms=FROM_MS + 1000)
    assert survey(log).open_enforcers() == ["gateway-1"]


def test_a_period_that_was_not_over_when_the_log_was_signed_is_not_closed(log: PackLog) -> None:
    log.begin()
    log.end()
    for signed_ms, completeness in ((TO_MS - 1, "tail unknown"), (TO_MS, "complete")):
        made = survey(log, signed_ms=signed_ms)
        assert (made.closed_at() is None) == (signed_ms < TO_MS)
        assert made.population(made.streams(), root_recomputed=True).completeness == completeness


def test_an_enforcer_that_went_on_after_its_stop_keeps_the_period_open(log: PackLog) -> None:
    log.begin()
    log.add(log.gateway, Heartbeat(kind="stop", version="1", spool_depth=0), at_ms=FROM_MS)
    log.call(at_ms=FROM_MS + 5000)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    assert survey(log).open_enforcers() == ["gateway-1"]


def test_a_decision_of_the_period_behind_its_closing_is_late_and_counted(log: PackLog) -> None:
    leaf = late_day(log)
    counts = population(log)
    assert counts.late == (leaf,)
    assert (counts.decisions, counts.outside) == (2, 1)
    assert counts.completeness == "complete"


def test_a_log_that_begins_after_the_period_closes_nothing(log: PackLog) -> None:
    log.service.time_ms = TO_MS
    log.add(log.service, log.service.introduction(), at_ms=TO_MS + 1)
    made = survey(log)
    assert made.closed_at() is None
    assert made.open_enforcers() == []


# --- completeness --------------------------------------------------------------------------------------------------


def test_complete_streams_make_a_complete_population(log: PackLog) -> None:
    log.ordinary_day()
    assert population(log).completeness == "complete"


def test_without_a_heartbeat_beyond_the_end_the_tail_is_unknown(log: PackLog) -> None:
    log.begin()
    log.call(at_ms=FROM_MS)
    assert population(log).completeness == "tail unknown"


def test_a_missing_number_is_a_gap(log: PackLog) -> None:
    log.begin()
    log.gateway.seq += 1
    log.call(at_ms=FROM_MS)
    log.end()
    assert population(log).completeness == "gap"


def test_a_wrong_running_count_is_a_gap_though_no_number_is_missing(log: PackLog) -> None:
    log.begin()
    log.gateway.running_count += 1
    log.call(at_ms=FROM_MS)
    log.end()
    assert population(log).completeness == "gap"


def test_declared_loss_is_a_gap(log: PackLog) -> None:
    log.begin()
    first = log.gateway.seq + 1
    log.gateway.seq += 2
    log.gateway.running_count += 1
    log.add(log.gateway, Dropped(first_seq=first, last_seq=first + 1, decisions=1, reason="disk_full"))
    log.end()
    made = survey(log)
    (stream,) = [one for one in made.streams() if one.enforcer_id == "gateway-1"]
    assert (stream.verdict, stream.lost, stream.missing) == ("gap", ((first, first + 1),), ())


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_record_of_an_enforcer_that_nobody_introduced_is_refused(log: PackLog) -> None:
    log.begin()
    stranger = Enforcer(enforcer_id="gateway-2", seed=66)
    log.add(stranger, stranger.heartbeat())
    with pytest.raises(VerificationError, match=f"leaf {len(log.entries) - 1}"):
        survey(log)


def test_a_record_signed_by_another_enforcers_key_is_refused(log: PackLog) -> None:
    log.begin()
    record = log.gateway.record(log.gateway.heartbeat())
    log.add_record(sign_record(record, log.service.key))
    with pytest.raises(VerificationError):
        survey(log)


def test_a_log_whose_first_leaf_introduces_nobody_is_refused(log: PackLog) -> None:
    log.add(log.service, log.service.heartbeat())
    with pytest.raises(VerificationError, match="leaf 0"):
        survey(log)


def test_a_record_of_another_log_or_tenant_is_refused(log: PackLog) -> None:
    log.begin()
    for change in ({"log_id": "other"}, {"tenant": "other"}):
        record = log.gateway.record(log.gateway.heartbeat())
        entry = encode_record(sign_record(msgspec.structs.replace(record, **change), log.gateway.key))
        made = survey(log)
        with pytest.raises(VerificationError, match="another log or tenant"):
            made.add(entry)


def test_what_is_no_record_is_malformed_and_its_leaf_named(log: PackLog) -> None:
    log.begin()
    made = survey(log)
    with pytest.raises(MalformedError, match=f"leaf {len(log.entries)}"):
        made.add(b"{}")


# --- lists ---------------------------------------------------------------------------------------------------------


def test_every_call_that_did_not_pass_is_listed_with_rule_outcome_and_proof(log: PackLog) -> None:
    log.ordinary_day()
    calls = survey(log).calls_that_did_not_pass()
    assert [call.enforcement for call in calls] == ["deny", "deny", "ask", "kill", "deny", "deny"]
    denied, held = calls[0], calls[2]
    assert (denied.failed_condition, denied.outcome, denied.local_time) == ("sale-limit", None, "10:00")
    assert (held.rules, held.outcome) == (("void-needs-approval",), "not_forwarded")
    for call in calls:
        assert call.proof == proof_path(call.leaf)
        assert decode_entry(log.entries[call.leaf]).record_id == call.record_id


def test_calls_that_did_not_pass_and_one_allowed_call_of_each_tool_are_proved(log: PackLog) -> None:
    log.ordinary_day()
    made = survey(log)
    refused = {call.leaf for call in made.calls_that_did_not_pass()}
    (example,) = set(made.proved_leaves) - refused
    assert refused < set(made.proved_leaves)
    first = next(leaf for leaf, entry in enumerate(log.entries) if b'"enforcement":"allow"' in entry)
    assert example == first
    assert all(made.proved_leaves[leaf] == hash_leaf(log.entries[leaf]) for leaf in made.proved_leaves)


def test_beyond_the_limit_calls_are_listed_without_a_proof_file(log: PackLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evidence.population.MAX_PROOFS", 3)
    log.ordinary_day()
    made = survey(log)
    assert len(made.proved_leaves) == 3
    assert [bool(call.proof) for call in made.calls_that_did_not_pass()] == [True, True, False, False, False, False]


def test_bundles_are_listed_with_what_they_decided(log: PackLog) -> None:
    log.ordinary_day()
    (line,) = survey(log).bundles()
    assert (line.name, line.revision, line.engine, line.decisions) == ("shop", log.bundle.revision, "cedar", 18)
    assert b'"type":"decision"' in log.entries[line.first_leaf]


def test_policy_changes_and_accesses_are_listed_in_order(log: PackLog) -> None:
    log.ordinary_day()
    made = survey(log)
    assert [change.action for change in made.policy_changes] == ["published", "activated"]
    assert [(line.action, line.target) for line in made.access] == [("query", "log"), ("export_pack", "log")]
