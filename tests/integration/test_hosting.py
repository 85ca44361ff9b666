"""Several logs in one process: one that fails or is flooded is no other's trouble. Counted, not timed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from ledger.errors import ConfigError, LedgerError, NotFoundError, OverloadedError, StateError
from service.auth import Role
from service.cli.main import cli
from service.hosting import Hosting, open_hosting
from tests.integration.test_dashboard_http import log_in
from tests.integration.test_hostile_tenant import listening
from tests.support.tenants import MINE, OPERATOR_TOKEN, THEIRS, RunningTenants, make_installation, start_tenants

OPERATOR = {"authorization": f"Bearer {OPERATOR_TOKEN}"}


def hosting_of(root: Path, **changes: Any) -> Hosting:
    return open_hosting(make_installation(root, **changes), allow_simulated=True)


def hide(folder: Path) -> Path:
    """Take a log's keys away, as a folder that is not mounted."""
    hidden = folder.with_name(f"{folder.name}-away")
    folder.rename(hidden)
    return hidden


# --- logs that do not open -------------------------------------------------------------------------------------------


def test_a_log_that_does_not_open_is_told_and_the_others_go_on(tmp_path: Path):
    make_installation(tmp_path)
    hide(tmp_path / "keys" / THEIRS)
    with start_tenants(tmp_path, keys=False) as server, server.stranger() as stranger:
        mine = server.tenant(MINE)
        assert mine.enforcer().decide()
        assert stranger.get("/readyz").json()["ready"] is True
        assert THEIRS not in stranger.get("/readyz").text
        told = {state["log_id"]: state for state in stranger.get("/readyz", headers=OPERATOR).json()["logs"]}
        assert told[MINE]["ready"] is True
        assert told[THEIRS]["ready"] is False
        assert "cannot be read" in told[THEIRS]["failure"] or "key" in told[THEIRS]["failure"]
        assert f'tallystick_log_open{{log="{THEIRS}"}} 0.0' in stranger.get("/metrics", headers=OPERATOR).text
        token = mine.services.tokens.issue(THEIRS, Role.AUDITOR, "jane")
        closed = stranger.get("/v1/decisions", headers={"authorization": f"Bearer {token}"})
        assert closed.status_code == 503
        assert closed.json()["detail"] == "the log is not open at the moment"
        # Whoever has no token of it learns nothing of it.
        for log_id in (THEIRS, "initech"):
            answer = stranger.get(f"/logs/{log_id}/checkpoint")
            assert answer.status_code == 401
        with mine.client() as client:
            assert client.get(f"/logs/{THEIRS}/checkpoint").status_code == 404


def test_a_log_that_did_not_open_is_opened_when_it_can_be(tmp_path: Path):
    make_installation(tmp_path)
    hidden = hide(tmp_path / "keys" / THEIRS)
    installation = make_installation(tmp_path, keys=False)

    async def scene() -> None:
        hosting = open_hosting(installation, allow_simulated=True, retry_seconds=0.01)
        await hosting.start()
        try:
            with pytest.raises(StateError):
                hosting.find(THEIRS)
            assert set(hosting.failures) == {THEIRS}
            hidden.rename(tmp_path / "keys" / THEIRS)
            for _ in range(3000):
                if hosting.is_open(THEIRS):
                    break
                await asyncio.sleep(0.01)
            assert hosting.failures == {}
            assert hosting.find(THEIRS).sequenced_size() > 0
        finally:
            await hosting.stop()

    asyncio.run(scene())


def test_where_no_log_opens_the_service_ends_with_the_reason(tmp_path: Path):
    make_installation(tmp_path)
    shutil.rmtree(tmp_path / "keys")

    async def scene() -> None:
        hosting = hosting_of(tmp_path, keys=False)
        with pytest.raises((ConfigError, LedgerError)):
            await hosting.start()
        assert not hosting.is_open(MINE)

    asyncio.run(scene())


@pytest.mark.parametrize("name", ["vault.json", "pseudonym.json"])
def test_two_logs_with_one_key_are_refused_wherever_the_copy_lies(tmp_path: Path, name):
    make_installation(tmp_path)
    shutil.copy(tmp_path / "keys" / MINE / name, tmp_path / "keys" / THEIRS / name)

    async def scene() -> None:
        hosting = hosting_of(tmp_path)
        with pytest.raises(ConfigError, match=f"share a {name.removesuffix('.json')} key"):
            await hosting.start()

    asyncio.run(scene())


def test_a_log_that_is_none_of_ours_is_not_found(tmp_path: Path):
    hosting = hosting_of(tmp_path)
    with pytest.raises(NotFoundError):
        hosting.find("initech")
    assert not hosting.is_open("initech")
    asyncio.run(hosting.stop())


@pytest.mark.parametrize("secret", ["short", "x" * 31, ""])
def test_an_operators_token_that_can_be_guessed_is_refused(tmp_path: Path, secret):
    installation = make_installation(tmp_path)
    (tmp_path / "operator.token").write_text(secret)
    with pytest.raises(ConfigError) as caught:
        open_hosting(installation, allow_simulated=True)
    assert secret == "" or secret not in str(caught.value)


def test_logs_open_again_with_what_they_had(tmp_path: Path):
    with start_tenants(tmp_path) as server:
        kept = {log_id: server.tenant(log_id).enforcer().decide() for log_id in (MINE, THEIRS)}
    with start_tenants(tmp_path) as server:
        for log_id, decision_id in kept.items():
            with server.tenant(log_id).client() as client:
                assert client.get(f"/v1/decisions/{decision_id}").status_code == 200


def test_one_log_of_several_is_served_alone_where_it_is_named(tmp_path: Path):
    with start_tenants(tmp_path, log_id=THEIRS) as server, server.stranger() as stranger:
        only = server.hosting.only
        assert only is not None
        assert only.identity.log_id == THEIRS
        assert stranger.get("/metrics").status_code == 200
        token = only.tokens.issue(MINE, Role.ADMIN, "mallory")
        assert stranger.get("/v1/bundles", headers={"authorization": f"Bearer {token}"}).status_code == 404


# --- floods ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[RunningTenants]:
    logs: dict[str, dict[str, object]] = {MINE: {"max_requests": 3}, THEIRS: {}}
    with start_tenants(tmp_path, logs=logs) as server:
        yield server


@contextmanager
def unfinished_request(server: RunningTenants, token: str) -> Iterator[None]:
    """Hold a place: a request whose body does not end."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as held:
        held.sendall(
            f"POST /v1/decisions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{".encode()
        )
        yield


def test_a_log_that_fills_its_places_is_answered_429_and_the_other_is_served(crowded):
    mine, theirs = crowded.tenant(MINE), crowded.tenant(THEIRS)
    flooding, quiet = mine.enforcer(), theirs.enforcer("gateway-2", seed=22)
    waited = threading.Event()
    with (
        unfinished_request(crowded, flooding.token),
        unfinished_request(crowded, flooding.token),
        unfinished_request(crowded, flooding.token),
        mine.client() as client,
    ):
        for _ in range(1500):
            if mine.services.places.taken == 3:
                break
            waited.wait(0.02)
        places = ("/v1/bundles", f"/logs/{MINE}/checkpoint", f"/logs/{MINE}/tile/0/000.p/3", "/v1/keys")
        refused = [client.get(place) for place in places for _ in range(3)]
        assert {answer.status_code for answer in refused} == {429}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert len({quiet.decide() for _ in range(10)}) == 10


def test_the_pages_of_a_log_take_its_places_as_well(crowded):
    mine, theirs = crowded.tenant(MINE), crowded.tenant(THEIRS)
    pages = {}
    for tenant in (mine, theirs):
        with crowded.browser_client() as browser:
            assert log_in(browser, tenant.token(Role.AUDITOR)).status_code == 303
            for places in (tenant.services.places, None):
                taken = 0 if places is None else places._limit
                tenant.services.places.taken += taken
                pages[tenant.log_id, taken > 0] = browser.get("/")
                tenant.services.places.taken -= taken
        assert tenant.services.places.taken == 0
    assert {key: page.status_code for key, page in pages.items()} == {
        (MINE, True): 429,
        (MINE, False): 200,
        (THEIRS, True): 429,
        (THEIRS, False): 200,
    }
    assert "requests are in hand" in pages[MINE, True].text


def test_whether_a_log_can_record_a_failed_login_is_not_to_be_seen_from_outside(crowded, monkeypatch):
    theirs, asked = crowded.tenant(THEIRS), threading.Event()

    async def hanging(*_: object) -> None:
        asked.set()
        await asyncio.sleep(3600)

    async def overloaded(*_: object) -> None:
        asked.set()
        raise OverloadedError("too many records wait")

    answers = []
    for record in (hanging, overloaded):
        monkeypatch.setattr(type(theirs.services.access), "record", record)
        for log_id in (THEIRS, "initech"):
            with crowded.browser_client() as browser:
                answer = log_in(browser, f"ts1.{log_id}." + "x" * 43)
            text = re.sub(r'name="csrf" value="[^"]+"', "", answer.text)
            answers.append((answer.status_code, text, set(answer.headers)))
        assert asked.wait(30)
        asked.clear()
    assert answers[0][0] == 403
    assert all(answer == answers[0] for answer in answers)


def test_a_log_that_is_not_there_is_looked_for_as_any_other(crowded):
    """How long an answer takes follows from what is asked of the database; that is told here without a clock."""
    seen = {}
    with crowded.stranger() as stranger:
        for log_id in (MINE, "initech"):
            secret = f"{log_id}." + "x" * 43
            with listening(crowded.tenant(MINE).services.database) as statements:
                stranger.get("/", headers={"cookie": f"tallystick={secret}"})
                stranger.get(f"/login/link/{secret}")
                stranger.get("/v1/bundles", headers={"authorization": f"Bearer ts1.{secret}"})
            # The logs' own work goes on meanwhile, and asks for neither.
            asked = [one.text for one in statements if re.search(r"FROM (web_sessions|api_tokens)", one.text)]
            seen[log_id] = asked
    assert seen[MINE] == seen["initech"]
    assert len(seen[MINE]) == 3


def test_a_log_whose_queries_hang_leaves_the_other_all_that_it_needs(crowded, monkeypatch):
    mine, theirs = crowded.tenant(MINE), crowded.tenant(THEIRS)
    gate, asked = threading.Event(), threading.Semaphore(0)
    quiet = theirs.enforcer("gateway-2", seed=22)
    genuine = mine.services.catalog

    class Hanging:
        def __getattr__(self, name: str) -> Any:
            return getattr(genuine, name)

        def search(self, *arguments: Any) -> Any:
            asked.release()
            assert gate.wait(60)
            return genuine.search(*arguments)

    object.__setattr__(mine.services, "catalog", Hanging())
    object.__setattr__(mine.services.places, "_limit", 100)
    token = mine.token(Role.AUDITOR)

    def flood(_number: int) -> int:
        with crowded.stranger() as client:
            client.timeout = httpx.Timeout(60)
            return client.get("/v1/decisions", headers={"authorization": f"Bearer {token}"}).status_code

    with ThreadPoolExecutor(40) as senders:
        try:
            flooded = senders.map(flood, range(40))
            assert asked.acquire(timeout=30)
            # Nothing of the flood can end meanwhile: what is served now is served beside it.
            assert len({quiet.decide() for _ in range(20)}) == 20
            with theirs.client() as client:
                assert {client.get("/v1/decisions").status_code for _ in range(20)} == {200}
        finally:
            gate.set()
        assert list(flooded) == [200] * 40


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an installation of two logs that has run, named by the environment."""
    with start_tenants(tmp_path) as server:
        for log_id in (MINE, THEIRS):
            server.tenant(log_id).enforcer().decide()
            server.tenant(log_id).wait_until_published()
    for name in ("data", "keys"):
        monkeypatch.setenv(f"TALLYSTICK_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setenv("TALLYSTICK_LOGS", str(tmp_path / "logs.yaml"))
    return tmp_path


def do(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments)


def test_the_logs_of_an_installation_are_listed(machine):
    listed = json.loads(do("logs", "--json").stdout)
    assert [(line["log_id"], line["tenant"], line["origin"]) for line in listed] == [
        (MINE, f"{MINE}-tenant", f"service.example/{MINE}-origin"),
        (THEIRS, f"{THEIRS}-tenant", f"service.example/{THEIRS}-origin"),
    ]
    assert all(line["size"] == line["published"] > 0 and line["age_seconds"] >= 0 for line in listed)
    assert f"{THEIRS}-tenant" in do("logs").stdout


def test_a_log_whose_checkpoint_its_own_keys_did_not_sign_is_not_believed(machine):
    shutil.copy(machine / "keys" / MINE / "trust.policy", machine / "keys" / THEIRS / "trust.policy")
    done = do("logs", "--json")
    assert done.exit_code == 1
    mine, theirs = json.loads(done.stdout)
    assert mine["trouble"] is None
    assert theirs["trouble"]
    assert theirs["published"] is None
    assert "not believed" in do("logs").stdout


@pytest.mark.parametrize("command", [("audit",), ("keys", "token", "--role", "admin", "--name", "ops")])
def test_a_command_for_one_log_asks_which(machine, command):
    refused = do(*command)
    assert refused.exit_code == 64
    assert f"name one, by --log-id or TALLYSTICK_LOG_ID: {MINE}, {THEIRS}" in refused.stderr
    assert do(*command, "--log-id", "initech").exit_code == 64


def test_a_command_works_on_the_log_that_is_named(machine):
    for log_id in (MINE, THEIRS):
        assert json.loads(do("audit", "--json", "--log-id", log_id).stdout)["log_id"] == log_id
        issued = do("keys", "token", "--role", "admin", "--name", "ops", "--log-id", log_id).stdout
        assert issued.startswith(f"ts1.{log_id}.")


def test_a_step_of_one_logs_keys_leaves_the_files_of_another_alone(crowded, tmp_path, monkeypatch):
    """Whoever mistakes the log must not make an auditor of one tenant trust the keys of another."""
    for name in ("data", "keys"):
        monkeypatch.setenv(f"TALLYSTICK_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setenv("TALLYSTICK_LOGS", str(tmp_path / "logs.yaml"))
    monkeypatch.setenv("TALLYSTICK_URL", crowded.url)
    monkeypatch.setenv("TALLYSTICK_TOKEN", crowded.tenant(MINE).token(Role.ADMIN))
    theirs = tmp_path / "keys" / THEIRS
    before = {path.name: path.read_bytes() for path in theirs.iterdir() if path.is_file()}
    assert do("keys", "rotate", "pack", "--algorithm", "ed25519", "--log-id", MINE).exit_code == 0
    old = next(key for key in crowded.tenant(MINE).services.keys.of("pack") if key.algorithm == "ed25519").key_id
    for step in (
        ("rotate", "log"),
        ("introduce", "0" * 16),
        ("retire", old),
        ("compromise", old, "--after-size", "1", "--purpose", "an inquiry"),
    ):
        result = do("keys", *step, "--log-id", THEIRS)
        assert (result.exit_code, f"{MINE}-origin" in result.stderr) == (64, True), step
    assert {path.name: path.read_bytes() for path in theirs.iterdir() if path.is_file()} == before
    assert do("keys", "retire", old, "--log-id", MINE).exit_code == 0


def test_one_database_is_migrated_for_all(machine):
    assert do("migrate").exit_code == 0


def test_logs_are_not_listed_before_there_is_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TALLYSTICK_DATA_DIR", str(tmp_path / "data"))
    refused = do("logs")
    assert refused.exit_code == 64
    assert "there is no database yet" in refused.stderr
    assert list(tmp_path.iterdir()) == []
