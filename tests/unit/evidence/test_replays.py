"""Re-performance: what is replayed, what is not and why, and the file that says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from evidence.reperform import reperform
from evidence.replays import ReplayLine, encode_replays, parse_replays, reperformance
from ledger.canonical import canonical_bytes
from ledger.errors import CommitmentError, MalformedError
from ledger.records import Decision, Record, decode_entry
from policies.bundles import Bundle, bundle_from_files
from tests.support.packs import POLICY, PackLog, shop_bundle
from tests.support.policies import cedar_files

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
