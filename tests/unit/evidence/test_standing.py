"""Verdicts kept current as records arrive are, after every record, those of a pack that would be made just then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random  # noqa: TID251  # seeded: the same logs each time
from typing import Any

import msgspec
import pytest

from evidence.catalogue import framework_names, load_frameworks
from evidence.controls import Examination, distinct_tests, judge
from evidence.folding import Fold
from evidence.items import is_item, record_item
from evidence.links import Links
from evidence.population import Period
from evidence.standing import Standing
from evidence.subjects import RECORD_SUBJECTS, Item
from evidence.summary import ControlStatus
from ledger.bodies import BundleEvent, KeyEvent, Outcome
from ledger.errors import EvidenceError
from ledger.records import Record, decode_entry
from tests.support.control_cases import CASES, REMOVED, Change, item_of
from tests.support.packs import FROM_MS, TO_MS, PackLog

FRAMEWORKS = load_frameworks(framework_names())
TESTS = tuple(test for test in distinct_tests(FRAMEWORKS).values() if test.subject in RECORD_SUBJECTS)
PERIOD = Period(FROM_MS, TO_MS)
IDS = [f"019a9c14-6d81-7000-8000-{number:012x}" for number in range(1, 7)]


def seen(examination: Examination) -> tuple[Any, ...]:
    return examination.population, examination.passed, examination.failed, tuple(examination.deviations)


def afresh(
    records: Sequence[Record], prior: Sequence[tuple[int, Record]] = (), first: int = 0
) -> dict[str, tuple[Any, ...]]:
    """Examine every record by asking the predicates themselves, knowing of all records: what a pack would say."""
    links = Links(whole=first == 0)
    for leaf, record in (*prior, *enumerate(records, first)):
        links.add(leaf, record)
    examinations = {test.id: Examination(test) for test in TESTS}
    brought = [(leaf, record) for leaf, record in prior if isinstance(record.body, KeyEvent)]
    inside = [(leaf, record) for leaf, record in enumerate(records, first) if is_item(record, PERIOD)]
    for leaf, record in (*brought, *inside):
        subject, item = record_item(links, leaf, record)
        for examination in examinations.values():
            if examination.test.subject == subject:
                examination.see(item)
    return {name: seen(one) for name, one in examinations.items()}


def standing(records: Sequence[Record], **options: Any) -> Standing:
    first = options.get("first_leaf", 0)
    return Standing(TESTS, PERIOD, lambda leaf: records[leaf - first], **options)


def now(current: Standing) -> dict[str, tuple[Any, ...]]:
    return {name: seen(one) for name, one in current.examinations().items()}


# --- logs of any kind ----------------------------------------------------------------------------------------------


def plain(subject: str, change: Change) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(item_of(subject, change).roots[subject])
    return body


def _decision(random: Random) -> dict[str, Any]:
    body = plain("decision", {})
    body |= {
        "agent": random.choice(["finance-bot", "till-9", "unauthenticated"]),
        "decision": random.choice(["PERMIT", "PERMIT", "DENY", "NOT_APPLICABLE", "INDETERMINATE"]),
        "enforcement": random.choice(["allow", "allow", "allow", "deny", "ask", "kill"]),
        "mode": random.choice(["enforce", "enforce", "enforce", "observe"]),
        "session": random.choice(["5e", "5f"]) * 16,
        "reason": "policy",
    }
    if random.random() < 0.6:
        body["user"] = random.choice(["0a", "0b"]) * 16
    if random.random() < 0.3:
        body["tool_state"] = random.choice(["quarantined", "unpinned"])
    return body


def _body(random: Random) -> dict[str, Any]:
    kind = random.choices(["decision", "outcome", "approval", "bundle", "other"], [8, 7, 4, 2, 4])[0]
    if kind == "decision":
        return _decision(random)
    if kind == "outcome":
        return {
            "type": "outcome",
            "decision_id": random.choice(IDS),
            "status": random.choice(["completed", "failed", "not_forwarded", "unknown"]),
            "session": "5e" * 16,
        }
    if kind == "approval":
        body = plain("approval", {})
        return body | {
            "decision_id": random.choice(IDS),
            "action": random.choice(["held", "granted", "used", "denied"]),
        }
    if kind == "bundle":
        body = plain("bundle", {})
        return body | {
            "action": random.choice(["published", "tested", "reviewed", "activated"]),
            "revision": random.choice(["b0", "b1"]) * 32,
            "cases": random.choice([0, 3]),
        }
    subject = random.choice(["key", "heartbeat", "access", "tool", "containment", "drift", "mode", "retention"])
    changes = [
        change
        for name, cases in CASES.items()
        for change in (*cases.passing, *cases.failing, *cases.outside)
        if all(path.startswith(f"{subject}.") for path in change)
    ]
    return plain(subject, random.choice(changes))


def some_log(seed: int, length: int) -> list[Record]:
    """Return records in no sensible order: outcomes before decisions, two of one id, sessions of several agents."""
    random = Random(seed)
    base: dict[str, Any] = msgspec.to_builtins(item_of("heartbeat", {}).roots["envelope"])
    records = []
    for _ in range(length):
        body = _body(random)
        another = f"019a9c14-6d81-7000-9000-{random.getrandbits(48):012x}"
        envelope = base | {
            "record_id": random.choice(IDS) if body["type"] == "decision" else another,
            "enforcer_id": random.choice(["gateway-1", "gateway-1", "service"]),
            "time_ms": random.choice([FROM_MS + 5, FROM_MS + 6, TO_MS + 1]),
            "body": body,
        }
        records.append(msgspec.convert(envelope, Record))
    return records


@pytest.mark.parametrize("seed", range(30))
def test_after_every_record_the_examinations_are_those_of_a_pack_made_then(seed: int) -> None:
    records = some_log(seed, 40)
    current = standing(records)
    for size, record in enumerate(records, 1):
        current.add(record)
        assert now(current) == afresh(records[:size])


@pytest.mark.parametrize("seed", range(100, 115))
def test_it_does_not_matter_when_somebody_asks(seed: int) -> None:
    records = some_log(seed, 120)
    current = standing(records)
    for record in records:
        current.add(record)
    assert now(current) == afresh(records)
    assert now(current) == afresh(records)


@pytest.mark.parametrize("seed", range(200, 210))
def test_records_that_are_no_longer_kept_are_read_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evidence.standing._KEPT", 2)
    records = some_log(seed, 60)
    asked: list[int] = []

    def recall(leaf: int) -> Record:
        asked.append(leaf)
        return records[leaf]

    current = Standing(TESTS, PERIOD, recall)
    for record in records:
        current.add(record)
    assert now(current) == afresh(records)
    assert asked


@pytest.mark.parametrize("seed", range(300, 310))
def test_a_range_that_begins_later_has_the_keys_that_came_along(seed: int) -> None:
    records = some_log(seed, 60)
    prior = [(leaf, one) for leaf, one in enumerate(records[:20]) if isinstance(one.body, KeyEvent | BundleEvent)]
    current = standing(records[20:], first_leaf=20, prior=prior)
    for record in records[20:]:
        current.add(record)
    assert now(current) == afresh(records[20:], prior=prior, first=20)


def test_an_ordinary_day_comes_out_as_in_its_pack(log: PackLog, tmp_path: Path) -> None:
    log.ordinary_day()
    log.publish()
    records = [decode_entry(entry) for entry in log.entries]
    current = standing(records)
    for record in records:
        current.add(record)
    made = log.pack(tmp_path / "pack.zip", request=log.request(frameworks=FRAMEWORKS))
    controls = [control for sheet in made.summary.frameworks for control in sheet.controls]
    results = {test.test: test for control in controls for test in control.tests}
    for name, examination in current.examinations().items():
        result = results[name]
        assert (examination.population, examination.passed, examination.failed) == (
            result.population,
            result.passed,
            result.failed,
        )


def test_a_verdict_turns_when_the_outcome_comes(log: PackLog) -> None:
    """An allowed call without outcome deviates; the outcome puts that right, and a second one spoils it again."""
    framework = next(one for one in FRAMEWORKS if one.id == "nist-800-53")
    control = next(one for one in framework.controls if one.id == "AU-2")
    log.begin()
    log.call(at_ms=FROM_MS + 10, outcome=None, arguments='{"amount": 1}')
    log.call(at_ms=FROM_MS + 20, arguments='{"amount": 501}')
    log.call(at_ms=FROM_MS + 30, arguments='{"amount": 2}')
    records = [decode_entry(entry) for entry in log.entries]
    (open_call,) = [one for one in records if one.time_ms == FROM_MS + 10]
    done = next(one for one in records if isinstance(one.body, Outcome))
    body = msgspec.structs.replace(done.body, decision_id=open_call.record_id)
    later = [msgspec.structs.replace(done, record_id=record_id, body=body) for record_id in IDS[:2]]
    everything = [*records, *later]
    current = standing(everything)
    states = []
    for record in everything:
        current.add(record)
        states.append(judge(framework, control, current.examinations()).status)
    assert states[-3:] == [ControlStatus.NOT_SATISFIED, ControlStatus.SATISFIED, ControlStatus.NOT_SATISFIED]


def test_a_call_behind_a_kill_that_was_withheld_after_all_is_held_against_nobody() -> None:
    """Its decision spoils the killed one, and the outcome that says it was not forwarded puts that right."""
    kill = item_of("decision", {"decision.decision": "DENY", "decision.enforcement": "kill"})
    withheld = {"outcome.decision_id": IDS[1], "outcome.status": "not_forwarded", "outcome.result": REMOVED}
    bodies = [
        kill.roots["decision"],
        item_of("decision", {}).roots["decision"],
        item_of("outcome", withheld).roots["outcome"],
    ]
    records = [
        msgspec.structs.replace(
            one, record_id=IDS[number], body=bodies[number], enforcer_id="gateway-1", time_ms=FROM_MS + number
        )
        for number, one in enumerate(some_log(1, 3))
    ]
    current = standing(records)
    failed = []
    for size, record in enumerate(records, 1):
        current.add(record)
        failed.append(current.examinations()["kill-ends-session"].failed)
        assert now(current) == afresh(records[:size])
    assert failed == [0, 1, 0]


def test_deviations_are_put_into_words_as_far_as_somebody_wants_them() -> None:
    records = some_log(7, 200)
    current = standing(records)
    for record in records:
        current.add(record)
    all_of_them = current.examinations()
    some = current.examinations(2)
    for name, examination in some.items():
        assert examination.failed == all_of_them[name].failed
        assert examination.deviations == all_of_them[name].deviations[:2]
    with pytest.raises(EvidenceError):
        current.examinations(10_001)


# --- the fold by itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_fold_says_of_every_case_what_the_test_says(name: str) -> None:
    test = distinct_tests(FRAMEWORKS)[name]
    cases = CASES[name]
    items = [item_of(test.subject, change) for change in (*cases.passing, *cases.failing, *cases.outside)]
    fold, examination = Fold((test,)), Examination(test)
    for item in [*items, *items]:
        fold.add(test.subject, item)
        examination.see(item)
    (tally,) = fold.tallies()
    assert (tally.population, tally.passed, tally.failed) == seen(examination)[:3]


def test_items_of_one_kind_are_told_apart_where_a_number_equals_a_truth_value() -> None:
    """In Python 1 equals True; in the language of tests it does not."""
    tests = [
        Examination(one).test
        for one in distinct_tests(FRAMEWORKS).values()
        if one.id in ("root-recomputed", "record-ids-unique")
    ]
    fold = Fold(tuple(tests))
    values: list[object] = [True, 1, True, 1]
    for value in values:
        fold.add("population", Item(None, {"population": {"root_recomputed": value, "repeated_ids": value}}))
    tallies = dict(zip((test.id for test in tests), fold.tallies(), strict=True))
    assert tallies["root-recomputed"].passed == 2
    assert tallies["root-recomputed"].failed == 2


def test_what_was_taken_back_is_not_counted() -> None:
    test = distinct_tests(FRAMEWORKS)["default-deny"]
    fold = Fold((test,))
    outcome = fold.add("decision", item_of("decision", CASES["default-deny"].failing[0]))
    assert outcome is not None
    assert fold.tallies()[0].failed == 1
    fold.remove(outcome)
    assert (fold.tallies()[0].population, fold.tallies()[0].failed) == (0, 0)
    assert fold.add("stream", item_of("stream", {})) is None
