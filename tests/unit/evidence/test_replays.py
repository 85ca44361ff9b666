"""Re-performance: what is replayed, what is not and why, and the file that says so."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from evidence import pack
from evidence.reperform import reperform
from evidence.replays import ReplayLine, check_replay, encode_replays, parse_replays, reperformance
from evidence.summary import HeldBundle
from evidence.verification import Status
from ledger.bodies import Decision
from ledger.canonical import canonical_bytes
from ledger.errors import CommitmentError, MalformedError
from ledger.records import Record, decode_entry
from policies.bundles import Bundle, bundle_from_files
from policies.replay import ReplayClass
from tests.support.packs import POLICY, PackLog, seal, shop_bundle
from tests.support.policies import cedar_files
from tests.support.verifiers import verify_pack
from tests.unit.evidence.conftest import MadePack

LINES = (
    ReplayLine(leaf=3, classification="exact", same=True),
    ReplayLine(leaf=5, classification="exact", same=False, differences=("rules",)),
    ReplayLine(leaf=8, classification="erased", explanation="the request's payload is gone"),
    ReplayLine(leaf=9, classification="engine_changed", same=False, differences=("effect",), explanation="older"),
)


def run(log: PackLog, bundles: dict[str, Bundle] | None = None, **options: Any) -> list[ReplayLine]:
    located: list[tuple[int, Record]] = [(leaf, decode_entry(entry)) for leaf, entry in enumerate(log.entries)]
    decisions = [(leaf, record) for leaf, record in located if isinstance(record.body, Decision)]
    steps: list[int] = []
    lines = asyncio.run(
        reperform(
            decisions,
            log.bundles if bundles is None else bundles,
            options.get("open_request", log.open_request),
            log.evaluator,
            steps.append,
        )
    )
    assert [line.leaf for line in lines] == [leaf for leaf, _ in decisions]
    assert steps[-1:] == [len(decisions)][: len(steps)]
    return lines


# --- replaying -----------------------------------------------------------------------------------------------------


def test_decisions_are_made_again_under_the_bundle_that_they_name(log: PackLog) -> None:
    log.begin()
    log.call(arguments='{"amount": 450}')
    log.bundle = shop_bundle(POLICY.replace("500", "400"))
    log.publish_bundle(log.bundle)
    log.call(arguments='{"amount": 450}')
    lines = run(log)
    assert [(line.classification, line.same) for line in lines] == [("exact", True), ("exact", True)]


def test_more_decisions_than_a_batch_holds_stay_in_order(log: PackLog) -> None:
    log.begin()
    other = shop_bundle(POLICY.replace("500", "400"))
    log.publish_bundle(other)
    first = log.bundle
    for number in range(300):
        log.bundle = other if number % 3 else first
        log.call(arguments='{"amount": 1}', outcome=None)
    assert [line.same for line in run(log)] == [True] * 300


def test_a_message_that_no_policy_judged_is_a_missing_fact(log: PackLog) -> None:
    log.begin()
    log.refuse("malformed")
    (line,) = run(log)
    assert (line.classification, line.same) == ("missing_fact", None)
    assert line.explanation == "no policy was asked (malformed)"


def test_a_decision_whose_bundle_is_not_at_hand_is_a_missing_fact(log: PackLog) -> None:
    log.begin()
    log.call()
    (line,) = run(log, bundles={})
    assert line.explanation == "no copy of the bundle is at hand"


@pytest.mark.parametrize("gone", ["erased", "lost"])
def test_a_payload_that_is_gone_is_erased(log: PackLog, gone: str) -> None:
    log.begin()
    log.call()
    (record_id,) = log.requests
    if gone == "erased":
        log.erased.add(record_id)
    else:
        log.requests.clear()
    (line,) = run(log)
    assert (line.classification, line.same) == ("erased", None)


def test_a_payload_that_does_not_open_its_commitment_is_raised(log: PackLog) -> None:
    log.begin()
    log.call()

    def swapped(_: Record) -> bytes:
        raise CommitmentError("it does not open")

    with pytest.raises(CommitmentError):
        run(log, open_request=swapped)


def broken_bundle() -> Bundle:
    return bundle_from_files(cedar_files("permit (", name="shop"))


def test_a_bundle_that_did_not_load_then_and_does_not_now_is_the_same(log: PackLog) -> None:
    log.begin()
    log.bundle = broken_bundle()
    log.bundles[log.bundle.revision] = log.bundle
    log.call()
    (line,) = run(log)
    assert (line.classification, line.same) == ("exact", True)


def test_a_bundle_that_does_not_load_but_is_said_to_have_decided_comes_out_otherwise(log: PackLog) -> None:
    log.begin()
    log.bundle = broken_bundle()
    log.bundles[log.bundle.revision] = log.bundle
    log.call(changes={"reason": "policy", "decision": "DENY"})
    (line,) = run(log)
    assert (line.classification, line.same, line.differences) == ("exact", False, ("effect", "reason"))


def test_a_record_that_says_otherwise_than_the_policy_is_found_with_the_fields_that_differ(log: PackLog) -> None:
    log.begin()
    log.call(arguments='{"amount": 900}', changes={"decision": "PERMIT", "enforcement": "allow"})
    (line,) = run(log)
    assert (line.classification, line.same, line.differences) == ("exact", False, ("effect",))


# --- the file ------------------------------------------------------------------------------------------------------


def test_the_file_survives_its_bytes() -> None:
    assert parse_replays(encode_replays(LINES)) == LINES
    assert parse_replays(encode_replays(())) == ()


def test_totals_count_exact_replays_only_as_the_same_or_different() -> None:
    totals = reperformance(LINES)
    assert totals.by_class == {"engine_changed": 1, "erased": 1, "exact": 2}
    assert (totals.same, totals.different) == (1, (5,))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(same=2),
        lambda value: value.update(different=[]),
        lambda value: value["by_class"].update(exact=3),
        lambda value: value["by_class"].update(masked=0),
        lambda value: value["results"].pop(),
        lambda value: value["results"][0].update(same=None),
        lambda value: value["results"][0].update(explanation=""),
        lambda value: value["results"][0].update(**{"class": "Exact"}),
        lambda value: (value["results"][2].update(**{"class": "verified"}), value.update(by_class={"verified": 1})),
        lambda value: value["results"][0].update(leaf=-1),
        lambda value: value["results"][0].update(extra=1),
        lambda value: value.update(format="tallystick.reperformance/2"),
        lambda value: value.pop("results"),
    ],
)
def test_a_file_whose_totals_or_members_are_wrong_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(encode_replays(LINES))
    change(value)
    with pytest.raises(MalformedError):
        parse_replays(canonical_bytes(value))


def test_another_spelling_of_the_file_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_replays(encode_replays(LINES) + b"\n")


def test_there_are_the_classes_that_a_replay_has() -> None:
    known = msgspec.inspect.type_info(ReplayLine)
    assert isinstance(known, msgspec.inspect.StructType)
    (field,) = [field for field in known.fields if field.encode_name == "class"]
    assert isinstance(field.type, msgspec.inspect.LiteralType)
    assert set(field.type.values) == {one.value for one in ReplayClass}


# --- what cannot be true of a decision -------------------------------------------------------------------------------


def judged(log: PackLog, **options: Any) -> Decision:
    leaf = log.call(**options)
    body = decode_entry(log.entries[leaf]).body
    assert isinstance(body, Decision)
    return body


def held(log: PackLog, **changes: Any) -> dict[str, HeldBundle]:
    return {log.bundle.revision: dataclasses.replace(pack.held_bundle(log.bundle), **changes)}


@pytest.mark.parametrize(
    "line",
    [
        ReplayLine(leaf=1, classification="exact", same=True),
        ReplayLine(leaf=1, classification="exact", same=False, differences=("effect",)),
        ReplayLine(leaf=1, classification="engine_changed", same=True, explanation="older"),
        ReplayLine(leaf=1, classification="erased", explanation="gone"),
        ReplayLine(leaf=1, classification="limited", same=False, differences=("effect",), explanation="stopped"),
    ],
    ids=repr,
)
def test_a_line_that_can_be_true_of_its_decision_is_accepted(log: PackLog, line: ReplayLine) -> None:
    check_replay(line, judged(log), held(log))


@pytest.mark.parametrize("classification", ["exact", "engine_changed", "limited"])
@pytest.mark.parametrize(("same", "differences"), [(True, ("effect",)), (False, ()), (None, ("effect",))])
def test_a_replay_cannot_be_the_same_and_differ_nor_the_other_way_round(
    log: PackLog, classification: Any, same: bool | None, differences: tuple[str, ...]
) -> None:
    line = ReplayLine(leaf=1, classification=classification, same=same, differences=differences)
    with pytest.raises(MalformedError, match="leaf 1"):
        check_replay(line, judged(log), held(log))


def test_a_replay_that_was_not_made_cannot_be_exact(log: PackLog) -> None:
    with pytest.raises(MalformedError):
        check_replay(ReplayLine(leaf=1, classification="exact"), judged(log), held(log))


@pytest.mark.parametrize("changes", [{"bundle": None}, {"request": None}], ids=str)
def test_a_decision_without_bundle_or_request_cannot_have_been_made_again_exactly(
    log: PackLog, changes: dict[str, Any]
) -> None:
    line = ReplayLine(leaf=1, classification="exact", same=True)
    with pytest.raises(MalformedError, match="exact replay needs"):
        check_replay(line, judged(log, changes=changes), held(log))


def test_a_decision_whose_bundle_is_not_in_the_pack_cannot_have_been_made_again_exactly(log: PackLog) -> None:
    line = ReplayLine(leaf=1, classification="exact", same=True)
    with pytest.raises(MalformedError, match="exact replay needs"):
        check_replay(line, judged(log), {})


def test_a_decision_by_another_engine_cannot_have_been_made_again_exactly(log: PackLog) -> None:
    line = ReplayLine(leaf=1, classification="exact", same=True)
    with pytest.raises(MalformedError, match="exact replay needs"):
        check_replay(line, judged(log), held(log, engine="rego"))


IMPOSSIBLE: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("exact for a message that no policy judged", lambda line: line.update({"class": "exact", "same": True})),
    ("the same and different", lambda line: line.update(same=True, differences=["effect"])),
    ("of a class that there is not", lambda line: line.update({"class": "verified"})),
]


@pytest.mark.parametrize(("attack", "change"), IMPOSSIBLE, ids=[attack for attack, _ in IMPOSSIBLE])
def test_an_impossible_replay_under_genuine_seals_is_refused_by_the_verifier(
    made: MadePack, attack: str, change: Callable[[dict[str, Any]], object]
) -> None:
    value = json.loads(made.files[pack.REPLAYS])
    wanted = "missing_fact" if attack.startswith("exact") else "exact"
    line = next(line for line in value["results"] if line["class"] == wanted)
    change(line)
    line.pop("explanation", None)
    lines = [one for one in value["results"] if one["class"] == "exact"]
    value["by_class"] = dict(Counter(one["class"] for one in value["results"]))
    value["same"] = sum(one["same"] for one in lines)
    files = {**made.files, pack.REPLAYS: canonical_bytes(value)}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert report.status is Status.MALFORMED
    assert [failure.file for failure in report.failures if failure.status is Status.MALFORMED] == [pack.REPLAYS]
