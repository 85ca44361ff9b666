"""The shape that a team runs: two services over one PostgreSQL, tiles and anchor in S3, watched by witnesses.

Each part has its own suites; here they meet: what one service records and publishes, the other proves and shows.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.trust import TrustPolicy, parse_trust_policy
from service.auth import Role
from service.cli.main import main
from tests.integration.test_service_s3 import places
from tests.support import witness
from tests.support.ledger import LOG_ID
from tests.support.postgres import PostgresCluster
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server, s3_server
from tests.support.service import EnforcerClient, RunningService, start_service

NAMES = ("w1", "w2")
DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class Team:
    """Two services of one log, its witnesses, and what an auditor demands."""

    server: S3Server
    services: tuple[RunningService, RunningService]
    witnesses: dict[str, witness.ReferenceWitness]
    auditor: TrustPolicy
    settings: dict[str, Any]

    @property
    def leader(self) -> RunningService:
        return next(one for one in self.services if one.services.publishing.leads)

    @property
    def follower(self) -> RunningService:
        return next(one for one in self.services if not one.services.publishing.leads)


@pytest.fixture
def team(
    postgres: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Team]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for prefix in ("LOG_S3", "ANCHOR_S3"):
        monkeypatch.setenv(f"{prefix}_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv(f"{prefix}_SECRET_ACCESS_KEY", SECRET_KEY)
    witnesses = {name: witness.reference_witness(name) for name in NAMES}
    with ExitStack() as stack:
        (tmp_path / "s3").mkdir()
        server = stack.enter_context(s3_server(tmp_path / "s3"))
        for name in ("log", "anchor"):
            server.make_bucket(name, locks=True)
        urls = {name: stack.enter_context(witness.serving(one)) for name, one in witnesses.items()}
        policy = witness.witness_policy(witnesses, threshold=2, urls=urls)
        (tmp_path / "witness.policy").write_text(policy.encode(), encoding="ascii")
        settings = {
            **places(server),
            "database_url": postgres.new_schema(),
            "witness_policy": tmp_path / "witness.policy",
            "witness_mode": request.param,
            "checkpoint_interval_seconds": 0.1,
        }
        first = stack.enter_context(start_service(tmp_path, migrate=True, **settings))
        second = stack.enter_context(start_service(tmp_path, **settings))
        own = parse_trust_policy((tmp_path / "keys" / "trust.policy").read_bytes())
        auditor = replace(policy, logs=own.logs)
        yield Team(server, (first, second), witnesses, auditor, settings)


def wait_until(happened: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(DEADLINE_SECONDS * 20):
        if happened():
            return
        waited.wait(0.05)
    pytest.fail("it did not happen in time")


def shown(service: RunningService) -> bytes:
    with service.client() as client:
        return client.get(f"/logs/{LOG_ID}/checkpoint").raise_for_status().content


def size_shown(service: RunningService) -> int:
    published = service.services.publishing.published
    return 0 if published is None else published.head.size


def check(service: RunningService, name: str) -> dict[str, Any]:
    with service.stranger() as stranger:
        (found,) = [one for one in stranger.get("/readyz").json()["checks"] if one["name"] == name]
    return dict(found)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], team: Team, *arguments: str) -> Any:
    """Run a command with the settings of the services; return its exit status and its JSON."""
    for name, value in team.services[0].services.settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"TALLYSTICK_{name.upper()}", str(value))
    monkeypatch.setattr(sys, "argv", ["tallystick", *arguments, "--json"])
    status = 0
    try:
        main()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    return status, json.loads(capsys.readouterr().out)


def record_at_both(team: Team, count: int) -> list[tuple[RunningService, EnforcerClient, str]]:
    written = []
    for number, service in enumerate(team.services):
        enforcer = service.enforcer(f"gateway-{number}", seed=50 + number)
        written += [(service, enforcer, one) for one in enforcer.decide_many([{}] * count)]
    return written


@pytest.mark.parametrize("team", ["open", "closed"], indirect=True)
def test_what_either_records_both_prove_under_a_checkpoint_that_the_quorum_cosigned(team, monkeypatch, capsys):
    written = record_at_both(team, 150)
    size = team.services[0].services.sequenced_size()
    wait_until(lambda: all(size_shown(service) >= size for service in team.services))
    for service in team.services:
        wait_until(lambda service=service: check(service, "witnesses")["ok"])
        assert team.auditor.verify(shown(service)).witnesses == NAMES
    for service, _, record_id in (written[0], written[-1]):
        other = next(one for one in team.services if one is not service)
        with other.client() as auditor:
            proof = auditor.get(f"/v1/decisions/{record_id}/proof").raise_for_status().content
        index = other.services.catalog.index_of(LOG_ID, record_id)
        entry = next(iter(other.services.reader.entries(index, index + 1)))
        assert verify_entry(entry, parse_proof_file(proof), team.auditor).witnesses == NAMES
    wait_until(lambda: not any(service.services.publishing.anchor_status.failure for service in team.services))
    status, report = command(monkeypatch, capsys, team, "audit", "--processes", "1")
    assert (status, report["findings"]) == (0, [])
    status, told = command(monkeypatch, capsys, team, "anchor", "verify", "--tiles", "all")
    assert (status, told["drift"]) == (0, [])
    assert told["tiles"] >= 2


@pytest.mark.parametrize("team", ["open"], indirect=True)
def test_who_follows_shows_and_says_that_the_quorum_came_later(team):
    for one in team.witnesses.values():
        one.instead = lambda _: (503, "", b"")
    record_at_both(team, 1)
    size = team.services[0].services.sequenced_size()
    wait_until(lambda: all(size_shown(service) >= size for service in team.services))
    assert not check(team.follower, "witnesses")["ok"]
    for one in team.witnesses.values():
        one.instead = None
    wait_until(lambda: all(check(service, "witnesses")["ok"] for service in team.services))
    for service in team.services:
        assert team.auditor.verify(shown(service)).witnesses == NAMES


@pytest.mark.parametrize("team", ["closed"], indirect=True)
def test_who_leads_next_has_cosigned_what_the_one_before_could_not(team):
    record_at_both(team, 1)
    size = team.services[0].services.sequenced_size()
    wait_until(lambda: all(size_shown(service) >= size for service in team.services))
    leader, follower = team.leader, team.follower
    team.witnesses["w1"].instead = lambda _: (503, "", b"")
    enforcer = leader.enforcer("gateway-9", seed=59)
    enforcer.decide()
    behind = leader.services.sequenced_size()
    wait_until(lambda: not check(leader, "witnesses")["ok"])
    assert size_shown(follower) < behind
    leader.run(leader.services.publishing.stop)
    team.witnesses["w1"].instead = None
    enforcer._service = follower
    enforcer.decide()
    wait_until(lambda: size_shown(follower) > behind)
    verified = team.auditor.verify(shown(follower))
    assert verified.witnesses == NAMES
    assert parse_unverified_checkpoint(shown(follower)).claim.size > behind


def held_copies(team: Team) -> set[str]:
    """Return how the anchored checkpoints of the first size stand: ``ON`` or ``OFF``."""
    client, prefix = team.server.client(), f"a/{LOG_ID}/checkpoint/"
    keys = [one["Key"] for one in client.list_object_versions(Bucket="anchor", Prefix=prefix)["Versions"]]
    return {_hold_of(client, min(keys))}


def _hold_of(client: Any, key: str) -> str:
    try:
        return str(client.get_object_legal_hold(Bucket="anchor", Key=key)["LegalHold"]["Status"])
    except ClientError:  # what was never held is told so by some servers
        return "OFF"


def ask(service: RunningService, path: str, name: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    with service.client(token=service.token(Role.ADMIN, name)) as admin:
        return dict(admin.post(path, json=body).raise_for_status().json())


@pytest.mark.parametrize("team", ["open"], indirect=True)
def test_a_hold_covers_what_is_anchored_whichever_service_placed_and_ended_the_ones_before(team):
    first, second = team.services
    wait_until(lambda: bool(first.services.anchor.sizes(LOG_ID)))
    assert held_copies(team) == {"OFF"}
    matter = {"user": "alice", "reason": "matter 12 of 2026"}
    for _ in range(2):
        hold_id = ask(first, "/v1/holds", "anna", matter)["hold_id"]
        wait_until(lambda: held_copies(team) == {"ON"})
        for name in ("anna", "ben"):
            ask(second, f"/v1/holds/{hold_id}/release", name)
        # Whoever put the holds there takes them off when he looks; a service that has not seen them does not.
        next(work for work in first.services.lifecycle.works if work.name == "legal holds in stores").wake()
        wait_until(lambda: held_copies(team) == {"OFF"})
