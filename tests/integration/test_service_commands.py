"""What a responder and an auditor type, against a running service: what is shown, and what is told who mistyped it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.commitments import fingerprint
from service.auth import Role
from service.cli.main import main
from tests.support.commands import Finished
from tests.support.ledger import LOG_ID
from tests.support.packs import ready_bundle
from tests.support.policies import cedar_bundle, cedar_files
from tests.support.service import EnforcerClient, RunningService, start_service

SESSION = "5" * 32
NOBODYS = "01234567-89ab-7cde-8f01-23456789abcd"
HEX_32, HEX_64, UUID = "32 hexadecimal digits", "64 hexadecimal digits", NOBODYS

Command = Callable[..., Finished]


@dataclass(frozen=True)
class Scene:
    """A service with one decision."""

    service: RunningService
    enforcer: EnforcerClient
    decision_id: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with start_service(tmp_path_factory.mktemp("service")) as service:
        enforcer = service.enforcer()
        decision_id = enforcer.decide()
        service.wait_until_published()
        yield Scene(service=service, enforcer=enforcer, decision_id=decision_id)


@pytest.fixture
def command(scene, monkeypatch, tmp_path, capsys) -> Command:
    """Run a command as somebody in a role, an administrator if none is named, or with a token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLYSTICK_URL", scene.service.url)

    def run(*arguments: str, role: Role = Role.ADMIN, token: str | None = None) -> Finished:
        monkeypatch.setenv("TALLYSTICK_TOKEN", token or scene.service.token(role))
        monkeypatch.setattr(sys, "argv", ["tallystick", *arguments])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        said = capsys.readouterr()
        return Finished(status=status, output=said.out, errors=said.err)

    return run


# --- finding ---------------------------------------------------------------------------------------------------------


def test_what_is_found_leads_to_its_session_and_its_decision(scene, command):
    header, row = command("find", role=Role.RESPONDER).output.splitlines()
    assert header.split()[-3:] == ["DECISION", "ID", "SESSION"]
    *_, decision_id, session, mark = row.split()
    assert (decision_id, session, mark) == (scene.decision_id, SESSION, "SIMULATED")
    assert command("session", session, role=Role.RESPONDER).status == 0
    assert "1 call\n" in command("session", session).output


def test_sessions_that_sent_or_received_what_a_file_holds_are_listed_once_each(scene, command, tmp_path):
    key, content = scene.service.services.keys.pseudonym.seed, b"quarterly figures"
    print_of = fingerprint(key, hashlib.sha256(content).digest())
    sender, receiver = "d" * 32, "e" * 32
    received = [scene.enforcer.decide(session=receiver, agent="reader") for _ in range(2)]
    for decision_id in received:
        scene.enforcer.complete(decision_id, session=receiver, result_fingerprint=print_of)
    scene.enforcer.decide(session=sender, agent="writer", arguments_fingerprint=print_of)
    scene.enforcer.decide(session="f" * 32, agent="bystander")
    file = tmp_path / "figures.txt"
    file.write_bytes(content)
    found = json.loads(command("find", "--seen-file", str(file), "--sessions", "--json", role=Role.RESPONDER).output)
    assert [(item["session"], item["agent"], item["decisions"]) for item in found["sessions"]] == [
        (sender, "writer", 1),
        (receiver, "reader", 2),
    ]
    by_digest = command("find", "--seen", hashlib.sha256(content).hexdigest(), "--sessions", role=Role.RESPONDER)
    assert [line.split()[:3] for line in by_digest.output.splitlines()[1:]] == [
        [sender, "writer", "1"],
        [receiver, "reader", "2"],
    ]
    file.write_bytes(content + b".")
    assert json.loads(command("find", "--seen-file", str(file), "--sessions", "--json").output)["sessions"] == []


def test_what_was_seen_is_said_in_one_way(scene, command, tmp_path):
    (tmp_path / "f").write_bytes(b"")
    done = command("find", "--seen", "0" * 64, "--seen-file", "f")
    assert done.status != 0
    assert "give one of them" in done.errors
    assert command("find", "--seen-file", "missing").status != 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("find", "--agent", "a b"), "agent: is not of the right form"),
        (("find", "--session", "nope"), HEX_32),
        (("session", "nope"), HEX_32),
        (("session", "5" * 31 + "G"), HEX_32),
        (("replay", "notanid"), UUID),
        (("replay", NOBODYS, "--bundle", "nope"), "bundle"),
        (("replay", NOBODYS, "--fail-on", "x"), "--fail-on takes FROM:TO"),
        (("policy", "activate", "abc"), HEX_64),
        (("open", "abc", "--purpose", "an inquiry"), UUID),
        (("open", NOBODYS, "--purpose", "short"), "purpose"),
        (("open", NOBODYS, "--purpose", "an inquiry", "--field", "salt"), "salt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_mistyped_is_an_error_of_usage_without_a_pattern(command, arguments, told):
    refused = command(*arguments)
    assert (refused.status, refused.output) == (64, "")
    assert told in refused.errors
    assert "pattern" not in refused.errors
    assert "{" not in refused.errors


def test_what_is_not_there_is_no_failed_check(command):
    assert command("session", "a" * 32).status == 4
    assert command("replay", NOBODYS).status == 4
    assert command("open", NOBODYS, "--purpose", "an inquiry").status == 4


@pytest.mark.parametrize("token", ["ts1.acme." + "x" * 43, "secret", "ts1"])
def test_a_token_that_does_not_count_is_told_so_and_not_that_one_is_needed(command, token):
    refused = command("find", token=token)
    assert (refused.status, refused.errors) == (64, "tallystick: the token is unknown, expired or revoked\n")


def test_published_bundles_are_listed_with_the_leaf_of_each_step(scene, command, tmp_path):
    revision = scene.service.put_in_force(ready_bundle())
    history = json.loads(command("policy", "list", "--json").output)["history"]
    steps = ["published", "tested", "reviewed", "activated"]
    assert [(step["action"], step["revision"]) for step in history] == [(action, revision) for action in steps]
    reader = scene.service.services.reader
    assert [reader.record(step["leaf_index"]).body.action for step in history] == steps
    assert revision in command("policy", "list").output


def test_a_recorded_decision_is_explained_under_its_own_bundle_or_another(scene, command, tmp_path):
    bundle = cedar_bundle('@id("of-then") permit (principal is Agent, action, resource) when { true && 2 > 1 };')
    with scene.service.client(Role.ADMIN) as admin:
        admin.post("/v1/bundles", content=bundle.archive()).raise_for_status()
    decision = scene.enforcer.decide_by(bundle, rules=("of-then",))
    ask = ("policy", "explain", "--decision", decision)
    purpose = ("--purpose", "an inquiry")
    assert command(*ask, *purpose, role=Role.RESPONDER).output.splitlines() == [
        "PERMIT (policy) by of-then",
        "permit of-then (policy.cedar:1): applies",
        "  yes    principal principal is Agent",
        "  yes    when      true",
        "  yes    when      2 > 1",
    ]
    (tmp_path / "stricter").mkdir()
    for path, data in cedar_files('@id("none") forbid(principal, action, resource);').items():
        (tmp_path / "stricter" / path).write_bytes(data)
    proposed = command(*ask, "stricter", *purpose, role=Role.RESPONDER)
    assert proposed.output.splitlines()[0] == "DENY (policy) by none"
    assert command(*ask, role=Role.RESPONDER).status == 64, "an opening has a purpose"
    assert command(*ask, *purpose, role=Role.AUDITOR).status == 64, "an auditor opens nothing"
    assert command("policy", "explain", "--decision", NOBODYS, *purpose).status == 4
    unasked = scene.enforcer.decide_by(None)
    assert command("policy", "explain", "--decision", unasked, *purpose).status == 4, "no bundle was asked"


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_payload_is_printed_as_it_is_and_that_it_was_opened_and_why_is_on_record(scene, command):
    before = len(scene.service.access_events("open_payload"))
    opened = command("open", scene.decision_id, "--purpose", "incident 42", "--field", "message", role=Role.RESPONDER)
    assert opened.status == 0, opened.errors
    first, *payload = opened.output.splitlines()
    assert first.startswith("message: ")
    value = json.loads(
        command("open", scene.decision_id, "--purpose", "incident 42", "--field", "message", "--json").output
    )
    (opening,) = value["openings"]
    assert opening["sha256"] in first
    assert payload
    events = scene.service.access_events("open_payload")[before:]
    assert [event.target_id for event in events] == [scene.decision_id] * 2
    assert all(event.purpose is not None for event in events)


def test_a_payload_cannot_steer_the_terminal(scene, command):
    opening_of = scene.service.services.vault.open
    hostile = b"\x1b[2J\x1b]0;owned\x07 {}\xe2\x80\xae"

    def changed(record, name):
        found = opening_of(record, name)
        return type(found)(field=found.field, salt=found.salt, payload=hostile)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(scene.service.services.vault), "open", lambda _self, record, name: changed(record, name))
        shown = command("open", scene.decision_id, "--purpose", "an inquiry").output
    assert "\\x1b[2J" in shown
    assert not [char for char in shown if not char.isprintable() and char != "\n"]


def test_bytes_that_are_no_text_are_not_printed(scene, command):
    opening_of = scene.service.services.vault.open

    def changed(record, name):
        found = opening_of(record, name)
        return type(found)(field=found.field, salt=found.salt, payload=b"\xff\xfe")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(scene.service.services.vault), "open", lambda _self, record, name: changed(record, name))
        shown = command("open", scene.decision_id, "--purpose", "an inquiry").output
    assert "2 bytes" in shown
    assert "not text" in shown


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.APPROVER])
def test_who_may_not_open_payloads_is_refused_in_one_line(scene, command, role):
    before = len(scene.service.access_events("open_payload"))
    refused = command("open", scene.decision_id, "--purpose", "curiosity", role=role)
    assert (refused.status, refused.output, refused.errors.count("\n")) == (64, "", 1)
    assert len(scene.service.access_events("open_payload")) == before


def test_a_field_that_nothing_was_committed_to_is_not_there(command, scene):
    refused = command("open", scene.decision_id, "--purpose", "an inquiry", "--field", "result")
    assert (refused.status, "no field result" in refused.errors) == (4, True)


# --- auditing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(scene, tmp_path) -> Path:
    """A copy of the log's directory, and the trust policy beside it."""
    settings = scene.service.services.settings
    scene.service.wait_until_published()
    shutil.copytree(settings.data_dir / "logs" / LOG_ID, tmp_path / LOG_ID)
    shutil.copyfile(settings.keys_dir / "trust.policy", tmp_path / "trust.policy")
    return tmp_path / LOG_ID


def test_a_log_without_fault_is_said_to_be_so_with_the_streams_whose_end_is_unknown(command, copied):
    done = command("audit", "--log", LOG_ID, "--trust", "trust.policy")
    assert done.status == 0
    streams = [line for line in done.output.splitlines() if " epoch " in line]
    unsure = [line for line in streams if line.startswith("  ! ")]
    assert unsure
    expected = f"no fault found; {len(unsure)} of {len(streams)} streams are not known to be complete"
    assert done.output.splitlines()[-1] == expected


def test_a_directory_that_is_no_log_was_not_audited(command, copied, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command("audit", "--log", "empty", "--trust", "trust.policy")
    assert done.status == 4
    assert done.output.splitlines()[-1] == "NOTHING WAS AUDITED: there is no published tree here"
    assert "no fault" not in done.output


def test_a_copy_under_another_name_is_one_line_and_a_hint(command, copied):
    copied.rename(copied.with_name("copy"))
    done = command("audit", "--log", "copy", "--trust", "trust.policy")
    assert done.status == 1
    found = [line for line in done.output.splitlines() if f"the record is of the log {LOG_ID}" in line]
    assert len(found) == 1
    assert "(leaf 0, and " in found[0]
    assert "named by its log id" in done.output
    findings = json.loads(command("audit", "--log", "copy", "--trust", "trust.policy", "--json").output)["findings"]
    assert done.output.splitlines()[-1] == f"{len(findings)} findings"


# --- verifying what is no pack ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "status", "told"),
    [
        ("report.pdf", b"%PDF-1.7\n", 2, "verify the .zip beside it"),
        ("x.tlog-proof", b"c2sp.org/tlog-proof@v1\nindex 1\n", 64, "with --entry FILE"),
    ],
)
def test_what_lies_beside_a_pack_is_told_from_one(command, tmp_path, name, data, status, told):
    (tmp_path / name).write_bytes(data)
    refused = command("verify", name)
    assert (refused.status, refused.output, refused.errors.count("\n")) == (status, "", 1)
    assert told in refused.errors


@pytest.mark.parametrize("data", [b"PROVEN", b"{}", b"\x89PNG"])
def test_any_other_file_is_not_a_zip_file(command, tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    refused = command("verify", "x")
    assert refused.status == 2
    assert "this is not a ZIP file" in refused.output


# --- packs -----------------------------------------------------------------------------------------------------------


def order(command: Command, *more: str, role: Role = Role.AUDITOR) -> Finished:
    period = ("--from", "2020-01-01", "--to", "2020-01-02", "--framework", "soc2")
    return command("evidence", "build", *period, *more, role=role)


def test_a_pack_is_made_and_got_again_and_never_written_over_a_file(command, tmp_path):
    made = order(command, "--out", "packs", "--json")
    assert made.status == 0, made.errors
    value = json.loads(made.output)
    assert sorted(value["files"]) == ["pdf", "zip"]
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "packs").iterdir()) == sorted(
        value["files"].values()
    )
    again = command("evidence", "download", value["job_id"], "--out", "packs", role=Role.AUDITOR)
    assert (again.status, "name another directory with --out" in again.errors) == (64, True)
    other = command("evidence", "download", value["job_id"], "--out", "other", "--json", role=Role.AUDITOR)
    for suffix, path in json.loads(other.output)["files"].items():
        assert (tmp_path / path).read_bytes() == (tmp_path / value["files"][suffix]).read_bytes()


def test_who_may_not_make_packs_is_refused(command, tmp_path):
    refused = order(command, role=Role.RESPONDER)
    assert (refused.status, refused.errors.count("\n")) == (64, 1)
    assert list(tmp_path.iterdir()) == []


# --- one record ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "status"), [(b"", 0), (b"\n", 1)])
def test_an_entry_with_a_line_feed_behind_it_is_not_proved_and_told_why(scene, command, copied, tmp_path, more, status):
    services = scene.service.services
    index = services.catalog.index_of(LOG_ID, scene.decision_id)
    (tmp_path / "entry").write_bytes(next(services.reader.entries(index, index + 1)) + more)
    with scene.service.client(Role.RESPONDER) as responder:
        proof = responder.get(f"/v1/decisions/{scene.decision_id}/proof").content
    (tmp_path / "x.tlog-proof").write_bytes(proof)
    done = command("verify", "x.tlog-proof", "--entry", "entry", "--trust", "trust.policy")
    assert done.status == status
    assert ("ends with a line feed" in done.output) is (status == 1)
