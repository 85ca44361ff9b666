"""Making packs: what goes in, what is refused, and that nothing is left behind where it fails."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evidence import pack
from evidence.assemble import AnchoredCopy
from evidence.controls import framework_value, parse_framework
from evidence.scope import NotApplicable
from evidence.summary import ControlStatus, PackSummary
from evidence.verification import Status
from ledger.bodies import Heartbeat, KeyEvent
from ledger.canonical import sha256
from ledger.errors import (
    CommitmentError,
    EvidenceError,
    IncompletePopulationError,
    RootMismatchError,
    TrustPolicyError,
)
from ledger.ports import AnchorReceipt
from ledger.signers.local import LocalEnvelopeSigner
from ledger.trust import TrustPolicy
from policies.bundles import bundle_from_files
from tests.support.ledger import Enforcer, make_key
from tests.support.packs import FROM_MS, POLICY, TO_MS, PackLog, late_day, read_files, render_stand_in, shop_bundle
from tests.support.verifiers import verify_pack
from tests.unit.evidence.conftest import MadePack


def sheet(summary: PackSummary, framework: str, control: str) -> Any:
    (found,) = [one for one in summary.frameworks if one.framework == framework]
    (result,) = [one for one in found.controls if one.control_id == control]
    return result


def gap_kinds(summary: PackSummary) -> set[str]:
    return {gap.kind for gap in summary.gaps}


# --- what a pack is ------------------------------------------------------------------------------------------------


def test_a_pack_has_exactly_the_files_of_the_format(made: MadePack) -> None:
    paths = set(made.files)
    revision = made.log.bundle.revision
    assert {path for path in paths if "/" not in path} == {
        "README.txt",
        "access-log.jsonl",
        "consistency.json",
        "content-manifest.json",
        "custody.json",
        "exceptions.json",
        "gaps.json",
        "manifest.dsse.json",
        "manifest.json",
        "pack.pdf",
        "reperformance.json",
        "scope.json",
        "trust.policy",
    }
    assert {path.split("/")[0] for path in paths if "/" in path} == {
        "checkpoints",
        "controls",
        "frameworks",
        "policies",
        "population",
        "proofs",
    }
    assert {path for path in paths if path.startswith("policies/")} == {
        f"policies/{revision}/{name}"
        for name in ("manifest.json", "policy.cedar", "schema.cedarschema", "parameters.json")
    }
    assert len([path for path in paths if path.startswith("controls/soc2/")]) == 20


def test_the_bundles_files_make_the_revision_that_decisions_name(made: MadePack) -> None:
    folder = pack.bundle_folder(made.log.bundle.revision)
    files = {path.removeprefix(folder): data for path, data in made.files.items() if path.startswith(folder)}
    assert bundle_from_files(files).revision == made.log.bundle.revision


def test_digests_and_sizes_are_those_of_the_file_on_disk(made: MadePack) -> None:
    assembled = made.assembled
    assert assembled.size_bytes == len(made.data)
    assert assembled.sha256 == sha256(made.data).hex()
    assert assembled.digests == {path: sha256(data).hex() for path, data in made.files.items()}
    assert assembled.pdf == made.files[pack.PACK_PDF]


def test_only_its_owner_can_read_the_file(made: MadePack) -> None:
    assert stat.S_IMODE(made.assembled.path.stat().st_mode) == 0o600


def test_nothing_but_the_pack_is_left_in_the_folder(made: MadePack) -> None:
    assert list(made.assembled.path.parent.iterdir()) == [made.assembled.path]


def test_no_payload_is_in_a_pack(made: MadePack) -> None:
    everything = b"".join(made.files.values()) + b"".join(made.log.entries)
    for request in made.log.requests.values():
        assert request not in everything
    assert b"ann" not in b"".join(made.log.entries)


def test_the_renderer_gets_the_content_manifest_and_the_end_checkpoint(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    seen: dict[str, bytes] = {}

    def render(summary: PackSummary, attachments: Mapping[str, bytes]) -> bytes:
        seen.update(attachments)
        return render_stand_in(summary, attachments)

    files = read_files(log.pack(tmp_path / "pack.zip", render=render).path.read_bytes())
    assert seen == {path: files[path] for path in (pack.CONTENT_MANIFEST, pack.END_CHECKPOINT)}


def test_progress_reaches_the_end_of_every_step(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    steps: dict[str, tuple[int, int]] = {}
    log.pack(tmp_path / "pack.zip", progress=lambda step, done, total: steps.update({step: (done, total)}))
    assert steps == {
        "walk": (len(log.entries), len(log.entries)),
        "re-perform": (2, 2),
        "prove": (2, 2),
        "render": (1, 1),
    }


# --- verdicts over a real log --------------------------------------------------------------------------------------


def test_an_ordinary_day_satisfies_the_controls_on_access(made: MadePack) -> None:
    summary = made.assembled.summary
    for framework, control in (("soc2", "CC6.1"), ("hipaa", "164.312(a)(1)"), ("hipaa", "164.312(b)")):
        assert sheet(summary, framework, control).status is ControlStatus.SATISFIED, control


def test_observed_decisions_are_counted_and_satisfy_nothing(made: MadePack) -> None:
    result = sheet(made.assembled.summary, "soc2", "CC6.1")
    (allowed,) = [test for test in result.tests if test.test == "allowed-only-on-permit"]
    assert allowed.population == 12
    assert made.assembled.summary.population.by_enforcement["allow"] == 13
    assert result.reason.endswith("1 of 19 decisions were only observed and are not counted")


def test_changes_outside_the_period_are_insufficient_evidence(made: MadePack) -> None:
    result = sheet(made.assembled.summary, "soc2", "CC8.1")
    assert result.status is ControlStatus.NOT_TESTED
    assert "insufficient evidence" in result.reason


def test_an_activation_without_test_and_review_is_a_deviation(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.service.time_ms = FROM_MS + 1000
    log.publish_bundle(shop_bundle(POLICY.replace("500", "400")))
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    result = sheet(assembled.summary, "soc2", "CC8.1")
    assert result.status is ControlStatus.NOT_SATISFIED
    exceptions = json.loads(read_files(assembled.path.read_bytes())["exceptions.json"])
    assert exceptions["failed"] == 2
    assert [one["test"] for one in exceptions["exceptions"]] == ["activation-follows-test", "activation-follows-review"]
    assert exceptions["exceptions"][0]["controls"] == ["soc2 CC8.1"]
    assert exceptions["exceptions"][0]["cause"] == "derived.tests_passed is false, not true"


@pytest.mark.parametrize(
    ("test", "write"),
    [
        ("refused-not-forwarded", lambda log: log.call(arguments='{"amount": 900}', outcome="completed")),
        ("one-outcome-each", lambda log: log.call(arguments='{"amount": 1}', outcome=None)),
        ("held-not-forwarded", lambda log: log.call(name="void", outcome="completed")),
        (
            "allowed-only-on-permit",
            lambda log: log.call(arguments='{"amount": 900}', changes={"enforcement": "allow"}),
        ),
        (
            "allowed-only-if-authenticated",
            lambda log: log.call(arguments='{"amount": 1}', authn="none"),
        ),
        (
            "kill-ends-session",
            lambda log: (log.call(name="dump", session="k"), log.call(arguments='{"amount": 1}', session="k")),
        ),
        ("failure-is-denial", lambda log: log.call(changes={"decision": "INDETERMINATE", "enforcement": "ask"})),
        ("default-deny", lambda log: log.call(name="unlisted", changes={"enforcement": "ask"})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_enforcement_must_never_do_is_a_deviation_of_the_access_controls(
    log: PackLog, tmp_path: Path, test: str, write: Any
) -> None:
    log.begin()
    log.gateway.time_ms = FROM_MS + 1000
    log.call(arguments='{"amount": 1}')
    log.call(arguments='{"amount": 900}')
    write(log)
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    result = sheet(assembled.summary, "soc2", "CC6.1")
    assert result.status is ControlStatus.NOT_SATISFIED
    assert test in {one.test for one in result.tests if one.failed}
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN


def test_an_empty_period_satisfies_no_control_about_decisions(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    assert assembled.summary.population.decisions == 0
    for control in ("CC6.1", "CC5.2", "PI1.4"):
        result = sheet(assembled.summary, "soc2", control)
        assert result.status is ControlStatus.NOT_TESTED
        assert "insufficient evidence" in result.reason
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN


def test_not_applicable_is_the_requests_word(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    excluded = (NotApplicable(framework="soc2", control="CC8.1", reason="policies are fixed"),)
    assembled = log.pack(tmp_path / "pack.zip", request=log.request(not_applicable=excluded))
    assert sheet(assembled.summary, "soc2", "CC8.1").status is ControlStatus.NOT_APPLICABLE
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN


# --- gaps ----------------------------------------------------------------------------------------------------------


def test_a_whole_and_closed_period_has_only_the_gaps_that_it_has(made: MadePack) -> None:
    assert gap_kinds(made.assembled.summary) == {"observed", "replay", "simulated"}


def test_an_open_period_and_open_calls_are_gaps(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.call(at_ms=FROM_MS + 1, arguments='{"amount": 1}', outcome=None)
    log.publish()
    summary = log.pack(tmp_path / "pack.zip", sources=log.sources(anchors=())).summary
    assert {"stream", "open period", "outcome", "dating"} <= gap_kinds(summary)
    assert any("1 of 1 allowed calls" in gap.sentence for gap in summary.gaps)


def test_a_late_decision_is_a_gap_that_names_its_leaf(log: PackLog, tmp_path: Path) -> None:
    leaf = late_day(log)
    log.publish()
    summary = log.pack(tmp_path / "pack.zip").summary
    assert summary.population.late == (leaf,)
    assert any(f"leaves {leaf}." in gap.sentence for gap in summary.gaps if gap.kind == "late")


def test_a_period_that_ends_after_the_checkpoint_is_neither_complete_nor_closed(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    year_ms = 365 * 86_400_000
    for enforcer in (log.service, log.gateway):
        log.add(enforcer, enforcer.heartbeat(), at_ms=TO_MS + year_ms)
    log.publish(at_ms=TO_MS + year_ms - 1000)
    path = tmp_path / "pack.zip"
    summary = log.pack(path, request=log.request(to_ms=TO_MS + year_ms)).summary
    assert summary.population.completeness == "tail unknown"
    assert any("signed before the period was over" in gap.sentence for gap in summary.gaps)
    assert sheet(summary, "hipaa", "164.312(b)").status is ControlStatus.NOT_SATISFIED
    assert verify_pack(path, trust=log.trust).status is Status.PROVEN


def test_a_silent_gateway_is_named_and_fails_the_controls_on_completeness(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.add(log.service, log.service.introduction(Enforcer(enforcer_id="gateway-2", seed=9)))
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.call(arguments='{"amount": 501}')
    log.end()
    log.publish()
    summary = log.pack(tmp_path / "pack.zip").summary
    assert summary.population.completeness == "tail unknown"
    (gap,) = [gap.sentence for gap in summary.gaps if gap.kind == "stream"]
    assert gap.startswith("gateway-2: tail unknown: it was introduced at leaf 8")
    assert sheet(summary, "hipaa", "164.312(b)").status is ControlStatus.NOT_SATISFIED


def test_a_bundle_of_which_there_is_no_copy_is_a_gap_and_its_decisions_cannot_be_replayed(
    log: PackLog, tmp_path: Path
) -> None:
    log.small_day()
    log.publish()
    log.bundles.clear()
    assembled = log.pack(tmp_path / "pack.zip")
    assert {"bundle", "replay"} <= gap_kinds(assembled.summary)
    assert assembled.summary.reperformance.by_class == {"missing_fact": 2}
    assert sheet(assembled.summary, "soc2", "CC4.1").status is ControlStatus.NOT_TESTED
    report = verify_pack(assembled.path, trust=log.trust)
    assert report.status is Status.PROVEN
    assert any("0 of 1 bundles" in check.detail for check in report.checked)


def test_an_anchor_of_a_later_checkpoint_is_left_out(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    later = AnchoredCopy("directory", AnchorReceipt(size=10_000, location="x", anchored_ms=1))
    assert log.pack(tmp_path / "pack.zip", sources=log.sources(anchors=(later,))).summary.anchors == ()


# --- re-performance ------------------------------------------------------------------------------------------------


def test_every_decision_of_the_period_is_made_again(made: MadePack) -> None:
    reperformance = made.assembled.summary.reperformance
    assert reperformance.by_class == {"exact": 18, "missing_fact": 1}
    assert (reperformance.same, reperformance.different) == (18, ())


def test_a_decision_that_comes_out_otherwise_is_named_and_fails_its_controls(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.call(at_ms=FROM_MS + 1, arguments='{"amount": 1}')
    leaf = log.call(arguments='{"amount": 900}', changes={"rules": ("another-rule",)})
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    assert assembled.summary.reperformance.different == (leaf,)
    assert sheet(assembled.summary, "soc2", "CC4.1").status is ControlStatus.NOT_SATISFIED
    results = json.loads(read_files(assembled.path.read_bytes())["reperformance.json"])["results"]
    assert results[1] == {"leaf": leaf, "class": "exact", "same": False, "differences": ["rules"]}


def test_an_erased_payload_is_listed_as_erased(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    log.erased.add(next(iter(log.requests)))
    assert log.pack(tmp_path / "pack.zip").summary.reperformance.by_class == {"erased": 1, "exact": 1}


def test_a_payload_that_does_not_open_its_commitment_ends_the_making(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()

    def swapped(_: object) -> bytes:
        raise CommitmentError("the payload does not open the commitment of the field request")

    with pytest.raises(CommitmentError):
        log.pack(tmp_path / "pack.zip", sources=log.sources(open_request=swapped))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_gives_another_bundle_ends_the_making(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    other = shop_bundle(POLICY.replace("500", "900"))
    with pytest.raises(EvidenceError, match="gave bundle"):
        log.pack(tmp_path / "pack.zip", sources=log.sources(bundle=lambda _: other))


# --- what is refused -----------------------------------------------------------------------------------------------


def test_an_empty_log_makes_no_pack(log: PackLog, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="no records"):
        log.pack(tmp_path / "pack.zip")


@pytest.mark.parametrize(
    "changes",
    [
        {"from_ms": TO_MS, "to_ms": FROM_MS},
        {"zone": "Europe/Nowhere"},
        {"zone": "../../etc/passwd"},
        {"frameworks": ()},
        {"title": ""},
        {"title": "x" * 301},
        {"not_applicable": (NotApplicable(framework="soc2", control="CC99", reason="no"),)},
        {"not_applicable": (NotApplicable(framework="soc2", control="CC8.1", reason="no"),) * 2},
    ],
    ids=str,
)
def test_a_request_that_cannot_be_met_is_refused(log: PackLog, tmp_path: Path, changes: dict[str, Any]) -> None:
    log.small_day()
    log.publish()
    with pytest.raises(EvidenceError):
        log.pack(tmp_path / "pack.zip", request=log.request(**changes))
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_population_is_refused_where_completeness_is_demanded(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.call(at_ms=FROM_MS + 1)
    log.publish()
    with pytest.raises(IncompletePopulationError):
        log.pack(tmp_path / "pack.zip", request=log.request(require_complete=True))


def test_a_complete_population_is_accepted_where_completeness_is_demanded(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    assert log.pack(tmp_path / "pack.zip", request=log.request(require_complete=True)).path.exists()


def test_a_checkpoint_that_does_not_meet_the_makers_trust_is_refused(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    with pytest.raises(TrustPolicyError):
        log.pack(tmp_path / "pack.zip", sources=log.sources(trust=TrustPolicy()))


def test_a_pack_key_that_the_log_did_not_introduce_is_refused(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    stranger = LocalEnvelopeSigner(make_key("pack", "ed25519", "packs.acme", seed=77))
    with pytest.raises(TrustPolicyError, match="not introduced"):
        log.pack(tmp_path / "pack.zip", signers=[stranger, log.pack_signers[1]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_pack_needs_both_algorithms(log: PackLog, tmp_path: Path, count: int) -> None:
    log.small_day()
    log.publish()
    with pytest.raises(EvidenceError):
        log.pack(tmp_path / "pack.zip", signers=log.pack_signers[:count])


def test_a_file_that_is_there_is_never_overwritten(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    path = tmp_path / "pack.zip"
    path.write_bytes(b"precious")
    with pytest.raises(EvidenceError, match="already"):
        log.pack(path)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_whose_entries_do_not_lead_to_its_checkpoint_makes_no_pack(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    other = PackLog()
    other.ordinary_day()
    del other.entries[len(log.entries) :]
    other.publish()
    with pytest.raises(RootMismatchError):
        log.pack(tmp_path / "pack.zip", sources=log.sources(prover=other.prover))
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_renderer_that_fails_leaves_nothing_behind(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()

    def broken(summary: PackSummary, attachments: Mapping[str, bytes]) -> bytes:
        raise EvidenceError("the report could not be rendered")

    with pytest.raises(EvidenceError, match="rendered"):
        log.pack(tmp_path / "pack.zip", render=broken)
    assert list(tmp_path.iterdir()) == []


# --- ranges that begin later ---------------------------------------------------------------------------------------


def with_a_past(log: PackLog) -> bytes:
    log.begin()
    log.call(at_ms=FROM_MS - 40_000)
    start = log.publish(at_ms=FROM_MS - 10_000)
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.call(arguments='{"amount": 900}')
    log.end()
    log.publish()
    return start


def test_a_range_may_begin_at_an_earlier_checkpoint(log: PackLog, tmp_path: Path) -> None:
    start = with_a_past(log)
    assembled = log.pack(tmp_path / "pack.zip", request=log.request(start_checkpoint=start))
    population = assembled.summary.population
    assert (population.first_leaf, population.decisions, population.outside) == (9, 2, 0)
    assert population.completeness == "complete"
    assert sheet(assembled.summary, "soc2", "CC6.1").status is ControlStatus.SATISFIED
    assert sheet(assembled.summary, "hipaa", "164.312(c)(2)").status is ControlStatus.NOT_SATISFIED
    files = read_files(assembled.path.read_bytes())
    assert {pack.START_CHECKPOINT, pack.START_RANGE, f"population/entries-9-{len(log.entries)}.jsonl.gz"} <= set(files)
    report = verify_pack(assembled.path, trust=log.trust)
    assert report.status is Status.PROVEN
    assert {"consistency", "entries"} <= {check.name for check in report.checked}
    assert any("key, bundle and stream records" in sentence for sentence in report.not_checked)


def test_a_start_checkpoint_signed_within_the_period_is_refused(log: PackLog, tmp_path: Path) -> None:
    start = with_a_past(log)
    request = log.request(start_checkpoint=start, from_ms=FROM_MS - 20_000)
    with pytest.raises(EvidenceError, match="after the period had begun"):
        log.pack(tmp_path / "pack.zip", request=request)


def test_a_start_checkpoint_that_is_not_earlier_is_refused(log: PackLog, tmp_path: Path) -> None:
    with_a_past(log)
    with pytest.raises(EvidenceError, match="earlier"):
        log.pack(tmp_path / "pack.zip", request=log.request(start_checkpoint=log.checkpoints[-1]))


def test_a_key_retired_before_the_range_no_longer_signs_packs(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    signer = log.pack_signers[0]
    retired = KeyEvent(
        action="retired",
        purpose="pack",
        algorithm="ed25519",
        subject="packs.acme",
        key_id=signer.envelope_key.key_id,
    )
    log.add(log.service, retired)
    log.end()
    log.publish()
    with pytest.raises(TrustPolicyError, match="not introduced"):
        log.pack(tmp_path / "pack.zip")


def test_while_keys_are_replaced_either_pair_signs(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.pack_signers += [
        LocalEnvelopeSigner(make_key("pack", "ed25519", "packs.acme", seed=31)),
        LocalEnvelopeSigner(make_key("pack", "ml-dsa-44", "packs.acme", seed=32)),
    ]
    for signer in log.pack_signers[2:]:
        log.add(log.service, log._pack_key(signer))
    log.end()
    log.publish()
    for number, signers in enumerate((log.pack_signers[:2], log.pack_signers[2:])):
        path = log.pack(tmp_path / f"{number}.zip", signers=signers).path
        assert verify_pack(path, trust=log.trust).status is Status.PROVEN


# --- the same evidence ---------------------------------------------------------------------------------------------


def test_the_same_evidence_has_the_same_id_whoever_asks(made: MadePack, tmp_path: Path) -> None:
    again = made.log.pack(tmp_path / "again.zip", request=made.log.request(requested_by="c" * 32, requested_ms=1))
    assert again.pack_id == made.assembled.pack_id
    files = read_files(again.path.read_bytes())
    differing = {path for path in files if files[path] != made.files[path]}
    assert differing == {
        "custody.json",
        "pack.pdf",
        "content-manifest.json",
        "manifest.json",
        "manifest.dsse.json",
    }


def test_the_same_request_gives_the_same_bytes_but_for_signatures(made: MadePack, tmp_path: Path) -> None:
    files = read_files(made.log.pack(tmp_path / "again.zip").path.read_bytes())
    assert {path for path in files if files[path] != made.files[path]} == {"manifest.dsse.json"}


@pytest.mark.parametrize(
    "changes",
    [
        {"to_ms": TO_MS + 1},
        {"from_ms": FROM_MS - 1},
        {"not_applicable": (NotApplicable(framework="soc2", control="CC8.1", reason="no"),)},
    ],
    ids=["end", "start", "not applicable"],
)
def test_other_evidence_has_another_id(made: MadePack, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = made.log.pack(tmp_path / "other.zip", request=made.log.request(**changes))
    assert other.pack_id != made.assembled.pack_id


def test_another_mapping_is_other_evidence(made: MadePack, tmp_path: Path) -> None:
    soc2, hipaa = made.log.request().frameworks
    value = framework_value(replace(soc2, mapping_version="2b"))
    request = made.log.request(frameworks=(parse_framework(value), hipaa))
    assert made.log.pack(tmp_path / "other.zip", request=request).pack_id != made.assembled.pack_id


def test_a_log_of_real_records_is_not_stamped(tmp_path: Path) -> None:
    log = PackLog(simulated=False)
    log.small_day()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    stamped = log.pack(tmp_path / "stamped.zip", request=log.request(simulated=True))
    log.close()
    assert not assembled.summary.simulated
    assert b"SIMULATED" not in read_files(assembled.path.read_bytes())["README.txt"]
    assert stamped.summary.simulated
    assert "simulated" in gap_kinds(stamped.summary)


def test_one_simulated_record_stamps_the_pack_whatever_its_maker_says(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip", request=log.request(simulated=False))
    assert assembled.summary.simulated
    assert read_files(assembled.path.read_bytes())["README.txt"].startswith(b"SIMULATED")


def test_a_heartbeat_of_the_period_is_what_the_monitoring_control_sees(log: PackLog, tmp_path: Path) -> None:
    log.small_day()
    log.publish()
    assert sheet(log.pack(tmp_path / "one.zip").summary, "soc2", "CC7.2").status is ControlStatus.NOT_TESTED
    log.add(log.gateway, Heartbeat(kind="periodic", version="1", spool_depth=0), at_ms=TO_MS - 1)
    log.add(log.gateway, log.gateway.heartbeat(), at_ms=TO_MS + 2000)
    log.publish()
    assert sheet(log.pack(tmp_path / "two.zip").summary, "soc2", "CC7.2").status is ControlStatus.SATISFIED
