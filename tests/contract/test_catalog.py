"""What every `Catalog` promises (`ledger.catalog`): SQLite, PostgreSQL.

PostgreSQL collates text by ICU's ``en-US`` here, which sorts otherwise than Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.bodies import BundleReference, Decision, Outcome, SessionEnd
from ledger.catalog import MAX_PAGE, MINUTE_MS, Catalog, DecisionQuery, StreamPosition
from ledger.errors import NotFoundError, StorageError
from ledger.projection import PROJECTED_TABLES, project
from ledger.records import Record, leaf_hash
from ledger.stores.sql_catalog import SQLCatalog
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, make_decision, pending

OTHER_LOG = "other"
SESSIONS = ("a" * 32, "b" * 32)
USERS = ("1" * 32, "2" * 32, None)
FINGERPRINT, RECEIVED = "f" * 32, "e" * 32


class Filled:
    """A catalog over a log whose records the test knows; what it finds is compared with a search of the list."""

    def __init__(self, ledger: EmbeddedLedger) -> None:
        self.ledger = ledger
        self.catalog: Catalog = ledger.catalog
        self.records: list[Record] = []

    def add(self, *records: Record) -> None:
        start = len(self.records)
        assert self.ledger.append(*map(pending, records)) == list(range(start, start + len(records)))
        self.records.extend(records)

    def decisions(self) -> list[tuple[int, Record]]:
        return [(index, record) for index, record in enumerate(self.records) if isinstance(record.body, Decision)]

    def newest_first(self, wanted) -> list[int]:
        return [index for index, record in reversed(self.decisions()) if wanted(record)]


def varied(number: int) -> dict[str, object]:
    """Return the fields of the decision of that number: every searchable field takes several values."""
    permitted = number % 3 == 0
    return {
        "agent": f"agent-{number % 4}",
        "session": SESSIONS[number % 2],
        "user": USERS[number % 3],
        "server": ("finance", "healthcare")[number % 2],
        "tool": (None, "Payroll-DB", "payroll-db")[number % 3],
        "decision": "PERMIT" if permitted else ("DENY", "INDETERMINATE")[number % 2],
        "enforcement": ("allow", "ask")[number % 2] if permitted else ("deny", "kill")[number % 2],
        "mode": ("enforce", "observe")[number % 5 == 0],
        "reason": ("policy", "no_permit")[number % 2],
        "rules": (f"rule-{number % 3}", "shared-rule") if number % 2 else (),
        "bundle": BundleReference(name="b", revision=str(number % 2) * 64, engine="cedar", engine_version="4"),
        "trace_id": f"{number:032x}",
        "arguments_fingerprint": FINGERPRINT if number % 4 == 0 else None,
    }


def opened(request: pytest.FixtureRequest, root: Path) -> EmbeddedLedger:
    url = request.getfixturevalue("postgres").new_schema() if request.param == "postgresql" else None
    return EmbeddedLedger(root, database_url=url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filled]:
    with opened(request, tmp_path) as ledger:
        yield Filled(ledger)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Return a log that tests only read."""
    with opened(request, tmp_path_factory.mktemp("catalog")) as ledger:
        filled = Filled(ledger)
        fill(filled)
        yield filled


def fill(log: Filled) -> None:
    service, gateway = log.ledger.service, Enforcer(enforcer_id="gateway-1")
    log.add(service.record(service.introduction()), service.record(service.introduction(gateway)))
    for number in range(24):
        decision = gateway.record(make_decision(**varied(number))[0])
        log.add(decision)
        if decision.body.enforcement == "allow":
            outcome = Outcome(
                decision_id=decision.record_id,
                status="completed",
                session=decision.body.session,
                result_fingerprint=RECEIVED if number % 12 == 0 else None,
            )
            log.add(gateway.record(outcome))
    log.ledger.store.create_log(
        OTHER_LOG, tenant="other", origin="log.example/other", environment="test", simulated=True, created_ms=0
    )
    stranger = Enforcer(enforcer_id="gateway-1", log_id=OTHER_LOG)
    other = [pending(stranger.record(make_decision(**varied(number))[0])) for number in range(6)]
    log.ledger.store.sequence(OTHER_LOG, [other], received_ms=0)


# --- searching -------------------------------------------------------------------------------------------------------


def body_is(name: str, value: object):
    return lambda record: getattr(record.body, name) == value


EXACT = [
    ("agent", "agent-1"),
    ("session", SESSIONS[1]),
    ("server", "finance"),
    ("tool", "Payroll-DB"),
    ("tool", "payroll-db"),
    ("decision", "PERMIT"),
    ("decision", "INDETERMINATE"),
    ("enforcement", "kill"),
    ("mode", "observe"),
    ("reason", "no_permit"),
    ("trace_id", f"{7:032x}"),
]


def test_everything_is_found_newest_first(log):
    assert log.catalog.search(LOG_ID, DecisionQuery()) == log.newest_first(lambda _: True)


@pytest.mark.parametrize(("name", "value"), EXACT)
def test_each_field_restricts_to_its_exact_value(log, name, value):
    found = log.catalog.search(LOG_ID, DecisionQuery(**{name: value}))
    assert found == log.newest_first(body_is(name, value))
    assert found


@pytest.mark.parametrize("name", sorted({name for name, _ in EXACT}))
def test_a_value_that_no_decision_has_finds_nothing(log, name):
    for value in ("", "%", "nobody", "x' OR '1'='1", "agent_1", "AGENT-1", "finance "):
        assert log.catalog.search(LOG_ID, DecisionQuery(**{name: value})) == []


NOWHERE: dict[str, object] = {
    **{name: "nobody" for name, _ in EXACT},
    "from_ms": 2**53 - 1,
    "to_ms": 0,
    "users": ("9" * 32,),
    "fingerprints": ("9" * 32,),
    "rule": "no-rule",
    "bundle_revision": "9" * 64,
    "before": 0,
    "limit": 0,
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DecisionQuery)])
def test_no_field_of_a_query_is_ignored(log, name):
    assert log.catalog.search(LOG_ID, DecisionQuery(**{name: NOWHERE[name]})) == []


def test_a_rule_is_found_wherever_it_determined(log):
    for rule in ("rule-0", "rule-1", "shared-rule"):
        found = log.catalog.search(LOG_ID, DecisionQuery(rule=rule))
        assert found == log.newest_first(lambda record, rule=rule: rule in record.body.rules)
        assert found
    assert log.catalog.search(LOG_ID, DecisionQuery(rule="rule")) == []


def test_a_bundle_revision_is_found(log):
    found = log.catalog.search(LOG_ID, DecisionQuery(bundle_revision="1" * 64))
    assert found == log.newest_first(lambda record: record.body.bundle.revision == "1" * 64)


@pytest.mark.parametrize("users", [(USERS[0],), (USERS[0], USERS[1]), ("9" * 32,), ()])
def test_users_are_found_under_any_of_their_pseudonyms(log, users):
    found = log.catalog.search(LOG_ID, DecisionQuery(users=users))
    assert found == log.newest_first(lambda record: record.body.user in users)


def test_a_period_holds_its_beginning_and_not_its_end(log):
    times = [record.time_ms for _, record in log.decisions()]
    start, end = times[3], times[9]
    found = log.catalog.search(LOG_ID, DecisionQuery(from_ms=start, to_ms=end))
    assert found == log.newest_first(lambda record: start <= record.time_ms < end)
    assert log.catalog.search(LOG_ID, DecisionQuery(from_ms=end, to_ms=end)) == []


def test_conditions_are_all_demanded_together(log):
    wanted = DecisionQuery(agent="agent-1", server="healthcare", rule="shared-rule", decision="INDETERMINATE")
    found = log.catalog.search(LOG_ID, wanted)
    assert found == log.newest_first(
        lambda record: (
            record.body.agent == "agent-1"
            and record.body.server == "healthcare"
            and "shared-rule" in record.body.rules
            and record.body.decision == "INDETERMINATE"
        )
    )
    assert found


def test_who_sent_a_content_is_found(log):
    found = log.catalog.search(LOG_ID, DecisionQuery(fingerprints=(FINGERPRINT,)))
    assert found == log.newest_first(body_is("arguments_fingerprint", FINGERPRINT))
    assert found


def test_who_received_a_content_is_found_by_the_decision_that_let_it_through(log):
    outcomes = [record.body for record in log.records if isinstance(record.body, Outcome)]
    received = {outcome.decision_id for outcome in outcomes if outcome.result_fingerprint}
    found = log.catalog.search(LOG_ID, DecisionQuery(fingerprints=(RECEIVED,)))
    assert found == log.newest_first(lambda record: record.record_id in received)
    assert found
    both = log.catalog.search(LOG_ID, DecisionQuery(fingerprints=(RECEIVED, FINGERPRINT)))
    assert both == log.newest_first(
        lambda record: record.record_id in received or record.body.arguments_fingerprint == FINGERPRINT
    )
    assert log.catalog.search(LOG_ID, DecisionQuery(fingerprints=())) == []


def test_pages_follow_each_other_without_gap_or_overlap(log):
    pages: list[int] = []
    before = None
    while page := log.catalog.search(LOG_ID, DecisionQuery(limit=5, before=before)):
        assert len(page) <= 5
        pages += page
        before = page[-1]
    assert pages == log.newest_first(lambda _: True)


def test_no_search_returns_more_than_the_largest_page(empty):
    writer = empty.ledger.service
    empty.add(*(writer.record(make_decision()[0]) for _ in range(MAX_PAGE + 1)))
    found = empty.catalog.search(LOG_ID, DecisionQuery(limit=10 * MAX_PAGE))
    assert found == list(range(MAX_PAGE, 0, -1))


def test_a_search_never_sees_another_log(log):
    assert len(log.catalog.search(OTHER_LOG, DecisionQuery())) == 6
    assert log.catalog.search("nobody", DecisionQuery()) == []


# --- looking up ------------------------------------------------------------------------------------------------------


def test_every_record_is_found_by_its_id(log):
    found = [log.catalog.index_of(LOG_ID, record.record_id) for record in log.records]
    assert found == list(range(len(log.records)))


def test_an_id_is_not_found_in_another_log_or_when_nobody_has_it(log):
    for log_id, record_id in (
        (OTHER_LOG, log.records[0].record_id),
        (LOG_ID, "0" * 8 + "-0000-7000-8000-" + "0" * 12),
        (LOG_ID, "%"),
    ):
        with pytest.raises(NotFoundError):
            log.catalog.index_of(log_id, record_id)


def test_a_session_is_its_decisions_and_outcomes_in_order(log):
    for session in SESSIONS:
        expected = [index for index, record in enumerate(log.records) if getattr(record.body, "session", "") == session]
        assert log.catalog.session(LOG_ID, session) == expected
        assert any(isinstance(log.records[index].body, Outcome) for index in expected) == (session == SESSIONS[0])
    assert log.catalog.session(LOG_ID, "c" * 32) == []


def test_the_end_of_a_session_belongs_to_it_and_counts_as_no_decision(empty):
    gateway = Enforcer(enforcer_id="gateway-1")
    session, other = SESSIONS
    ends = [
        SessionEnd(session=one, calls=1, denied=0, reason="idle", agent="agent-1", started_ms=1, user=USERS[0])
        for one in (session, other)
    ]
    decision = make_decision(session=session, agent="agent-1", user=USERS[0])[0]
    empty.add(*map(gateway.record, [decision, ends[1], ends[0]]))
    assert empty.catalog.session(LOG_ID, session) == [0, 2]
    assert empty.catalog.session(LOG_ID, other) == [1]
    assert empty.catalog.of_type(LOG_ID, "session_end") == [1, 2]
    assert empty.catalog.counts(LOG_ID) == {"decision": 1, "session_end": 2}
    for wanted in (DecisionQuery(), DecisionQuery(session=session), DecisionQuery(users=(USERS[0],))):
        assert empty.catalog.search(LOG_ID, wanted) == [0]
    assert empty.catalog.search(LOG_ID, DecisionQuery(session=other)) == []
    assert sum(tally.decisions for tally in empty.catalog.tally(LOG_ID, from_index=0)) == 1
    for index, rows in empty.catalog.rows(LOG_ID, 0, 3).items():
        assert rows == project(empty.records[index], index, leaf_hash(empty.records[index]))


def test_the_stretch_of_a_period_reaches_from_its_first_record_to_its_last(log):
    times = {index: record.time_ms for index, record in enumerate(log.records)}
    for from_ms, to_ms in ((0, 2**53), (times[3], times[7]), (times[5], times[5] + 1)):
        within = [index for index, time_ms in times.items() if from_ms <= time_ms < to_ms]
        assert log.catalog.stretch(LOG_ID, from_ms, to_ms) == range(min(within), max(within) + 1)


def test_a_period_without_records_or_of_another_log_has_no_stretch(log):
    assert len(log.catalog.stretch(LOG_ID, 0, 1)) == 0
    assert len(log.catalog.stretch(OTHER_LOG, 1, 2)) == 0
    assert len(log.catalog.stretch("nobodys", 0, 2**53)) == 0


def test_the_outcomes_of_a_decision_are_found(log):
    for index, record in log.decisions():
        expected = [
            position
            for position, other in enumerate(log.records)
            if isinstance(other.body, Outcome) and other.body.decision_id == record.record_id
        ]
        assert log.catalog.outcomes_of(LOG_ID, record.record_id) == expected
        assert expected in ([], [index + 1])


def test_records_are_found_by_type_in_order(log):
    assert log.catalog.of_type(LOG_ID, "key") == [0, 1]
    assert log.catalog.of_type(LOG_ID, "decision") == [index for index, _ in log.decisions()]
    assert log.catalog.of_type(LOG_ID, "tombstone") == []
    assert [log.catalog.of_type(LOG_ID, "key", above=leaf) for leaf in (-1, 0, 1)] == [[0, 1], [1], []]


def test_records_of_a_type_are_found_without_those_of_one_enforcer(log):
    decisions = [index for index, _ in log.decisions()]
    assert log.catalog.of_type(LOG_ID, "decision", not_by="gateway-1") == []
    for nobodys in (log.ledger.service.enforcer_id, "nobody", "GATEWAY-1"):
        assert log.catalog.of_type(LOG_ID, "decision", not_by=nobodys) == decisions
    middle = decisions[10]
    assert log.catalog.of_type(LOG_ID, "decision", above=middle, not_by="nobody") == decisions[11:]
    assert log.catalog.of_type(LOG_ID, "key", not_by=log.ledger.service.enforcer_id) == []


def test_enforced_kills_are_found_in_order_and_no_observed_ones(log):
    def kills(*modes):
        return [at for at, one in log.decisions() if one.body.enforcement == "kill" and one.body.mode in modes]

    enforced = kills("enforce")
    assert set(kills("enforce", "observe")) > set(enforced) > {enforced[1]}
    assert log.catalog.kills(LOG_ID) == enforced
    assert log.catalog.kills(LOG_ID, above=enforced[0]) == enforced[1:]
    assert log.catalog.kills(LOG_ID, above=enforced[-1]) == log.catalog.kills("nobody's") == []
    assert log.catalog.kills(OTHER_LOG) != enforced


def test_the_last_record_of_a_type_is_known_for_each_stream(empty):
    service, first = empty.ledger.service, Enforcer("gateway-1", epoch="1" * 32)
    again, other = Enforcer("gateway-1", epoch="2" * 32), Enforcer("gateway-2", epoch="3" * 32)
    empty.add(*(service.record(service.introduction(one)) for one in (first, other)))
    beats = [one.record(one.heartbeat()) for one in (first, first, again, other)]
    empty.add(*beats, other.record(make_decision()[0]))
    assert sorted(empty.catalog.last_of_type(LOG_ID, "heartbeat")) == [3, 4, 5]
    assert empty.catalog.last_of_type(LOG_ID, "key") == [1]
    assert empty.catalog.last_of_type(LOG_ID, "tombstone") == []
    assert empty.catalog.last_of_type(OTHER_LOG, "heartbeat") == []
    empty.add(first.record(first.heartbeat()))
    assert sorted(empty.catalog.last_of_type(LOG_ID, "heartbeat")) == [4, 5, 7]


def test_an_enforcers_last_position_is_known(log):
    last = log.records[-1]
    assert log.catalog.last_position(LOG_ID, "gateway-1") == StreamPosition(last.epoch, last.seq, len(log.records) - 1)
    assert log.catalog.last_position(OTHER_LOG, "gateway-1") == StreamPosition("0" * 32, 6, 5)
    assert log.catalog.last_position(LOG_ID, "nobody") is None


def test_an_enforcers_records_are_counted_within_their_epoch_and_range(log):
    epoch = log.records[-1].epoch
    written = sum(record.enforcer_id == "gateway-1" for record in log.records)
    count = log.catalog.count_between
    assert count(LOG_ID, "gateway-1", epoch, 1, 10_000) == written
    assert count(LOG_ID, "gateway-1", epoch, 3, 5) == 3
    assert count(LOG_ID, "gateway-1", epoch, written, written + 5) == 1
    assert count(LOG_ID, "gateway-1", epoch, 5, 3) == 0
    assert count(LOG_ID, "gateway-1", "1" * 32, 1, 10_000) == 0
    assert count(OTHER_LOG, "gateway-1", epoch, 1, 10_000) == 6


def test_records_are_counted_by_type(log):
    outcomes = sum(isinstance(record.body, Outcome) for record in log.records)
    assert log.catalog.counts(LOG_ID) == {"key": 2, "decision": 24, "outcome": outcomes}
    assert log.catalog.counts("nobody") == {}


def tallied(records: list[tuple[int, Record]]) -> set[tuple[int, str, str, int, int]]:
    groups: dict[tuple[int, str, str], list[int]] = {}
    for index, record in records:
        key = (record.time_ms // MINUTE_MS * MINUTE_MS, record.body.enforcement, record.body.mode)
        groups.setdefault(key, []).append(index)
    return {(*key, len(indexes), max(indexes)) for key, indexes in groups.items()}


def test_decisions_are_tallied_by_minute_enforcement_and_mode(empty):
    writer = empty.ledger.service
    for number in range(12):
        writer.time_ms += 25_000
        empty.add(writer.record(make_decision(**varied(number))[0]))

    def tally(**bounds: int) -> set[tuple[int, str, str, int, int]]:
        found = empty.catalog.tally(LOG_ID, **bounds)
        assert len(found) == len(set(found))
        return {(one.minute_ms, one.enforcement, one.mode, one.decisions, one.last_index) for one in found}

    decisions = empty.decisions()
    middle = decisions[5][1].time_ms
    assert tally() == tallied(decisions)
    assert tally(from_ms=middle) == tallied([(i, record) for i, record in decisions if record.time_ms >= middle])
    assert tally(from_index=7) == tallied([(i, record) for i, record in decisions if i >= 7])
    assert tally(from_index=10_000) == set()
    assert empty.catalog.tally("nobody") == []


# --- the auditor's rows ----------------------------------------------------------------------------------------------


def test_the_rows_are_those_that_the_records_make(log):
    rows = log.catalog.rows(LOG_ID, 0, len(log.records))
    assert sorted(rows) == list(range(len(log.records)))
    for index, record in enumerate(log.records):
        expected = project(record, index, leaf_hash(record))
        assert {name: list(rows[index][name]) for name in PROJECTED_TABLES} == expected


def test_rows_are_restricted_to_the_range_and_the_log(log):
    assert sorted(log.catalog.rows(LOG_ID, 3, 7)) == [3, 4, 5, 6]
    assert log.catalog.rows(LOG_ID, 5, 5) == {}
    assert log.catalog.rows(LOG_ID, 10_000, 10_001) == {}
    assert sorted(log.catalog.rows(OTHER_LOG, 0, 100)) == list(range(6))


def test_rules_come_in_the_order_of_the_projection_whatever_the_database_collates_by(empty):
    rules = ("a-b", "a_b", "ab", "A", "B", "a", "Z-1", "z.1", "z/1", "z:1", "10", "9")
    service = empty.ledger.service
    record = service.record(make_decision(rules=tuple(sorted(rules)))[0])
    empty.add(record)
    rows = empty.catalog.rows(LOG_ID, 0, 1)[0]["decision_rules"]
    assert list(rows) == project(record, 0, leaf_hash(record))["decision_rules"]


def test_a_database_that_fails_is_a_storage_error(empty):
    catalog = SQLCatalog(empty.ledger.engine)
    with empty.ledger.engine.begin() as connection:
        for name in reversed(PROJECTED_TABLES):
            connection.exec_driver_sql(f"DROP TABLE {name}")
    for call in (
        lambda: catalog.index_of(LOG_ID, "x"),
        lambda: catalog.search(LOG_ID, DecisionQuery()),
        lambda: catalog.session(LOG_ID, "x"),
        lambda: catalog.outcomes_of(LOG_ID, "x"),
        lambda: catalog.of_type(LOG_ID, "key"),
        lambda: catalog.last_of_type(LOG_ID, "key"),
        lambda: catalog.last_position(LOG_ID, "x"),
        lambda: catalog.count_between(LOG_ID, "x", "y", 1, 2),
        lambda: catalog.counts(LOG_ID),
        lambda: catalog.tally(LOG_ID),
        lambda: catalog.rows(LOG_ID, 0, 1),
    ):
        with pytest.raises(StorageError):
            call()
