"""The command line against a running service: what is printed, as text and as JSON, and each exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ledger.notes import decode_base64, encode_base64
from ledger.records import encode_record
from policies.trusted_keys import read_trusted_keys
from service.auth import Role
from service.cli.main import main
from tests.support.ledger import LOG_ID, make_decision
from tests.support.packs import ready_bundle
from tests.support.service import ORIGIN, EnforcerClient, RunningService, start_service

HOSTILE_ORIGIN = "http://127.0.0.1:1"
MISSING = "01a1fcad-9ff9-750b-91ac-898a54d423a5"
PHRASE = "swordfish, salmon, pike"
PERMIT = '@id("all-may") permit (principal, action, resource);'
FORBID = '@id("none-may") forbid (principal, action, resource);'


@dataclass(frozen=True)
class Said:
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed for programs."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Line:
    """A command line with an environment of its own."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, **environment: str) -> Said:
        clean = {name: None for name in os.environ if name.startswith("TALLYSTICK_")}
        given = {**clean, **self.environment, **environment}
        with CliRunner().isolation(env=given) as (out, err, _), pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "argv", ["tallystick", *map(str, arguments)])
            try:
                main()
                status = 0
            except SystemExit as leaving:
                status = int(leaving.code or 0)
            return Said(status, out.getvalue().decode(), err.getvalue().decode())


def write_bundle(folder: Path, policy: str) -> Path:
    for path, data in json.loads(ready_bundle(policy).archive())["files"].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(decode_base64(data))
    return folder


@dataclass(frozen=True)
class Stage:
    """A service with a session in it, and a command line that speaks to it."""

    service: RunningService
    enforcer: EnforcerClient
    line: Line
    decision_id: str
    log: Path

    def run(self, *arguments: str | Path, role: Role = Role.ADMIN) -> Said:
        return self.line.run(*arguments, TALLYSTICK_URL=self.service.url, TALLYSTICK_TOKEN=self.service.token(role))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("cli")
    with start_service(root) as service:
        enforcer = service.enforcer()
        decision_id = enforcer.decide(session="a" * 32)
        enforcer.complete(decision_id, session="a" * 32, status="failed", reason="upstream", error_code=-32000)
        enforcer.decide(session="a" * 32, mode="observe")
        service.wait_until_published()
        settings = service.services.settings
        environment = {
            "TALLYSTICK_DATA_DIR": str(settings.data_dir),
            "TALLYSTICK_KEYS_DIR": str(settings.keys_dir),
            "TALLYSTICK_LOG_ID": LOG_ID,
            "TALLYSTICK_ORIGIN": ORIGIN,
        }
        yield Stage(service, enforcer, Line(root, environment), decision_id, settings.data_dir / "logs" / LOG_ID)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


# --- finding ---------------------------------------------------------------------------------------------------------


def test_decisions_are_found_as_a_table_and_as_json(stage):
    text = stage.run("find", "--agent", "finance-bot")
    assert (text.status, text.err) == (0, "")
    assert stage.decision_id in text.out
    assert "SIMULATED" in text.out
    assert "DENY (not enforced)" in text.out
    items = stage.run("find", "--agent", "finance-bot", "--json").json["items"]
    assert len(items) == len(text.out.splitlines()) - 1
    assert items[-1]["record"]["record_id"] == stage.decision_id


def test_a_search_without_a_hit_is_no_failure(stage):
    said = stage.run("find", "--agent", "nobody", "--json")
    assert (said.status, said.json["items"]) == (0, [])


def test_a_limit_counts_over_pages(stage):
    stage.enforcer.decide_many([{"agent": "many"}] * 7)
    assert len(stage.run("find", "--agent", "many", "--limit", "5", "--json").json["items"]) == 5
    assert len(stage.run("find", "--agent", "many", "--limit", "600", "--json").json["items"]) == 7


def test_a_session_is_told_in_order_with_outcomes_and_gaps(stage):
    said = stage.run("session", "a" * 32)
    assert said.status == 0
    assert "2 calls" in said.out
    assert "outcome: failed, upstream, error -32000" in said.out
    assert "no record is missing" in said.out
    assert len(stage.run("session", "a" * 32, "--json").json["events"]) == 3


def test_a_session_with_a_gap_says_how_many_are_missing(stage):
    lossy = stage.service.enforcer("lossy", seed=77)
    lossy.decide(session="b" * 32)
    lossy.enforcer.seq += 2
    lossy.decide(session="b" * 32)
    assert "2 records are MISSING" in stage.run("session", "b" * 32).out


@pytest.mark.parametrize(
    ("arguments", "role", "status"),
    [
        (["session", "f" * 32], Role.ADMIN, 4),
        (["find"], Role.ENFORCER, 64),
        (["replay", MISSING], Role.ADMIN, 4),
        (["replay", MISSING], Role.AUDITOR, 64),
        (["replay", MISSING, "--fail-on", "deny"], Role.ADMIN, 64),
        (["replay", MISSING, "--fail-on", "deny:maybe"], Role.ADMIN, 64),
        (["find", "--rule", "a b"], Role.ADMIN, 64),
        (["policy", "activate", "0" * 64], Role.ADMIN, 4),
        (["policy", "rollback"], Role.APPROVER, 4),
        (["policy", "list"], Role.ENFORCER, 64),
        (["evidence", "download", MISSING], Role.AUDITOR, 4),
        (["evidence", "build", "--from", "2026-01-02", "--to", "2026-01-01"], Role.AUDITOR, 2),
        (["evidence", "build", "--from", "2026-01-01", "--to", "2026-01-02"], Role.RESPONDER, 64),
    ],
    ids=str,
)
def test_what_the_service_refuses_is_one_line_and_its_status(stage, arguments, role, status):
    token = stage.enforcer.token if role is Role.ENFORCER else stage.service.token(role)
    said = stage.line.run(*arguments, TALLYSTICK_URL=stage.service.url, TALLYSTICK_TOKEN=token)
    assert said.status == status, said.err
    assert said.out == ""
    assert said.err.startswith("tallystick: ")
    assert len(said.err.splitlines()) == 1
    assert token not in said.err


@pytest.mark.parametrize(
    "arguments", [["find"], ["session", "a" * 32], ["policy", "list"], ["evidence", "list"]], ids=str
)
def test_without_a_service_or_a_token_nothing_happens(line, arguments):
    nobody = line.run(*arguments)
    assert (nobody.status, "TALLYSTICK_TOKEN" in nobody.err) == (64, True)
    nowhere = line.run(*arguments, TALLYSTICK_URL=HOSTILE_ORIGIN, TALLYSTICK_TOKEN="ts1.acme." + "x" * 43)
    assert (nowhere.status, "does not answer" in nowhere.err) == (4, True)


def test_a_token_that_does_not_count_is_an_error_of_usage(stage):
    said = stage.line.run("find", TALLYSTICK_URL=stage.service.url, TALLYSTICK_TOKEN="ts1.acme." + "x" * 43)
    assert (said.status, "unknown, expired or revoked" in said.err) == (64, True)


# --- policies and replays --------------------------------------------------------------------------------------------


def test_a_bundle_goes_from_a_directory_to_the_enforcers_and_back(stage, tmp_path):
    permit = write_bundle(tmp_path / "permit", PERMIT)
    forbid = write_bundle(tmp_path / "forbid", FORBID)
    revisions = [stage.run("policy", "revision", folder).out.strip() for folder in (permit, forbid)]
    assert revisions == [ready_bundle(PERMIT).revision, ready_bundle(FORBID).revision]
    assert revisions[0] in stage.run("policy", "publish", permit).out
    assert stage.run("policy", "publish", forbid, "--json").json["revision"] == revisions[1]
    for revision in revisions:
        assert stage.run("policy", "activate", revision).status == 4, "nobody has approved it"
        assert "reviewed:" in stage.run("policy", "review", revision, "--approve", role=Role.APPROVER).out
        assert revision in stage.run("policy", "activate", revision, "--comment", "ticket 17").out
    assert stage.run("policy", "rollback", "--json").json["active"] == revisions[0]
    text = stage.run("policy", "list").out
    assert text.startswith(f"active: {revisions[0]}")
    history = stage.run("policy", "list", "--json").json["history"]
    steps = [item["action"] for item in history]
    assert steps == [*["published", "tested"] * 2, *["reviewed", "activated"] * 2, "rolled_back"]
    assert stage.run("policy", "retest", revisions[1]).out.startswith("reviewed: shop ")
    assert stage.run("policy", "retire", revisions[1], "--comment", "no longer wanted").out.startswith("retired: shop ")
    assert stage.run("policy", "activate", revisions[1]).status == 4
    status = stage.run("policy", "status", revisions[1]).out
    assert "1 of 1 cases pass, with cedar " in status
    assert "cannot become active: the bundle is retired" in status
    assert stage.run("policy", "status", revisions[0], "--json").json["stage"] == "active"


def test_a_bundle_is_signed_handed_in_verified_and_active_only_so(stage, tmp_path):
    bundle = write_bundle(tmp_path / "signed", '@id("signed") permit (principal, action, resource);')
    other = write_bundle(tmp_path / "unsigned", '@id("unsigned") permit (principal, action, resource);')
    keys, envelope = tmp_path / "keys", tmp_path / "bundle.dsse.json"
    assert stage.run("policy", "keygen", keys, "--name", "ann").status == 0
    assert stage.run("policy", "sign", bundle, "--keys", keys, "--output", envelope).status == 0
    assert stage.run("policy", "sign", bundle, "--keys", keys, "--output", envelope).status == 64, "it is there"
    trust = ["--signature", envelope, "--trust", keys / "bundle.trust"]
    assert stage.run("policy", "verify", bundle, *trust).out.startswith("signed by those who must: shop ")
    assert stage.run("policy", "verify", other, *trust).status == 1
    revisions = [stage.run("policy", "revision", folder).out.strip() for folder in (bundle, other)]
    told = stage.run("policy", "publish", bundle, "--signature", envelope, "--json").json
    assert (told["revision"], len(told["signature"])) == (revisions[0], 64)
    assert stage.run("policy", "publish", other, "--signature", envelope).status == 1, "it is about another bundle"
    with stage.service.client(Role.AUDITOR) as auditor:
        assert auditor.get(f"/v1/bundles/{revisions[0]}/signature").content == envelope.read_bytes()
        assert auditor.get(f"/v1/bundles/{revisions[1]}/signature").status_code == 404
    registry = stage.service.services.bundles
    for revision in revisions:
        assert stage.run("policy", "review", revision, "--approve", role=Role.APPROVER).status == 0
    registry._trusted = read_trusted_keys(keys / "bundle.trust")
    try:
        refused = stage.run("policy", "activate", revisions[1])
        assert (refused.status, "not signed by those who must" in refused.err) == (4, True)
        assert stage.run("policy", "activate", revisions[0]).status == 0
    finally:
        registry._trusted = ()
    steps = stage.run("policy", "status", revisions[0], "--json").json["history"]
    assert [step["action"] for step in steps] == ["published", "tested", "signed", "reviewed", "activated"]
    assert len(steps[2]["signers"]) == 2


def test_a_bundle_is_published_from_a_commit_whose_id_is_recorded(stage, tmp_path):
    folder = write_bundle(tmp_path / "policies", '@id("from-git") permit (principal, action, resource);')
    revision = stage.run("policy", "revision", folder).out.strip()
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "a bundle"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    head = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    (folder / "policy.cedar").write_text("not what was committed")
    assert stage.run("policy", "publish", tmp_path, "--commit", "HEAD", "--path", "policies").status == 64
    told = stage.run("policy", "publish", tmp_path, "--commit", commit, "--path", "policies", "--json")
    assert told.json["revision"] == revision
    status = stage.run("policy", "status", revision, "--json").json
    assert status["history"][0]["source"] == f"git:{commit}"


@pytest.mark.parametrize("as_json", [True, False])
def test_the_cases_of_a_bundle_are_run_and_their_outcome_is_the_status(stage, tmp_path, as_json):
    flag = ["--json"] if as_json else []
    folder = write_bundle(tmp_path / "bundle", PERMIT)
    assert stage.run("policy", "test", folder, *flag).status == 0
    (folder / "tests" / "always.yaml").unlink()
    assert stage.run("policy", "test", folder, *flag).status == 4, "a bundle without a case proves nothing"


def test_a_directory_that_is_no_bundle_is_malformed(stage, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    for command in ("test", "revision", "publish"):
        said = stage.run("policy", command, tmp_path)
        assert (said.status, len(said.err.splitlines())) == (2, 1)


def test_a_replay_that_cannot_be_made_says_so_and_is_no_flip(stage):
    said = stage.run("replay", stage.decision_id, "--fail-on", "deny:permit")
    assert (said.status, "NOT REPLAYED (missing_fact)" in said.out) == (0, True)
    assert stage.run("replay", stage.decision_id, "--json").json["results"][0]["same"] is None


def test_a_replay_under_other_rules_that_flips_what_must_not_leaves_with_5(stage, tmp_path):
    bundle = ready_bundle('@id("of-then") permit (principal, action, resource);')
    with stage.service.client(Role.ADMIN) as admin:
        admin.post("/v1/bundles", content=bundle.archive()).raise_for_status()
    decision_id = stage.enforcer.decide_by(bundle, rules=("of-then",))
    same = stage.run("replay", decision_id, "--fail-on", "permit:deny")
    assert (same.status, "SAME (exact)" in same.out) == (0, True)
    folder = write_bundle(tmp_path / "proposed", FORBID)
    under = ["--bundle", folder, "--purpose", "an inquiry by the board"]
    flipped = stage.run("replay", decision_id, *under, "--fail-on", "permit:deny")
    assert (flipped.status, "DIFFERENT (exact)" in flipped.out) == (5, True), flipped.err
    assert stage.run("replay", decision_id, *under, "--fail-on", "deny:permit").status == 0
    told = stage.run("replay", decision_id, *under, "--fail-on", "permit:deny", "--json")
    assert (told.status, told.json["different"]) == (5, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["session", "x"],
        ["session", "F" * 32],
        ["replay", "x"],
        ["replay", MISSING, "x"],
        ["policy", "activate", "x"],
        ["find", "--session", "x"],
        ["find", "--seen", "x"],
    ],
    ids=str,
)
def test_what_is_no_id_is_an_error_of_usage(stage, arguments):
    said = stage.run(*arguments)
    assert (said.status, said.out) == (64, ""), said.err


# --- auditing and verifying ------------------------------------------------------------------------------------------


def test_a_sound_log_is_audited_from_the_installation_and_from_a_copy(stage, tmp_path):
    stage.service.wait_until_published()
    installation = stage.line.run("audit", "--json")
    assert installation.status == 0, installation.out
    assert installation.json["findings"] == []
    copy = tmp_path / LOG_ID
    shutil.copytree(stage.log, copy)
    trust = stage.service.services.settings.keys_dir / "trust.policy"
    assert stage.line.run("audit", "--log", copy, "--trust", trust).status == 0


def test_a_log_that_was_changed_fails_the_audit(stage, tmp_path):
    stage.service.wait_until_published()
    copy = tmp_path / LOG_ID
    shutil.copytree(stage.log, copy)
    for bundle in (copy / "tile" / "entries").rglob("000*"):
        for path in [bundle] if bundle.is_file() else bundle.iterdir():
            data = bytearray(path.read_bytes())
            data[100] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
    trust = stage.service.services.settings.keys_dir / "trust.policy"
    said = stage.line.run("audit", "--log", copy, "--trust", trust, "--json")
    assert said.status == 1
    assert said.json["findings"]


@pytest.mark.parametrize(
    ("prepare", "arguments", "status"),
    [
        ("", ["audit", "--log", "log"], 64),
        ("", ["audit", "--log", "log", "--trust", "trust"], 4),
        ("bad trust", ["audit", "--log", "log", "--trust", "trust"], 2),
        ("", ["verify", "pack"], 2),
        ("", ["verify", "pack", "--trust", "trust"], 2),
        ("bad trust", ["verify", "pack", "--trust", "trust"], 2),
        ("", ["verify", "pack", "--entry", "trust"], 64),
        ("", ["verify", "pack", "--entry", "pack", "--trust", "trust"], 2),
    ],
)
def test_what_cannot_be_audited_or_verified_is_told_apart(stage, line, tmp_path, prepare, arguments, status):
    (tmp_path / "log").mkdir()
    (tmp_path / "pack").write_bytes(b"this is no pack")
    trust = (stage.service.services.settings.keys_dir / "trust.policy").read_text()
    (tmp_path / "trust").write_text("nonsense\n" if prepare == "bad trust" else trust)
    paths = [tmp_path / part if part in ("log", "pack", "trust") else part for part in arguments]
    said = line.run(*paths)
    assert said.status == status, said.out + said.err


def test_one_record_is_verified_by_its_proof_and_no_other_is(stage, tmp_path):
    body, openings = make_decision()
    record = stage.enforcer.record(body)
    answer = stage.enforcer.post([(record, openings)], query="?wait=proof", accept="text/plain")
    (tmp_path / "x.tlog-proof").write_bytes(answer.content)
    (tmp_path / "entry").write_bytes(encode_record(record))
    (tmp_path / "other").write_bytes(encode_record(record).replace(b"finance-bot", b"finance-bat"))
    trust = stage.service.services.settings.keys_dir / "trust.policy"
    common = ["verify", tmp_path / "x.tlog-proof", "--trust", trust, "--entry"]
    assert stage.line.run(*common, tmp_path / "entry").status == 0
    assert stage.line.run(*common, tmp_path / "other").status == 1
    assert stage.line.run(*common, tmp_path / "entry", "--json").json


@pytest.mark.slow
def test_a_pack_is_built_listed_downloaded_and_verified_with_and_without_trust(stage, tmp_path):
    built = stage.run(
        "evidence", "build", "--from", "2020-01-01", "--to", "2040-01-01", "--framework", "soc2", "--out", tmp_path,
        role=Role.AUDITOR,
    )  # fmt: skip
    assert built.status == 0, built.err
    (pack,) = tmp_path.glob("*.zip")
    assert pack.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
    trust = stage.service.services.settings.keys_dir / "trust.policy"
    proven = stage.line.run("verify", pack, "--trust", trust)
    assert (proven.status, "PROVEN" in proven.out) == (0, True)
    alone = stage.line.run("verify", pack, "--json")
    assert alone.status == 3
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bent.zip").write_bytes(data)
    assert stage.line.run("verify", tmp_path / "bent.zip", "--trust", trust).status in (1, 2)
    jobs = stage.run("evidence", "list", "--json", role=Role.AUDITOR).json["items"]
    assert pack.stem in stage.run("evidence", "list", role=Role.AUDITOR).out
    assert jobs[0]["job_id"] == pack.stem
    again = stage.run("evidence", "download", pack.stem, "--out", tmp_path, role=Role.AUDITOR)
    assert (again.status, "exists" in again.err) == (64, True)
    (tmp_path / "elsewhere").mkdir()
    assert stage.run("evidence", "download", pack.stem, "--out", tmp_path / "elsewhere").status == 0


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ledger.keys._OPS_LIMIT", "service.cli.keys.argon2id.OPSLIMIT_MODERATE"):
        monkeypatch.setattr(name, 1)
    for name in ("ledger.keys._MEM_LIMIT", "service.cli.keys.argon2id.MEMLIMIT_MODERATE"):
        monkeypatch.setattr(name, 8192)


def init(line: Line, name: str = "keys", *more: str, **environment: str) -> Said:
    return line.run("keys", "init", line.root / name, "--origin", ORIGIN, *more, **environment)


def test_keys_are_made_shown_backed_up_and_restored(line):
    made = init(line)
    assert made.status == 0
    assert "without a passphrase" in made.out
    shown = line.run("keys", "show", line.root / "keys", "--json").json
    assert shown["simulated"] is False
    assert {key["purpose"] for key in shown["keys"]} == {"enforcer", "log", "pack", "vault", "pseudonym"}
    assert line.run("keys", "show", line.root / "keys").out.strip().endswith(shown["trust_policy"].strip())
    secret = {"TALLYSTICK_BACKUP_PASSPHRASE": PHRASE}
    assert line.run("keys", "backup", line.root / "keys", line.root / "backup", **secret).status == 0
    assert (line.root / "backup").stat().st_mode & 0o777 == 0o600
    assert line.run("keys", "restore", line.root / "backup", line.root / "again", **secret).status == 0
    for path in (line.root / "keys").iterdir():
        assert (line.root / "again" / path.name).read_bytes() == path.read_bytes()
        assert (line.root / "again" / path.name).stat().st_mode == path.stat().st_mode


def test_keys_are_never_overwritten(line):
    init(line)
    before = {path.name: path.read_bytes() for path in (line.root / "keys").iterdir()}
    assert init(line).status == 64
    secret = {"TALLYSTICK_BACKUP_PASSPHRASE": PHRASE}
    line.run("keys", "backup", line.root / "keys", line.root / "backup", **secret)
    assert line.run("keys", "restore", line.root / "backup", line.root / "keys", **secret).status == 64
    assert line.run("keys", "backup", line.root / "keys", line.root / "backup", **secret).status != 0
    assert {path.name: path.read_bytes() for path in (line.root / "keys").iterdir()} == before


def test_a_passphrase_protects_the_files_and_is_asked_for(line):
    secret = {"TALLYSTICK_PASSPHRASE": PHRASE}
    assert "with a passphrase" in init(line, **secret).out
    assert line.run("keys", "show", line.root / "keys", **secret).status == 0
    for wrong in ({}, {"TALLYSTICK_PASSPHRASE": "x"}):
        said = line.run("keys", "show", line.root / "keys", **wrong)
        assert (said.status, PHRASE in said.err) == (64, False)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 2),
        (b"{}", 2),
        (b"[]", 2),
        (b"\xff", 2),
        (json.dumps({"format": "tallystick.key-backup/1", "salt": "", "box": ""}).encode(), 2),
        (
            json.dumps(
                {
                    "format": "tallystick.key-backup/1",
                    "salt": encode_base64(b"s" * 16),
                    "box": encode_base64(b"b" * 100),
                }
            ).encode(),
            64,
        ),
        (json.dumps({"format": "tallystick.key-backup/1", "salt": 5, "box": None}).encode(), 2),
        (
            json.dumps({"format": "tallystick.key-backup/1", "salt": encode_base64(b"s" * 16), "box": ""}).encode(),
            64,
        ),
    ],
)
def test_what_is_no_backup_restores_nothing(line, content, status):
    (line.root / "backup").write_bytes(content)
    said = line.run(
        "keys", "restore", line.root / "backup", line.root / "keys", TALLYSTICK_BACKUP_PASSPHRASE="another, long enough"
    )
    assert (said.status, len(said.err.splitlines())) == (status, 1), said.err
    assert not (line.root / "keys").exists()


def test_a_wrong_passphrase_restores_nothing(line):
    init(line)
    line.run("keys", "backup", line.root / "keys", line.root / "backup", TALLYSTICK_BACKUP_PASSPHRASE=PHRASE)
    said = line.run(
        "keys",
        "restore",
        line.root / "backup",
        line.root / "again",
        TALLYSTICK_BACKUP_PASSPHRASE="another, long enough",
    )
    assert (said.status, (line.root / "again").exists()) == (64, False)


@pytest.mark.parametrize("origin", ["", "a b", "x+y", "a" * 200])
def test_an_origin_that_cannot_be_makes_no_keys(line, origin):
    said = line.run("keys", "init", line.root / "keys", "--origin", origin)
    assert (said.status, (line.root / "keys").exists()) == (64, False)


def test_a_token_is_issued_on_the_services_machine_and_counts(stage):
    said = stage.line.run("keys", "token", "--role", "auditor", "--name", "first", "--json").json
    assert (said["role"], said["name"]) == ("auditor", "first")
    with stage.service.client(token=said["token"]) as client:
        assert client.get("/v1/bundles").status_code == 200
    plain = stage.line.run("keys", "token", "--role", "auditor", "--name", "second").out.strip()
    assert plain.startswith(f"ts1.{LOG_ID}.")


def test_a_token_for_no_installation_is_not_issued(line):
    said = line.run("keys", "token", "--role", "admin", "--name", "x", TALLYSTICK_DATA_DIR=str(line.root / "absent"))
    assert said.status in (4, 64)
    assert len(said.err.splitlines()) == 1
    assert "ts1." not in said.out + said.err


@pytest.mark.parametrize(
    "command", [("audit",), ("rebuild",), ("rebuild", "--dry-run"), ("rebuild", "--forward")], ids=str
)
def test_what_looks_into_an_installation_makes_no_database_where_none_is(line, command):
    init(line)
    data = line.root / "data"
    data.mkdir()
    said = line.run(*command, TALLYSTICK_DATA_DIR=str(data), TALLYSTICK_KEYS_DIR=str(line.root / "keys"))
    assert (said.status, len(said.err.splitlines())) == (64, 1)
    assert "there is no database yet" in said.err
    assert list(data.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        (("rebuild",), 4, "there is no log main"),
        (("rebuild", "--forward"), 4, "there is no log main"),
        (("backup", "copy"), 64, "nothing has been published yet"),
    ],
    ids=str,
)
def test_of_a_log_that_was_never_opened_it_is_said_that_there_is_none(line, command, status, told):
    init(line)
    given = {"TALLYSTICK_DATA_DIR": str(line.root / "data"), "TALLYSTICK_KEYS_DIR": str(line.root / "keys")}
    assert line.run("migrate", **given).status == 0
    said = line.run(*command, **given)
    assert (said.status, len(said.err.splitlines())) == (status, 1)
    assert told in said.err


# --- serving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TALLYSTICK_KEYS_DIR": "/no/such/place"}, "key file"),
        ({"TALLYSTICK_LISTEN": "nowhere"}, "TALLYSTICK_LISTEN"),
        ({"TALLYSTICK_ORIGIN": "log.example/other"}, "origin"),
        ({"TALLYSTICK_ANCHOR": "s3://bucket"}, "TALLYSTICK_ANCHOR_RETENTION_DAYS"),
        ({"TALLYSTICK_ANCHOR": "ftp://bucket"}, "TALLYSTICK_ANCHOR"),
        ({"TALLYSTICK_INSECURE_COOKIES": "1", "TALLYSTICK_LISTEN": "0.0.0.0:1"}, "INSECURE_COOKIES"),
        ({"TALLYSTICK_DATABASE_URL": "mysql://user:swordfish@x/y"}, "database"),
        ({"TALLYSTICK_DATABASE_URL": "postgresql+psycopg://user:swordfish@x:port/y"}, "database"),
        ({}, "another service"),
    ],
    ids=str,
)
def test_a_service_that_cannot_run_says_why_in_one_line_and_leaves_with_64(line, stage, environment, told):
    if told == "another service":
        environment = {"TALLYSTICK_SERVICE_ID": "another"}
    init(line)
    given = {
        "TALLYSTICK_DATA_DIR": str(line.root / "data"),
        "TALLYSTICK_KEYS_DIR": str(line.root / "keys"),
        "TALLYSTICK_ORIGIN": ORIGIN,
        **environment,
    }
    said = line.run("serve", **given)
    last = said.err.splitlines()[-1]
    assert said.status == 64, said.err
    assert last.startswith("tallystick: ")
    assert told.split()[0] in last or told == "another service"
    assert "swordfish" not in said.err


def test_demonstration_keys_are_not_served(line):
    init(line, "keys", "--simulated")
    said = line.run(
        "serve",
        TALLYSTICK_DATA_DIR=str(line.root / "data"),
        TALLYSTICK_KEYS_DIR=str(line.root / "keys"),
        TALLYSTICK_ORIGIN=ORIGIN,
    )
    assert (said.status, "demonstration keys" in said.err) == (64, True)
    assert not (line.root / "data" / "ledger.db").exists()


def test_an_empty_database_is_brought_up_to_date(line):
    (line.root / "data").mkdir()
    for _ in range(2):
        said = line.run("migrate", TALLYSTICK_DATA_DIR=str(line.root / "data"))
        assert (said.status, said.out) == (0, "the schema is up to date\n")
