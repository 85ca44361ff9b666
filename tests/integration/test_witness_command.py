"""``tallystick witness``: a witness as a process of its own, which a service of ours is cosigned by."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ledger.notes import VerifierKey, parse_vkey
from ledger.trust import TrustPolicy, Witness, parse_trust_policy
from service.keyset import make_key_set
from tests.integration.test_service_cli import Line
from tests.integration.test_service_witnesses import exposed
from tests.support.ledger import NOW_MS
from tests.support.repository import ROOT
from tests.support.service import ORIGIN, start_service


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Run the command; yields where it answers."""
    command = [
        sys.executable,
        "-c",
        "from service.cli import main; main()",
        "witness",
        "serve",
        "--key",
        str(root / "witness.key"),
    ]
    command += ["--logs", str(root / "keys" / "trust.policy"), "--database", str(root / "witness.db")]
    command += ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            told = json.loads(process.stderr.readline())
            assert told["event"] == "witnessing"
            yield f"http://127.0.0.1:{told['port']}"
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=30)[1]
        assert process.returncode == 0, rest


def make_key(root: Path, algorithm: str) -> VerifierKey:
    made = Line(root).run(
        "witness", "init", root / "witness.key", "--name", "witness.example/w1", "--algorithm", algorithm, "--json"
    )
    assert made.status == 0, made.err
    return parse_vkey(made.json["vkey"])


def watched_by(root: Path, key: VerifierKey, url: str) -> Path:
    policy = TrustPolicy(witnesses={"ours": Witness("ours", key, url)}, quorum="ours")
    (root / "witness.policy").write_text(policy.encode(), encoding="ascii")
    return root / "witness.policy"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_key_set(tmp_path / "keys", origin=ORIGIN, service_id="service", created_ms=NOW_MS, simulated=True)
    return tmp_path


@pytest.mark.parametrize("algorithm", ["ed25519", "ml-dsa-44"])
def test_our_witness_cosigns_our_log_and_goes_on_after_its_own_restart(root, algorithm):
    key = make_key(root, algorithm)
    own = parse_trust_policy((root / "keys" / "trust.policy").read_bytes())
    auditor = TrustPolicy(logs=own.logs, witnesses={"ours": Witness("ours", key)}, quorum="ours")
    sizes = []
    for _ in range(2):
        with (
            serving(root) as url,
            start_service(root, witness_policy=watched_by(root, key, url), witness_mode="closed") as service,
        ):
            service.enforcer(f"gateway-{len(sizes)}", seed=30 + len(sizes)).decide()
            service.wait_until_published()
            verified = auditor.verify(exposed(service))
            assert verified.witnesses == ("ours",)
            sizes.append(verified.head.size)
    assert sizes[0] < sizes[1]


def test_what_is_no_request_is_answered_and_ends_nothing(root):
    make_key(root, "ed25519")
    with serving(root) as url, httpx.Client(base_url=url, trust_env=False, verify=False) as client:
        assert client.get("/healthz").status_code == 200
        assert client.post("/add-checkpoint", content=b"nonsense").status_code == 400
        assert client.post("/add-checkpoint", content=b"x" * 70_000).status_code == 413
        assert client.get("/add-checkpoint").status_code == 405
        assert client.post("/sign-subtree", content=b"").status_code == 404
        stranger = b"old 0\n\nlog.example/x\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n"
        line = "\u2014 log.example/x AAAAAAAA\n".encode()
        assert client.post("/add-checkpoint", content=stranger + line).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["init", "new.key", "--name", "two words"], 2),
        (["init", "witness.key", "--name", "witness.example/w1"], 64),
        (["init", "new.key"], 64),
        (["serve", "--key", "witness.key", "--logs", "none.policy", "--database", "w.db"], 64),
        (["serve", "--key", "witness.key", "--logs", "witness.key", "--database", "w.db"], 2),
        (["serve", "--key", "keys/log-ed25519.json", "--logs", "keys/trust.policy", "--database", "w.db"], 64),
        (["serve", "--key", "witness.key", "--logs", "keys/trust.policy", "--database", "w.db", "--listen", "x"], 64),
    ],
)
def test_what_cannot_be_used_is_told_at_once(root, arguments, status, monkeypatch):
    make_key(root, "ed25519")
    (root / "none.policy").write_text("quorum none\n", encoding="ascii")
    monkeypatch.chdir(root)
    said = Line(root).run("witness", *arguments)
    assert said.status == status, said.err
    assert not (root / "new.key").exists()
