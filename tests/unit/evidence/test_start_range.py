"""A range that begins later: what comes along from before it, with proofs, and what happens if it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from evidence.population import Period, Survey
from evidence.start_range import StartRange, collect_start_range, encode_start_range, parse_start_range
from evidence.statements import not_proved
from ledger.bodies import BundleEvent, Heartbeat, KeyEvent
from ledger.canonical import canonical_bytes
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.completeness import Verdict
from ledger.errors import MalformedError, ProofError, RootMismatchError, VerificationError
from ledger.proofs import TreeHead
from ledger.records import decode_entry
from tests.support.packs import FROM_MS, TO_MS, PackLog


def begun(log: PackLog) -> tuple[StartRange, TreeHead]:
    """Write a log with a past, and return the start range at the end of it."""
    log.begin()
    for number in range(5):
        log.call(at_ms=FROM_MS - 50_000 + 1000 * number, arguments='{"amount": 1}')
    head = parse_unverified_checkpoint(log.publish(at_ms=FROM_MS - 1000)).claim.head
    return collect_start_range(log.prover, head.size), head


def survey(log: PackLog, start: StartRange) -> Survey:
    made = Survey(period=Period(FROM_MS, TO_MS), start=start)
    for entry in log.entries[start.size :]:
        made.add(entry)
    return made


def test_key_and_bundle_records_and_the_last_of_each_stream_come_along(log: PackLog) -> None:
    start, head = begun(log)
    start.verify(head)
    records = [decode_entry(entry) for entry in log.entries]
    wanted = {i for i, record in enumerate(records) if isinstance(record.body, KeyEvent | BundleEvent)}
    for enforcer in ("service", "gateway-1"):
        wanted.add(max(i for i, record in enumerate(records) if record.enforcer_id == enforcer))
    assert [prior.leaf for prior in start.prior] == sorted(wanted)


def test_it_survives_its_bytes(log: PackLog) -> None:
    start, _ = begun(log)
    assert parse_start_range(encode_start_range(start)) == start


def test_the_range_continues_the_tree_and_the_numbers(log: PackLog) -> None:
    start, _ = begun(log)
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.end()
    made = survey(log, start)
    assert made.tree.root() == log.integrator.integrate(len(log.entries))
    assert {stream.verdict for stream in made.streams()} == {Verdict.COMPLETE}
    counts = made.population(made.streams(), root_recomputed=True)
    assert (counts.first_leaf, counts.decisions, counts.outside) == (start.size, 1, 0)
    assert made.signatures == len(log.entries) - start.size


def test_a_number_missing_right_after_the_start_is_a_gap(log: PackLog) -> None:
    start, _ = begun(log)
    log.gateway.seq += 1
    log.call(at_ms=FROM_MS + 1000)
    log.end()
    verdicts = {stream.enforcer_id: stream.verdict for stream in survey(log, start).streams()}
    assert verdicts == {"gateway-1": Verdict.GAP, "service": Verdict.COMPLETE}


def test_a_wrong_running_count_right_after_the_start_is_a_gap(log: PackLog) -> None:
    start, _ = begun(log)
    log.gateway.running_count += 1
    log.call(at_ms=FROM_MS + 1000)
    log.end()
    assert Verdict.GAP in {stream.verdict for stream in survey(log, start).streams()}


def test_a_stream_of_which_nothing_arrives_in_the_range_has_an_unknown_tail(log: PackLog) -> None:
    start, _ = begun(log)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    made = survey(log, start)
    (gateway,) = [stream for stream in made.streams() if stream.enforcer_id == "gateway-1"]
    assert (gateway.verdict, gateway.records) == (Verdict.TAIL_UNKNOWN, 0)
    assert made.open_enforcers() == ["gateway-1"]


@pytest.mark.parametrize(
    ("kind", "time_ms", "verdict"),
    [
        ("stop", FROM_MS - 20_000, Verdict.TAIL_UNKNOWN),
        ("stop", TO_MS, Verdict.COMPLETE),
        ("periodic", TO_MS, Verdict.COMPLETE),
    ],
)
def test_a_stream_that_passed_the_end_before_the_range_is_complete_and_one_that_stopped_is_not(
    log: PackLog, kind: Any, time_ms: int, verdict: Verdict
) -> None:
    log.begin()
    log.add(log.gateway, Heartbeat(kind=kind, version="1", spool_depth=0), at_ms=time_ms)
    log.publish(at_ms=FROM_MS - 1000)
    start = collect_start_range(log.prover, len(log.entries))
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    (gateway,) = [stream for stream in survey(log, start).streams() if stream.enforcer_id == "gateway-1"]
    assert gateway.verdict is verdict


def retired_gateway(log: PackLog) -> StartRange:
    log.begin()
    log.call(at_ms=FROM_MS - 40_000)
    retired = KeyEvent(
        action="retired", purpose="enforcer", algorithm="ed25519", subject="gateway-1", key_id="gateway-1-key"
    )
    log.add(log.service, retired, at_ms=FROM_MS - 20_000)
    log.publish(at_ms=FROM_MS - 1000)
    return collect_start_range(log.prover, len(log.entries))


def test_a_stream_whose_key_was_retired_before_the_period_is_complete(log: PackLog) -> None:
    start = retired_gateway(log)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    made = survey(log, start)
    assert {stream.verdict for stream in made.streams()} == {Verdict.COMPLETE}
    assert made.open_enforcers() == []


def test_the_last_record_of_a_silent_enforcer_left_out_does_not_make_the_range_complete(log: PackLog) -> None:
    # The attack of a pack's maker: gateway-1 fell silent before the range. Its introduction gives it away.
    start, head = begun(log)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    records = [decode_entry(prior.entry) for prior in start.prior]
    kept = [prior for prior, one in zip(start.prior, records, strict=True) if one.enforcer_id != "gateway-1"]
    fewer = replace(start, prior=tuple(kept))
    fewer.verify(head)
    made = survey(log, fewer)
    assert [one.verdict for one in made.streams() if one.enforcer_id == "gateway-1"] == [Verdict.TAIL_UNKNOWN]
    assert made.open_enforcers() == ["gateway-1"]


def test_with_its_introduction_left_out_as_well_the_statements_say_that_nothing_shows_it(log: PackLog) -> None:
    start, _ = begun(log)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS)
    fewer = replace(start, prior=tuple(one for one in start.prior if b"gateway-1" not in one.entry))
    made = survey(log, fewer)
    counts = made.population(made.streams(), root_recomputed=True)
    assert counts.completeness == "complete"
    told = " ".join(not_proved(counts))
    assert f"all key, bundle and stream records before leaf {start.size}" in told
    assert "completeness is said of the streams that came along" in told


def test_a_bundle_activated_before_the_range_is_known(log: PackLog) -> None:
    start, _ = begun(log)
    leaf = log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    values = survey(log, start).links.derived(leaf, decode_entry(log.entries[leaf]))
    assert values["bundle_published"]
    assert values["bundle_activated"]


def test_without_its_key_records_no_signature_holds(log: PackLog) -> None:
    start, head = begun(log)
    log.call(at_ms=FROM_MS + 1000)
    for dropped in range(4):
        fewer = replace(start, prior=tuple(one for number, one in enumerate(start.prior) if number != dropped))
        fewer.verify(head)
        if decode_entry(start.prior[dropped].entry).body.purpose == "pack":  # type: ignore[union-attr]
            assert len(survey(log, fewer).keyring.pack_keys()) == 1
            continue
        with pytest.raises(VerificationError):
            survey(log, fewer)


@pytest.mark.parametrize(
    "change",
    [
        lambda start: replace(start, hashes=(bytes(32), *start.hashes[1:])),
        lambda start: replace(start, prior=(replace(start.prior[0], leaf=1), *start.prior[1:])),
        lambda start: replace(start, prior=(replace(start.prior[0], entry=start.prior[1].entry), *start.prior[1:])),
        lambda start: replace(start, prior=(replace(start.prior[0], path=start.prior[1].path), *start.prior[1:])),
    ],
)
def test_what_is_not_in_the_tree_before_the_range_is_refused(
    log: PackLog, change: Callable[[StartRange], StartRange]
) -> None:
    start, head = begun(log)
    with pytest.raises((RootMismatchError, ProofError)):
        change(start).verify(head)


def test_a_start_range_of_another_size_is_refused(log: PackLog) -> None:
    start, head = begun(log)
    with pytest.raises(MalformedError):
        start.verify(TreeHead(size=head.size - 1, root=head.root))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(extra=1),
        lambda value: value.pop("hashes"),
        lambda value: value.update(format="tallystick.start-range/2"),
        lambda value: value["prior"].reverse(),
        lambda value: value["prior"].append(value["prior"][-1]),
        lambda value: value["prior"][-1].update(leaf=value["size"]),
        lambda value: value["prior"][0].update(leaf=-1),
        lambda value: value["prior"][0].update(entry="A"),
        lambda value: value["prior"][0].update(path=["ab"]),
        lambda value: value.update(hashes=["zz" * 32]),
    ],
)
def test_a_file_that_is_none_is_refused(log: PackLog, change: Callable[[dict[str, Any]], object]) -> None:
    start, _ = begun(log)
    value = json.loads(encode_start_range(start))
    change(value)
    with pytest.raises(MalformedError):
        parse_start_range(canonical_bytes(value))


def test_hashes_that_do_not_fit_the_size_are_refused(log: PackLog) -> None:
    start, _ = begun(log)
    with pytest.raises(MalformedError):
        replace(start, hashes=start.hashes[1:]).tree()
