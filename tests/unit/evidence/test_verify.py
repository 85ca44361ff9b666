"""Verifying packs: what is proven, and every attack that must be named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from evidence import pack
from evidence.catalogue import load_framework
from evidence.container import write_container
from evidence.controls import Framework, framework_value, parse_framework
from evidence.scope import framework_bytes, parse_scope
from evidence.verification import Status, VerificationReport
from ledger.bodies import Outcome
from ledger.canonical import canonical_bytes, sha256
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import MalformedError
from ledger.notes import SignedNote, parse_note
from ledger.records import decode_entry, encode_record, sign_record
from ledger.signers.local import LocalEnvelopeSigner
from tests.support.ledger import make_key
from tests.support.packs import (
    FROM_MS,
    POLICY,
    SMALL_FRAMEWORK,
    PackLog,
    pack_entries,
    read_files,
    seal,
    shop_bundle,
    write_files,
)
from tests.support.verifiers import verify_pack
from tests.unit.evidence.conftest import MadePack

ENTRIES = "population/entries-0-{size}.jsonl.gz"


def failures(report: VerificationReport) -> dict[str, str]:
    return {failure.file: failure.reason for failure in report.failures}


def checked(report: VerificationReport) -> set[str]:
    return {check.name for check in report.checked}


def edited(made: MadePack, path: str, change: Callable[[Any], Any]) -> dict[str, bytes]:
    """Return the files of the pack with one JSON file changed, still canonical."""
    value = json.loads(made.files[path])
    return {**made.files, path: canonical_bytes(change(value) or value)}


# --- what is proven ------------------------------------------------------------------------------------------------


def test_a_genuine_pack_is_proven_and_every_check_is_named(made: MadePack) -> None:
    report = verify_pack(made.data, trust=made.log.trust)
    assert report.status is Status.PROVEN
    assert report.failures == []
    assert checked(report) == {
        "container",
        "trust",
        "checkpoints",
        "entries",
        "signatures",
        "digests",
        "proof files",
        "policies",
        "mappings",
        "derivation",
        "custody",
    }
    assert report.lines()[-1] == "PROVEN, and SIMULATED: evidence of nothing real"


def test_a_pack_on_disk_is_verified_like_its_bytes(made: MadePack) -> None:
    report = verify_pack(made.assembled.path, trust=made.log.trust)
    assert report.status is Status.PROVEN
    assert report.scope is not None
    assert report.scope.pack_id == made.assembled.pack_id


def test_without_trust_from_outside_the_pack_is_only_self_asserted(made: MadePack) -> None:
    report = verify_pack(made.data, trust=None)
    assert report.failures == []
    assert report.self_asserted
    assert report.status is Status.TRUST_NOT_MET
    assert report.lines()[-1].startswith("SELF-ASSERTED")


def test_the_report_says_that_replay_payloads_and_the_pdf_were_not_checked(made: MadePack) -> None:
    told = " ".join(verify_pack(made.data, trust=made.log.trust).not_checked)
    for word in ("replay", "payloads", "pack.pdf", "custody", "--known"):
        assert word in told


def test_the_report_says_that_nothing_outside_the_operators_control_dates_the_log(made: MadePack) -> None:
    notes = verify_pack(made.data, trust=made.log.trust).notes
    assert any("nothing outside the operator's control dates this log" in note for note in notes)


def test_the_report_as_json_has_the_same_verdict(made: MadePack) -> None:
    value = verify_pack(made.data, trust=made.log.trust).value()
    assert value["status"] == 0
    assert value["verdict"] == "PROVEN, and SIMULATED: evidence of nothing real"
    assert value["simulated"] is True
    assert value["pack_id"] == made.assembled.pack_id
    assert canonical_bytes(value)


def test_a_pack_of_simulated_records_is_never_called_proven_alone(made: MadePack) -> None:
    for trust in (made.log.trust, None):
        report = verify_pack(made.data, trust=trust)
        assert report.simulated
        assert report.lines()[-1].endswith("and SIMULATED: evidence of nothing real")
        count = len(made.log.entries)
        assert any(note.startswith(f"SIMULATED: {count} of {count} records were made") for note in report.notes)


def test_a_pack_of_real_records_is_not_called_simulated(tmp_path: Path) -> None:
    log = PackLog(simulated=False)
    log.ordinary_day()
    log.publish()
    report = verify_pack(log.pack(tmp_path / "real.zip").path, trust=log.trust)
    log.close()
    assert not report.simulated
    assert report.lines()[-1] == "PROVEN"
    assert not any("SIMULATED" in line for line in report.lines())


# --- other people's keys -------------------------------------------------------------------------------------------


def test_a_log_and_pack_forged_anew_under_other_keys_do_not_meet_the_trust(made: MadePack, tmp_path: Path) -> None:
    forger = PackLog(seed=100)
    forger.ordinary_day()
    forger.publish()
    forged = forger.pack(tmp_path / "forged.zip").path
    assert verify_pack(forged, trust=forger.trust).status is Status.PROVEN
    report = verify_pack(forged, trust=made.log.trust)
    forger.close()
    assert report.status is Status.TRUST_NOT_MET
    assert "not signed with" in failures(report)[pack.END_CHECKPOINT]


def test_a_pack_signed_by_keys_that_the_log_did_not_introduce_is_refused(made: MadePack) -> None:
    strangers = [
        LocalEnvelopeSigner(make_key("pack", ED25519, "packs.acme", seed=91)),
        LocalEnvelopeSigner(make_key("pack", MLDSA44, "packs.acme", seed=92)),
    ]
    report = verify_pack(seal(made.files, strangers), trust=made.log.trust)
    assert report.status is Status.TRUST_NOT_MET
    assert "log introduced" in failures(report)[pack.MANIFEST_ENVELOPE]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_pack_signed_with_one_algorithm_is_refused(made: MadePack, kept: int) -> None:
    report = verify_pack(seal(made.files, [made.log.pack_signers[kept]]), trust=made.log.trust)
    assert report.status is Status.TRUST_NOT_MET
    assert pack.MANIFEST_ENVELOPE in failures(report)


def test_an_additional_stranger_among_the_signers_is_refused(made: MadePack) -> None:
    stranger = LocalEnvelopeSigner(make_key("pack", ED25519, "packs.acme", seed=91))
    report = verify_pack(seal(made.files, [*made.log.pack_signers, stranger]), trust=made.log.trust)
    assert report.status is Status.TRUST_NOT_MET


def test_the_packs_own_trust_policy_is_never_used_where_one_is_given(made: MadePack, tmp_path: Path) -> None:
    forger = PackLog(seed=100)
    forger.ordinary_day()
    forger.publish()
    files = read_files(forger.pack(tmp_path / "forged.zip").path.read_bytes())
    files[pack.TRUST_POLICY] = made.files[pack.TRUST_POLICY]
    report = verify_pack(seal(files, forger.pack_signers), trust=made.log.trust)
    forger.close()
    assert report.status is Status.TRUST_NOT_MET


@pytest.mark.parametrize("dropped", [0, 1])
def test_an_end_checkpoint_without_one_of_its_signatures_does_not_meet_the_trust(made: MadePack, dropped: int) -> None:
    note = parse_note(made.files[pack.END_CHECKPOINT])
    lines = tuple(line for number, line in enumerate(note.signatures) if number != dropped)
    files = {**made.files, pack.END_CHECKPOINT: SignedNote(note.text, lines).encode()}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert report.status is Status.TRUST_NOT_MET


# --- rows: edited, dropped, added, moved ---------------------------------------------------------------------------


def rows(made: MadePack) -> list[bytes]:
    return list(made.log.entries)


def with_rows(made: MadePack, changed: list[bytes]) -> dict[str, bytes]:
    return {**made.files, ENTRIES.format(size=len(made.log.entries)): pack_entries(changed)}


def edit_a_row(made: MadePack) -> list[bytes]:
    changed = rows(made)
    changed[10] = changed[10].replace(b'"agent":"till-1"', b'"agent":"till-2"')
    assert changed != rows(made)
    return changed


def retag_a_row(made: MadePack) -> list[bytes]:
    changed = rows(made)
    leaf = next(i for i, entry in enumerate(changed) if b'"enforcement":"deny"' in entry)
    changed[leaf] = changed[leaf].replace(b'"enforcement":"deny"', b'"enforcement":"allow"')
    return changed


def swap_rows(made: MadePack) -> list[bytes]:
    changed = rows(made)
    changed[20], changed[22] = changed[22], changed[20]
    return changed


def drop_and_repeat_a_row(made: MadePack) -> list[bytes]:
    changed = rows(made)
    changed[15] = changed[16]
    return changed


@pytest.mark.parametrize("attack", [edit_a_row, retag_a_row, swap_rows, drop_and_repeat_a_row])
@pytest.mark.parametrize("sealed", [False, True], ids=["left unsealed", "sealed anew"])
def test_a_changed_row_is_found_even_if_the_pack_is_sealed_anew(
    made: MadePack, attack: Callable[[MadePack], list[bytes]], sealed: bool
) -> None:
    files = with_rows(made, attack(made))
    data = seal(files, made.log.pack_signers) if sealed else write_files(files)
    report = verify_pack(data, trust=made.log.trust)
    assert report.status is Status.FAILED
    assert ENTRIES.format(size=len(made.log.entries)) in failures(report)


def test_a_row_signed_again_by_its_own_enforcer_is_found_by_the_root(made: MadePack) -> None:
    changed = rows(made)
    leaf = next(i for i, entry in enumerate(changed) if b'"type":"outcome"' in entry)
    record = decode_entry(changed[leaf])
    assert isinstance(record.body, Outcome)
    body = msgspec.structs.replace(record.body, status="failed")
    forged = sign_record(msgspec.structs.replace(record, body=body), made.log.gateway.key)
    changed[leaf] = encode_record(forged)
    report = verify_pack(seal(with_rows(made, changed), made.log.pack_signers), trust=made.log.trust)
    assert report.status is Status.FAILED
    assert "root" in failures(report)[ENTRIES.format(size=len(made.log.entries))]


@pytest.mark.parametrize(
    "change",
    [lambda r: r[:-1], lambda r: [*r, r[-1]], lambda r: r[1:], lambda r: r[:7] + r[8:], lambda r: r[:0]],
    ids=["the last one dropped", "the last one twice", "the first one dropped", "one in the middle dropped", "all"],
)
def test_a_dropped_or_added_row_is_found(made: MadePack, change: Callable[[list[bytes]], list[bytes]]) -> None:
    data = seal(with_rows(made, change(rows(made))), made.log.pack_signers)
    report = verify_pack(data, trust=made.log.trust)
    assert report.status in (Status.FAILED, Status.MALFORMED)
    assert ENTRIES.format(size=len(made.log.entries)) in failures(report)


def test_a_dropped_tail_with_an_older_checkpoint_is_found(log: PackLog, tmp_path: Path) -> None:
    log.ordinary_day()
    older = log.publish()
    size = len(log.entries)
    log.call(arguments='{"amount": 999}')
    log.publish()
    files = read_files(log.pack(tmp_path / "pack.zip").path.read_bytes())
    del files[ENTRIES.format(size=len(log.entries))]
    files[ENTRIES.format(size=size)] = pack_entries(log.entries[:size])
    files[pack.END_CHECKPOINT] = older
    report = verify_pack(write_files(files), trust=log.trust)
    assert report.status is Status.FAILED
    assert pack.END_CHECKPOINT in failures(report)


def test_a_stale_checkpoint_is_found(log: PackLog, tmp_path: Path) -> None:
    log.ordinary_day()
    older = log.publish()
    log.call()
    log.publish()
    files = read_files(log.pack(tmp_path / "pack.zip").path.read_bytes())
    report = verify_pack(seal({**files, pack.END_CHECKPOINT: older}, log.pack_signers), trust=log.trust)
    assert report.status is Status.FAILED
    assert "leaves" in failures(report)[pack.END_CHECKPOINT]


# --- what an insider with pack keys can write ----------------------------------------------------------------------


def _set(path: list[str | int], value: Any) -> Callable[[Any], Any]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        assert document[path[-1]] != value
        document[path[-1]] = value

    return change


INSIDER: list[tuple[str, Callable[[Any], Any]]] = [
    ("population/counts.json", _set(["decisions"], 17)),
    ("population/counts.json", _set(["by_enforcement", "deny"], 1)),
    ("population/counts.json", _set(["observed"], 0)),
    ("population/counts.json", _set(["streams", 0, "verdict"], "gap")),
    ("population/counts.json", _set(["denied", 0, "failed_condition"], "another-rule")),
    ("controls/soc2/CC8.1.json", _set(["status"], "satisfied")),
    ("controls/soc2/CC6.1.json", _set(["reason"], "everything is well")),
    ("controls/hipaa/164.312-b.json", _set(["tests", 0, "passed"], 99)),
    ("exceptions.json", _set(["failed"], 1)),
    ("gaps.json", _set(["gaps"], [])),
    ("frameworks/soc2.json", _set(["title"], "Another framework")),
    ("scope.json", _set(["claims", "from_ms"], FROM_MS + 20_000)),
    ("scope.json", _set(["claims", "to_ms"], FROM_MS + 20_000)),
    ("scope.json", _set(["claims", "not_applicable"], [{"framework": "soc2", "control": "CC8.1", "reason": "no"}])),
    ("scope.json", _set(["simulated"], False)),
    ("scope.json", _set(["tenant"], "somebody-else")),
    ("scope.json", _set(["log_id"], "other")),
    ("scope.json", _set(["environment"], "production")),
    ("scope.json", _set(["pack_id"], "00000000-0000-5000-8000-000000000000")),
    ("scope.json", _set(["proved"], ["That everything is well."])),
    ("custody.json", _set(["signers", 0, "fingerprint"], "0" * 64)),
    ("reperformance.json", _set(["same"], 99)),
    ("consistency.json", _set(["path"], ["0" * 64])),
]


@pytest.mark.parametrize(("path", "change"), INSIDER, ids=[f"{path} {n}" for n, (path, _) in enumerate(INSIDER)])
def test_what_does_not_follow_from_the_entries_is_found_under_genuine_seals(
    made: MadePack, path: str, change: Callable[[Any], Any]
) -> None:
    report = verify_pack(seal(edited(made, path, change), made.log.pack_signers), trust=made.log.trust)
    assert report.status in (Status.FAILED, Status.MALFORMED)
    assert report.failures
    assert "signatures" in checked(report)


def test_a_wrong_period_is_found_because_counts_follow_from_the_right_one(made: MadePack) -> None:
    change = _set(["claims", "from_ms"], FROM_MS + 15_000)
    report = verify_pack(seal(edited(made, pack.SCOPE, change), made.log.pack_signers), trust=made.log.trust)
    found = failures(report)
    assert pack.REPLAYS in found or "population/counts.json" in found


def test_another_time_than_the_checkpoints_signature_gives_is_found(made: MadePack) -> None:
    change = _set(["claims", "checkpoint_ms"], 1)
    report = verify_pack(seal(edited(made, pack.SCOPE, change), made.log.pack_signers), trust=made.log.trust)
    assert "time" in failures(report)[pack.END_CHECKPOINT]


def test_an_omitted_replay_is_found(made: MadePack) -> None:
    value = json.loads(made.files[pack.REPLAYS])
    value["results"] = value["results"][1:]
    value["by_class"]["exact"] -= 1
    value["same"] -= 1
    files = {**made.files, pack.REPLAYS: canonical_bytes(value)}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert "every decision of the period" in failures(report)[pack.REPLAYS]


def gutted(log: PackLog) -> Framework:
    """Return a catalogue of the shipped name and version, each of whose tests holds for anything."""
    value: Any = framework_value(log.request().frameworks[0])
    tests = [{**test, "subject": "population", "where": {"all": []}, "must": {"all": []}} for test in value["tests"]]
    controls = [
        {"tests": [tests[0]["id"]], **{name: told for name, told in control.items() if name != "not_tested"}}
        for control in value["controls"]
    ]
    return parse_framework({**value, "tests": tests, "controls": controls})


def test_a_gutted_mapping_under_a_shipped_name_does_not_meet_the_trust(log: PackLog, tmp_path: Path) -> None:
    weak = gutted(log)
    assert (weak.id, weak.mapping_version) == ("soc2", load_framework("soc2").mapping_version)
    log.begin()
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 900}', changes={"enforcement": "allow"}, outcome=None)
    log.end()
    log.publish()
    path = log.pack(tmp_path / "pack.zip", request=log.request(frameworks=(weak,))).path
    digest = sha256(framework_bytes(weak)).hex()
    report = verify_pack(path, trust=log.trust)
    assert report.status is Status.TRUST_NOT_MET
    assert digest in failures(report)["frameworks/soc2.json"]
    assert "mappings" not in checked(report)
    assert verify_pack(path, trust=log.trust, accepted_mappings=["0" * 64]).status is Status.TRUST_NOT_MET
    accepted = verify_pack(path, trust=log.trust, accepted_mappings=["0" * 64, digest])
    assert accepted.status is Status.PROVEN
    assert any(check.name == "mappings" and digest in check.detail for check in accepted.checked)


def test_another_version_of_a_shipped_mapping_is_accepted_by_its_digest_only(made: MadePack, tmp_path: Path) -> None:
    other = replace(made.log.request().frameworks[0], mapping_version="1b")
    path = made.log.pack(tmp_path / "pack.zip", request=made.log.request(frameworks=(other,))).path
    assert verify_pack(path, trust=made.log.trust).status is Status.TRUST_NOT_MET
    digest = sha256(framework_bytes(other)).hex()
    assert verify_pack(path, trust=made.log.trust, accepted_mappings=(digest,)).status is Status.PROVEN


def test_a_mapping_of_a_name_that_does_not_ship_is_named_though_its_verdicts_follow_from_it(
    made: MadePack, tmp_path: Path
) -> None:
    small = parse_framework(SMALL_FRAMEWORK)
    path = made.log.pack(tmp_path / "pack.zip", request=made.log.request(frameworks=(small,))).path
    report = verify_pack(path, trust=made.log.trust)
    assert report.status is Status.PROVEN
    assert any("small, version 1" in note for note in report.notes)
    assert "mappings" not in checked(report)


# --- files: swapped, missing, added --------------------------------------------------------------------------------


def proof_files(made: MadePack) -> list[str]:
    return sorted(path for path in made.files if path.startswith("proofs/"))


def test_swapped_attachments_are_both_named(made: MadePack) -> None:
    one, other = proof_files(made)[:2]
    files = {**made.files, one: made.files[other], other: made.files[one]}
    report = verify_pack(write_files(files), trust=made.log.trust)
    assert report.status is Status.FAILED
    assert {one, other} <= failures(report).keys()


def test_swapped_proof_files_are_found_under_genuine_seals(made: MadePack) -> None:
    one, other = proof_files(made)[:2]
    files = {**made.files, one: made.files[other], other: made.files[one]}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert {one, other} <= failures(report).keys()


def test_an_edited_report_is_named(made: MadePack) -> None:
    files = {**made.files, pack.PACK_PDF: made.files[pack.PACK_PDF] + b"%"}
    report = verify_pack(write_files(files), trust=made.log.trust)
    assert report.status is Status.FAILED
    assert pack.PACK_PDF in failures(report)


def test_a_changed_policy_is_named(made: MadePack) -> None:
    path = next(path for path in made.files if path.endswith("policy.cedar"))
    files = {**made.files, path: made.files[path].replace(b"500", b"900")}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert report.status is Status.FAILED
    folder = path.removesuffix("policy.cedar")
    assert "revision" in failures(report)[folder]


def test_a_bundle_that_nothing_was_decided_by_is_refused(made: MadePack) -> None:
    other = shop_bundle(POLICY.replace("500", "900"))
    files = {**made.files, **pack.bundle_members(other)}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert "no decision" in failures(report)[pack.bundle_folder(other.revision)]


def test_a_bundle_manifest_in_another_spelling_is_refused(made: MadePack) -> None:
    path = next(path for path in made.files if path.startswith("policies/") and path.endswith("/manifest.json"))
    files = {**made.files, path: made.files[path] + b"\n"}
    report = verify_pack(seal(files, made.log.pack_signers), trust=made.log.trust)
    assert report.status is Status.FAILED


@pytest.mark.parametrize("path", sorted(["scope.json", "README.txt", "gaps.json", "custody.json", "pack.pdf"]))
def test_a_missing_file_is_named(made: MadePack, path: str) -> None:
    files = {name: data for name, data in made.files.items() if name != path}
    report = verify_pack(write_files(files), trust=made.log.trust)
    assert report.status is not Status.PROVEN
    assert path in failures(report)


def test_every_file_is_needed(made: MadePack) -> None:
    for path in made.files:
        files = {name: data for name, data in made.files.items() if name != path}
        report = verify_pack(write_files(files), trust=made.log.trust)
        assert report.status not in (Status.PROVEN, Status.NOT_CHECKED), path
        assert any(path == failure.file or path in failure.reason for failure in report.failures), path


@pytest.mark.parametrize("path", ["extra.txt", "proofs/0.tlog-proof", "policies/x", "controls/soc2/CC9.9.json", "a/b"])
def test_an_additional_file_is_named_even_under_genuine_seals(made: MadePack, path: str) -> None:
    files = {**made.files, path: b"{}"}
    try:
        data = seal(files, made.log.pack_signers)
    except MalformedError:  # no manifest can list this path: it can only be slipped in
        data = write_files(files)
    report = verify_pack(data, trust=made.log.trust)
    assert report.status in (Status.FAILED, Status.MALFORMED)
    assert any(path in failure.file or path in failure.reason for failure in report.failures)


def test_files_in_another_order_are_refused(made: MadePack) -> None:
    file = io.BytesIO()
    write_container(file, dict(reversed(made.files.items())))
    report = verify_pack(file.getvalue(), trust=made.log.trust)
    assert report.status is Status.MALFORMED
    assert "order" in failures(report)["the pack"]


def test_what_is_no_pack_is_malformed(made: MadePack, tmp_path: Path) -> None:
    empty = tmp_path / "empty.zip"
    empty.touch()
    assert verify_pack(empty, trust=made.log.trust).status is Status.MALFORMED
    assert verify_pack(b"", trust=made.log.trust).status is Status.MALFORMED
    assert verify_pack(b"PK\x03\x04 but not one", trust=made.log.trust).status is Status.MALFORMED
    assert verify_pack(made.data[:-1], trust=made.log.trust).status is Status.MALFORMED
    assert verify_pack(made.data + b"\0", trust=made.log.trust).status is Status.MALFORMED


def test_a_pack_that_cannot_be_read_could_not_be_checked(made: MadePack, tmp_path: Path) -> None:
    assert verify_pack(tmp_path / "nothing.zip", trust=made.log.trust).status is Status.NOT_CHECKED


def test_text_from_a_pack_cannot_steer_the_terminal(made: MadePack) -> None:
    files = edited(made, pack.SCOPE, lambda scope: scope["claims"].update(origin="log.example/\x1b[31macme"))
    report = verify_pack(write_files(files), trust=made.log.trust)
    assert not any("\x1b" in line for line in report.lines())
    assert parse_scope(files[pack.SCOPE])
