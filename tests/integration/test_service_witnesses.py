"""A service whose log others watch: witnesses over HTTP, a time-stamping authority, and what an auditor makes of it.

The witnesses are `tests.support.witness`, the authority is ``openssl ts``; both answer on ports of this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConfigError
from ledger.proof_files import parse_proof_file
from ledger.trust import TrustPolicy, parse_trust_policy
from service.auth import Role
from tests.integration.test_service_cli import Line, Said
from tests.support import tsa, witness
from tests.support.ledger import LOG_ID
from tests.support.service import RunningService, start_service

NAMES = ("w1", "w2", "w3")
DEADLINE_SECONDS = 30


class Watched:
    """Three witnesses of which two are the quorum, an authority, and the files that name them."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.witnesses = {name: witness.reference_witness(name, mldsa=name == "w2") for name in NAMES}
        urls = {name: stack.enter_context(witness.serving(one)) for name, one in self.witnesses.items()}
        self.policy = witness.witness_policy(self.witnesses, threshold=2, urls=urls)
        self.policy_file = root / "witness.policy"
        self.policy_file.write_text(self.policy.encode(), encoding="ascii")
        self.authority = tsa.make_authority(root / "tsa")
        self.tsa_url = stack.enter_context(tsa.serving(self.authority))
        self.roots_file = root / "roots.pem"
        self.roots_file.write_bytes(self.authority.roots)

    def start(self, **changes: object) -> RunningService:
        settings = {
            "witness_policy": self.policy_file,
            "tsa_url": self.tsa_url,
            "tsa_certificates": self.roots_file,
            "tsa_policy": tsa.POLICY,
            "tsa_interval_seconds": 1.0,
            **changes,
        }
        return start_service(self.root, **settings)

    def silence(self, *names: str) -> None:
        for name, one in self.witnesses.items():
            one.instead = (lambda _: (503, "", b"")) if name in names else None

    def auditors_file(self, *, threshold: int = 2) -> Path:
        """Write the trust policy of an auditor who demands a quorum."""
        own = parse_trust_policy((self.root / "keys" / "trust.policy").read_bytes())
        theirs = witness.witness_policy(self.witnesses, threshold=threshold)
        policy = TrustPolicy(logs=own.logs, witnesses=theirs.witnesses, groups=theirs.groups, quorum=theirs.quorum)
        path = self.root / f"auditor-{threshold}.policy"
        path.write_text(policy.encode(), encoding="ascii")
        return path

    def verify(self, file: Path, *arguments: str | Path, threshold: int = 2) -> Said:
        return Line(self.root).run("verify", file, "--trust", self.auditors_file(threshold=threshold), *arguments)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(tmp_path, stack)


def exposed(service: RunningService) -> bytes:
    with service.client() as client:
        return client.get(f"/logs/{LOG_ID}/checkpoint").raise_for_status().content


def wait_until(condition) -> None:
    waited = threading.Event()
    for _ in range(DEADLINE_SECONDS * 20):
        if condition():
            return
        waited.wait(0.05)
    pytest.fail("it did not happen in time")


def readiness(service: RunningService, name: str) -> dict[str, object]:
    with service.stranger() as client:
        (check,) = [one for one in client.get("/readyz").json()["checks"] if one["name"] == name]
    return check


def metric(service: RunningService, name: str) -> float:
    with service.client(Role.ADMIN) as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def build_pack(service: RunningService, folder: Path) -> Path:
    waited = threading.Event()
    order = {"from_ms": 1, "to_ms": 4_000_000_000_000, "frameworks": ["soc2", "hipaa"]}
    with service.client() as auditor:
        job = auditor.post("/v1/evidence-packs", json=order).json()
        while job["state"] not in ("done", "failed"):
            waited.wait(0.1)
            job = auditor.get(f"/v1/evidence-packs/{job['job_id']}").json()
        path = folder / "pack.zip"
        path.write_bytes(auditor.get(job["links"]["zip"]).raise_for_status().content)
    return path


def test_an_auditor_who_demands_the_quorum_accepts_checkpoint_proof_and_pack(watched, tmp_path):
    with watched.start() as service:
        decision_id = service.enforcer().decide()
        service.wait_until_published()
        policy = parse_trust_policy(watched.auditors_file(threshold=3).read_bytes())
        assert policy.verify(exposed(service)).witnesses == NAMES
        with service.client() as client:
            proof = client.get(f"/v1/decisions/{decision_id}/proof").raise_for_status().content
        assert policy.verify(parse_proof_file(proof).checkpoint).witnesses == NAMES
        pack = build_pack(service, tmp_path)
        assert readiness(service, "witnesses")["ok"] is True
        # The log goes on growing: what the metric says is shown a moment later at the latest.
        witnessed = metric(service, "tallystick_witnessed_size")
        assert witnessed >= 1
        wait_until(lambda: parse_unverified_checkpoint(exposed(service)).claim.size >= witnessed)
        assert metric(service, 'tallystick_witness_up{witness="w2"}') == 1
    said = watched.verify(pack, threshold=3)
    assert said.status == 0, said.out
    assert "cosigned by w1, w2, w3" in said.out


def test_a_pack_without_the_quorum_does_not_meet_the_trust(watched, tmp_path):
    watched.silence("w1", "w3")
    with watched.start() as service:
        service.enforcer().decide()
        service.wait_until_published()
        pack = build_pack(service, tmp_path)
        check = readiness(service, "witnesses")
        assert check["ok"] is False
        assert "w1" in check["detail"]
        assert metric(service, 'tallystick_witness_up{witness="w1"}') == 0
    said = watched.verify(pack)
    assert said.status == 3
    assert "lacks the witness quorum" in said.out
    assert watched.verify(pack, threshold=1).status == 0


def test_fail_closed_takes_records_and_shows_them_once_the_quorum_is_back(watched):
    with watched.start(witness_mode="closed") as service:
        enforcer = service.enforcer()
        enforcer.decide()
        service.wait_until_published()
        watched.silence("w1", "w2")
        before = exposed(service)
        size = service.services.sequenced_size()
        enforcer.decide_many([{}, {}, {}])
        wait_until(lambda: not readiness(service, "witnesses")["ok"])
        assert exposed(service) == before
        assert service.services.sequenced_size() >= size + 3
        watched.silence()
        wait_until(lambda: parse_unverified_checkpoint(exposed(service)).claim.size >= size + 3)
        parse_trust_policy(watched.auditors_file().read_bytes()).verify(exposed(service))


def test_a_restart_shows_what_was_shown_though_no_witness_answers(watched):
    with watched.start(witness_mode="closed") as service:
        service.enforcer().decide()
        service.wait_until_published()
    watched.silence(*NAMES)
    last = (watched.root / "data" / "logs" / LOG_ID / "checkpoint").read_bytes()
    with watched.start(witness_mode="closed") as service:
        assert exposed(service) == last


def test_a_checkpoint_is_dated_and_anybody_can_check_it_offline(watched, tmp_path):
    copies = watched.root / "data" / "anchor" / LOG_ID / "timestamp"
    with watched.start() as service:
        service.enforcer().decide()
        service.wait_until_published()
        wait_until(lambda: list(copies.glob("*.tsr")))
        wait_until(lambda: readiness(service, "timestamps")["ok"])
        assert metric(service, "tallystick_timestamp_up") == 1
        assert 0 <= metric(service, "tallystick_timestamp_age_seconds") < 60
        assert abs(metric(service, "tallystick_timestamp_skew_seconds")) < 60
    token = min(copies.glob("*.tsr"))
    checkpoint = token.with_suffix(".checkpoint")
    given = ("--timestamp", token, "--tsa-roots", watched.roots_file)
    said = watched.verify(checkpoint, *given, "--tsa-policy", tsa.POLICY)
    assert said.status == 0, said.out
    assert "these bytes existed at" in said.out
    foreign = tsa.make_authority(tmp_path / "foreign")
    (tmp_path / "foreign.pem").write_bytes(foreign.roots)
    other = tmp_path / "other"
    other.write_bytes(exposed_later(checkpoint.read_bytes()))
    for file, arguments, status in (
        (checkpoint, (*given, "--tsa-policy", tsa.OTHER_POLICY), 1),
        (checkpoint, ("--timestamp", token, "--tsa-roots", tmp_path / "foreign.pem"), 3),
        (checkpoint, ("--timestamp", checkpoint, "--tsa-roots", watched.roots_file), 2),
        (other, given, 1),
        (checkpoint, ("--timestamp", token), 64),
        (checkpoint, (*given, "--known", checkpoint), 64),
    ):
        assert watched.verify(file, *arguments).status == status, arguments


def exposed_later(checkpoint: bytes) -> bytes:
    """Return the same checkpoint with one signature line less: other bytes."""
    return checkpoint[: checkpoint.rstrip(b"\n").rindex(b"\n") + 1]


def test_an_authority_that_is_away_stops_nothing_and_is_told(watched):
    watched.authority.instead = lambda _: (503, "", b"")
    with watched.start() as service:
        service.enforcer().decide()
        service.wait_until_published()
        wait_until(lambda: "503" in str(readiness(service, "timestamps")["detail"]))
        with service.stranger() as client:
            assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"witness_policy": "missing"}, "WITNESS_POLICY: the file cannot be read"),
        ({"witness_policy": "roots.pem"}, "WITNESS_POLICY"),
        ({"witness_policy": "none.policy"}, "without a quorum"),
        ({"witness_policy": "own.policy"}, "a key of the log itself"),
        ({"witness_policy": "nowhere.policy"}, "no URL for w1"),
        ({"tsa_certificates": None}, "TSA_CERTIFICATES: say"),
        ({"tsa_certificates": "missing"}, "TSA_CERTIFICATES: the file cannot be read"),
        ({"tsa_certificates": "witness.policy"}, "TSA_CERTIFICATES: not a file of PEM"),
        ({"tsa_url": "tsa.example"}, "must be http"),
        ({"tsa_policy": "1..2"}, "TSA_POLICY"),
        ({"witness_mode": "ajar"}, "WITNESS_MODE"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told_at_the_start(watched, changes, told):
    with watched.start() as service:
        (own, *_) = [key for key in service.services.keys.log if key.algorithm == "ml-dsa-44"]
    vkey = watched.witnesses["w1"].vkey
    for name, text in (
        ("none", f"witness w1 {vkey} https://w.example\nquorum none\n"),
        ("own", f"witness w1 {own.verifier_key.encode()} https://w.example\nquorum w1\n"),
        ("nowhere", f"witness w1 {vkey}\nquorum w1\n"),
    ):
        (watched.root / f"{name}.policy").write_text(text, encoding="ascii")
    paths = {
        name: watched.root / value
        if name.endswith(("policy", "certificates")) and name != "tsa_policy" and value
        else value
        for name, value in changes.items()
    }
    with pytest.raises(ConfigError, match=told):
        watched.start(**paths)
