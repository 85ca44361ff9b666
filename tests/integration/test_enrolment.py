"""Enrolment: a single-use token, a proof that the key is there, and an answer that can be asked for again."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import nacl.public
import nacl.signing
import pytest
from click.testing import CliRunner, Result

from enforcement.config_files import load_config, read_trust
from ledger.bodies import Heartbeat, KeyEvent
from ledger.clock import SimulatedClock
from ledger.errors import MalformedError
from ledger.keys import decode_key, load_key
from ledger.notes import decode_base64, encode_base64
from service import enrolment
from service.auth import Role, token_digest
from service.cli.main import cli
from service.enrolling import EnrolmentClaim, claim_bytes, open_sealed
from service.enrolment_tokens import REFUSALS_RECORDED
from tests.support.gateway_keys import NOON_MS
from tests.support.ledger import LOG_ID, Enforcer
from tests.support.service import EnforcerClient, RunningService, start_service

HOUR_MS = 3_600_000


class Machine:
    """A machine that wants to become a gateway: its keys, and what it asks for."""

    def __init__(self, running: RunningService, enforcer_id: str) -> None:
        self.running = running
        self.enforcer_id = enforcer_id
        self.signing = nacl.signing.SigningKey.generate()
        self.sealing = nacl.public.PrivateKey.generate()
        self.token = f"ts1.{LOG_ID}." + encode_base64(os.urandom(33))[:43].replace("+", "-").replace("/", "_")

    def request(self, enrolment_token: str, **changes: Any) -> dict[str, Any]:
        claim = EnrolmentClaim(
            **{
                "enforcer_id": self.enforcer_id,
                "enrolment": token_digest(enrolment_token),
                "public_key": encode_base64(bytes(self.signing.verify_key)),
                "sealing_key": encode_base64(bytes(self.sealing.public_key)),
                "token_sha256": token_digest(self.token),
                "version": "0.1.0",
                **{name: value for name, value in changes.items() if name != "signature"},
            }
        )
        signature = encode_base64(self.signing.sign(claim_bytes(claim)).signature)
        members = ("enforcer_id", "public_key", "sealing_key", "token_sha256", "version")
        return {**{name: getattr(claim, name) for name in members}, "signature": changes.get("signature", signature)}

    def enrol(self, enrolment_token: str, **changes: Any) -> httpx.Response:
        with self.running.client(token=enrolment_token) as client:
            return client.post("/v1/enrolments", json=self.request(enrolment_token, **changes))

    def beats(self) -> int:
        """Post a heartbeat with the API token, and return the status."""
        enforcer = Enforcer(self.enforcer_id, LOG_ID, seed=1, epoch=os.urandom(16).hex(), tenant="acme")
        enforcer.key = self.signing
        record = enforcer.record(Heartbeat(kind="start", version="0.1.0", spool_depth=0))
        with self.running.client(token=self.token) as client:
            sent = EnforcerClient.spell([(record, ())])
            return client.post(
                "/v1/decisions", content=sent, headers={"content-type": "application/x-ndjson"}
            ).status_code


@pytest.fixture(scope="module")
def clock() -> SimulatedClock:
    return SimulatedClock(NOON_MS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, clock: SimulatedClock) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("enrolment"), clock=clock) as service:
        yield service


@pytest.fixture(scope="module")
def token_for(running: RunningService) -> Callable[..., str]:
    def issue(enforcer_id: str, **more: Any) -> str:
        with running.client(Role.ADMIN) as admin:
            answer = admin.post("/v1/enrolment-tokens", json={"enforcer_id": enforcer_id, **more})
        return answer.raise_for_status().json()["token"]

    return issue


def introductions(running: RunningService, enforcer_id: str) -> int:
    indexes = running.services.catalog.of_type(LOG_ID, "key")
    bodies = [running.services.reader.record(index).body for index in indexes]
    return sum(isinstance(body, KeyEvent) and body.subject == enforcer_id for body in bodies)


def attempts(running: RunningService, enforcer_id: str) -> list[str]:
    return [event.result for event in running.access_events("enrol") if event.target_id == enforcer_id]


def test_a_machine_that_holds_its_key_becomes_a_gateway_and_gets_all_that_it_needs(running, token_for):
    token = token_for("gateway-1")
    machine = Machine(running, "gateway-1")
    answer = machine.enrol(token)
    assert answer.status_code == 201, answer.text
    said = answer.json()
    assert (said["log_id"], said["tenant"], said["environment"], said["simulated"]) == (LOG_ID, "acme", "test", True)
    shared = decode_key(open_sealed(bytes(machine.sealing), decode_base64(said["pseudonym_key"])))
    assert shared.seed == running.services.keys.pseudonym.seed
    assert said["trust_policy"].startswith("log")
    assert machine.beats() == 201
    assert attempts(running, "gateway-1") == ["ok"]


def test_neither_key_nor_token_stands_in_the_log_or_in_an_answer(running, token_for):
    token = token_for("gateway-2")
    machine = Machine(running, "gateway-2")
    answer = machine.enrol(token).text
    seed = running.services.keys.pseudonym.seed
    size = running.services.sequenced_size()
    log = b"".join(running.services.reader.entries(0, size)) + answer.encode()
    for secret in (token, machine.token, encode_base64(seed), seed.hex()):
        assert secret.encode() not in log


def test_whoever_lost_the_answer_asks_again_and_gets_the_same(running, token_for):
    token = token_for("gateway-3")
    machine = Machine(running, "gateway-3")
    first, again = machine.enrol(token), machine.enrol(token)
    assert (first.status_code, again.status_code) == (201, 201)
    assert {**first.json(), "pseudonym_key": ""} == {**again.json(), "pseudonym_key": ""}
    assert introductions(running, "gateway-3") == 1
    assert machine.beats() == 201


@pytest.mark.parametrize("broken", ["introduce", "let_in"])
def test_a_service_that_fails_halfway_goes_on_where_it_was(running, token_for, monkeypatch, broken):
    enforcer_id = f"gateway-{broken}"
    token, machine = token_for(enforcer_id), Machine(running, enforcer_id)

    async def fail(*_: object) -> None:
        raise OSError("a fault of the test's")

    with monkeypatch.context() as patch:
        patch.setattr(enrolment._Attempt, broken, fail)
        assert machine.enrol(token).status_code == 500
    assert machine.enrol(token).status_code == 201
    assert introductions(running, enforcer_id) == 1
    assert machine.beats() == 201


def test_of_several_at_once_one_wins_and_the_others_are_refused(running, token_for):
    token = token_for("gateway-4")
    machines = [Machine(running, "gateway-4") for _ in range(4)]
    with ThreadPoolExecutor(len(machines)) as pool:
        statuses = list(pool.map(lambda machine: machine.enrol(token).status_code, machines))
    # Who comes while the winner is let in has the id taken away (409); who comes after that, the token (401).
    assert statuses.count(201) == 1
    assert {*statuses} <= {201, 401, 409}
    assert [result for result in attempts(running, "gateway-4") if result == "ok"] == ["ok"]
    assert introductions(running, "gateway-4") == 1


def test_a_used_token_is_refused_to_everybody_else_and_so_many_attempts_are_recorded(running, token_for):
    token = token_for("gateway-5")
    assert Machine(running, "gateway-5").enrol(token).status_code == 201
    for _ in range(REFUSALS_RECORDED + 2):
        assert Machine(running, "gateway-5").enrol(token).status_code == 401
    assert attempts(running, "gateway-5") == ["ok", *["used"] * REFUSALS_RECORDED]
    assert introductions(running, "gateway-5") == 1


def test_a_token_is_for_one_enforcer_and_no_other(running, token_for):
    answer = Machine(running, "gateway-other").enrol(token_for("gateway-6"))
    assert answer.status_code == 403
    assert attempts(running, "gateway-6") == ["another_enforcer"]
    assert introductions(running, "gateway-other") == 0


@pytest.mark.parametrize("what", ["signature", "public_key", "sealing_key", "token_sha256"])
def test_who_does_not_hold_the_key_is_refused_and_the_token_still_counts(running, token_for, what):
    enforcer_id = f"gateway-by-{what}"
    token, machine, stranger = token_for(enforcer_id), Machine(running, enforcer_id), Machine(running, enforcer_id)
    sent = {**machine.request(token), what: stranger.request(token)[what]}
    with running.client(token=token) as client:
        assert client.post("/v1/enrolments", json=sent).status_code == 422
    assert attempts(running, enforcer_id) == ["no_possession"]
    assert machine.enrol(token).status_code == 201


def test_a_proof_for_one_token_is_none_for_another(running, token_for):
    machine = Machine(running, "gateway-7")
    other, token = token_for("gateway-7"), token_for("gateway-7")
    with running.client(token=token) as client:
        assert client.post("/v1/enrolments", json=machine.request(other)).status_code == 422


def test_an_expired_token_counts_for_nobody_not_even_again(running, token_for, clock):
    late, used = token_for("gateway-8"), token_for("gateway-9", lifetime_seconds=60)
    machine = Machine(running, "gateway-9")
    assert machine.enrol(used).status_code == 201
    clock.advance(HOUR_MS)
    assert Machine(running, "gateway-8").enrol(late).status_code == 401
    assert machine.enrol(used).status_code == 401
    assert attempts(running, "gateway-8") == ["expired"]
    with running.client(token=late) as client:
        assert client.get("/v1/enrolments").status_code == 401


def test_with_a_further_token_the_same_key_is_enrolled_once_more_and_another_one_is_not(running, token_for):
    machine = Machine(running, "gateway-10")
    assert machine.enrol(token_for("gateway-10")).status_code == 201
    assert machine.enrol(token_for("gateway-10")).status_code == 201
    refused = Machine(running, "gateway-10").enrol(token_for("gateway-10"))
    assert (refused.status_code, "another key" in refused.text) == (409, True)
    assert introductions(running, "gateway-10") == 1


def test_a_revoked_token_and_one_of_a_retired_gateway_lead_nowhere(running, token_for):
    token = token_for("gateway-11")
    with running.client(Role.ADMIN) as admin:
        assert admin.delete(f"/v1/enrolment-tokens/{token_digest(token)}").status_code == 204
        assert admin.delete(f"/v1/enrolment-tokens/{token_digest(token)}").status_code == 404
    assert Machine(running, "gateway-11").enrol(token).status_code == 401
    machine, used, waiting = Machine(running, "gateway-12"), token_for("gateway-12"), token_for("gateway-12")
    assert machine.enrol(used).status_code == 201
    with running.client(Role.ADMIN) as admin:
        admin.delete("/v1/enforcers/gateway-12").raise_for_status()
    assert machine.beats() == 401
    assert machine.enrol(used).status_code == 401
    assert Machine(running, "gateway-12").enrol(waiting).status_code == 401


def test_an_api_token_of_somebody_else_cannot_be_made_a_gateways(running, token_for):
    admin = running.token(Role.ADMIN)
    machine = Machine(running, "gateway-13")
    machine.token = admin
    assert machine.enrol(token_for("gateway-13")).status_code == 409
    assert running.services.tokens.authenticate(admin).role is Role.ADMIN


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"version": "0.2.0"}, 409),
        ({"version": "1.0.0"}, 409),
        ({"version": "nightly"}, 409),
        ({"sealing_key": encode_base64(bytes(32))}, 400),
        ({"public_key": "A" * 44}, 400),
        ({"token_sha256": "x" * 64}, 422),
        ({"enforcer_id": "a b"}, 422),
        ({"signature": "A" * 88}, 422),
    ],
)
def test_what_cannot_be_is_refused_and_the_token_still_counts(running, token_for, changes, status):
    enforcer_id = f"gateway-{token_digest(str(changes))[:12]}"
    token, machine = token_for(enforcer_id), Machine(running, enforcer_id)
    answer = machine.enrol(token, **changes)
    assert answer.status_code == status, answer.text
    assert machine.enrol(token).status_code == 201


@pytest.mark.parametrize("token", ["x", "te1.acme." + "x" * 43, "te1.other." + "x" * 43, "ts1.acme." + "x" * 43])
def test_a_token_that_does_not_count_is_as_good_as_none(running, token):
    with running.stranger() as client:
        headers = {"authorization": f"Bearer {token}"}
        answers = [
            client.get("/v1/enrolments", headers=headers),
            client.post("/v1/enrolments", headers=headers, json={}),
        ]
    assert [answer.status_code for answer in answers] == [401, 401]


def test_the_services_own_id_has_no_token(running):
    with running.client(Role.ADMIN) as admin:
        wanted = {"enforcer_id": running.services.settings.service_id}
        assert admin.post("/v1/enrolment-tokens", json=wanted).status_code == 409


def test_an_enrolment_token_opens_nothing_else(running, token_for):
    with running.client(token=token_for("gateway-14")) as client:
        for path in ("/v1/bundles/active", "/v1/fleet", "/v1/keys", "/v1/decisions"):
            assert client.get(path).status_code == 401


def test_a_sealed_key_opens_for_nobody_else(running, token_for):
    machine = Machine(running, "gateway-15")
    sealed = decode_base64(machine.enrol(token_for("gateway-15")).json()["pseudonym_key"])
    with pytest.raises(MalformedError):
        open_sealed(bytes(nacl.public.PrivateKey.generate()), sealed)
    with pytest.raises(MalformedError):
        open_sealed(bytes(machine.sealing), sealed[:-1] + bytes([sealed[-1] ^ 1]))


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def enroll(running: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    for name in ("TALLYSTICK_PASSPHRASE", "TALLYSTICK_PASSPHRASE_FILE", "TALLYSTICK_URL", "TALLYSTICK_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(enforcer_id: str, *more: str, directory: str = "gw") -> Result:
        options = ["--service", running.url, "--token-file", "token", "--id", enforcer_id]
        return CliRunner().invoke(cli, ["enroll", *options, directory, *more])

    return run


@pytest.fixture
def handed_over(running: RunningService, tmp_path: Path) -> Callable[..., Path]:
    def make(enforcer_id: str, *more: str) -> Path:
        admin = ["--url", running.url, "--token", running.token(Role.ADMIN)]
        made = CliRunner().invoke(
            cli, ["enroll", "token", "--id", enforcer_id, "--out", str(tmp_path / "token"), *admin, *more]
        )
        assert made.exit_code == 0, made.output
        return tmp_path / "token"

    return make


def files(directory: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in directory.iterdir()}


def test_two_commands_make_a_gateway_whose_keys_never_left_its_machine(running, enroll, handed_over, tmp_path):
    file = handed_over("gateway-20", "--for", "30m")
    assert oct(stat.S_IMODE(file.stat().st_mode)) == "0o600"
    done = enroll("gateway-20", "--server", "finance=http://127.0.0.1:9/mcp", "--agent", "Finance-Bot", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["trust_checked"], said["signed_bundles"]) == (True, False)
    config = load_config(tmp_path / "gw" / "gateway.yaml")
    assert (config.enforcer_id, config.log_id, config.tenant) == ("gateway-20", LOG_ID, "acme")
    shared = load_key(config.keys.pseudonym, None)
    assert (shared.seed, shared.simulated) == (running.services.keys.pseudonym.seed, True)
    assert running.services.tokens.authenticate(
        (tmp_path / "gw" / "service.token").read_text().strip()
    ).enforcer_id == ("gateway-20")
    assert files(tmp_path / "gw").keys() == {
        *("gateway.yaml", "signing.json", "spool.json", "pseudonym.json", "service.token", "trust.policy"),
    }
    assert {mode for name, mode in files(tmp_path / "gw").items() if name != "trust.policy"} == {"0o600"}


def test_without_servers_the_configuration_reads_a_file_of_them(enroll, handed_over, tmp_path):
    handed_over("gateway-21")
    done = enroll("gateway-21")
    assert (done.exit_code, "servers.yaml" in done.stdout) == (0, True), done.output
    assert "servers_file: servers.yaml" in (tmp_path / "gw" / "gateway.yaml").read_text()


def test_an_enrolment_that_was_interrupted_goes_on_with_the_same_keys(
    running, enroll, handed_over, tmp_path, monkeypatch
):
    handed_over("gateway-22")

    def broken(*_: object) -> None:
        raise OSError("a fault of the test's")

    with monkeypatch.context() as patch:
        patch.setattr("service.cli.joining._keep_answer", broken)
        assert enroll("gateway-22").exit_code != 0
    before = load_key(f"file:{tmp_path / 'gw' / 'signing.json'}", None)
    assert "gateway.yaml" not in files(tmp_path / "gw")
    done = enroll("gateway-22")
    assert done.exit_code == 0, done.output
    assert load_key(f"file:{tmp_path / 'gw' / 'signing.json'}", None).key_id == before.key_id
    assert introductions(running, "gateway-22") == 1
    assert "enrolling" not in files(tmp_path / "gw")
    again = enroll("gateway-22")
    assert (again.exit_code, "enrolled already" in again.stderr) == (64, True)


def test_acknowledgements_are_to_be_proven_by_the_keys_that_were_handed_over(enroll, handed_over, tmp_path):
    handed_over("gateway-27")
    assert enroll("gateway-27").exit_code == 0
    trust = load_config(tmp_path / "gw" / "gateway.yaml").service.trust
    assert trust == tmp_path / "gw" / "trust.policy"
    assert read_trust(trust).logs


def test_keys_that_only_the_service_names_prove_nothing_and_that_is_said(enroll, handed_over, tmp_path):
    """Invariant 11: a policy that came from the service alone would be trust from the thing being verified."""
    file = handed_over("gateway-28")
    file.write_text(file.read_text().splitlines()[0] + "\n")
    done = enroll("gateway-28")
    assert done.exit_code == 0, done.output
    assert load_config(tmp_path / "gw" / "gateway.yaml").service.trust is None
    assert (tmp_path / "gw" / "trust.policy").exists()
    assert "set service.trust" in done.stdout


def test_a_service_that_names_other_keys_than_were_handed_over_is_not_believed(enroll, handed_over, tmp_path):
    file = handed_over("gateway-23")
    token, trust = file.read_text().splitlines()
    file.write_text(f"{token}\n{trust[:-4]}0000\n")
    refused = enroll("gateway-23")
    assert (refused.exit_code, "names other keys to trust" in refused.stderr) == (1, True), refused.output
    assert "gateway.yaml" not in files(tmp_path / "gw")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no secret"),
        ("ts1.acme." + "x" * 43, "no enrolment token"),
        ("te1.acme." + "x" * 43 + "\nnonsense", "no enrolment"),
    ],
)
def test_a_file_that_holds_no_token_is_refused_before_anybody_is_asked(enroll, tmp_path, text, told):
    (tmp_path / "token").write_text(text)
    (tmp_path / "token").chmod(0o600)
    refused = enroll("gateway-24")
    assert (refused.exit_code, told in refused.stderr) == (64, True), refused.stderr
    assert not (tmp_path / "gw").exists()


def test_a_file_that_others_can_read_a_wrong_id_and_a_full_directory_are_refused(enroll, handed_over, tmp_path):
    file = handed_over("gateway-25")
    file.chmod(0o644)
    assert (enroll("gateway-25").exit_code, (tmp_path / "gw").exists()) == (64, False)
    file.chmod(0o600)
    assert (enroll("gateway-26").exit_code, (tmp_path / "gw").exists()) == (64, False)
    assert (enroll("gateway-25", "--zone", "Mars/Base").exit_code, (tmp_path / "gw").exists()) == (64, False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("else")
    assert enroll("gateway-25", directory="full").exit_code == 64
    assert enroll("gateway-25").exit_code == 0


@pytest.mark.parametrize("span", ["0h", "1", "h", "1w", "-1h", "99999d"])
def test_a_span_of_time_that_is_none_is_refused(running, span):
    made = CliRunner().invoke(
        cli, ["enroll", "token", "--id", "x", "--for", span, "--url", running.url, "--token", running.token(Role.ADMIN)]
    )
    assert made.exit_code in (2, 64), made.output
