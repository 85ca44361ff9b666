"""`tallystick gateway init`, `blocks` and `release` against a running service: all of it or nothing, and on record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enforcement.config_files import load_config
from enforcement.facts import Pseudonyms
from enforcement.identity import Identity
from enforcement.sessions import Sessions
from enforcement.state import StateDatabase
from ledger.bodies import KeyEvent
from ledger.keys import generate_key, load_key, save_key
from service.auth import Role
from service.cli.main import cli
from service.keyset import make_key_set
from tests.support.ledger import LOG_ID, NOW_MS
from tests.support.service import RunningService, start_service

AGENT = Identity(credential="0" * 64, agent="Refund-Bot", user="alice", roles=(), mfa=False, authn="token")

Init = Callable[..., Result]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def init(running, tmp_path, monkeypatch) -> Init:
    """Run ``gateway init`` into tmp_path/gw; what is given replaces or adds options."""
    monkeypatch.chdir(tmp_path)
    for name in ("TALLYSTICK_PASSPHRASE", "TALLYSTICK_PASSPHRASE_FILE", "TALLYSTICK_GATEWAY_LISTEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*more: str, directory: str = "gw", token: str | None = None, **changes: str) -> Result:
        options = {
            "id": "gateway-1",
            "server": "finance=http://127.0.0.1:9",
            "agent": "Refund-Bot",
            "role": "finance",
            "zone": "Europe/Berlin",
            "keys-dir": str(running.services.settings.keys_dir),
            "url": running.url,
            "token": token or running.token(Role.ADMIN),
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        spelt = [part for name, value in options.items() for part in (f"--{name}", value)]
        return CliRunner().invoke(cli, ["gateway", "init", directory, *spelt, *more])

    return run


def introduced(running: RunningService) -> list[str]:
    indexes = running.services.catalog.of_type(LOG_ID, "key")
    bodies = [running.services.reader.record(index).body for index in indexes]
    return [body.subject for body in bodies if isinstance(body, KeyEvent) and body.purpose == "enforcer"]


# --- preparing -------------------------------------------------------------------------------------------------------


def test_what_is_printed_names_the_address_that_was_asked_for_and_the_file_from_here(running, init, tmp_path):
    made = init("--listen", "127.0.0.1:8999", "--server", "crm=http://127.0.0.1:8", id="gateway-printed")
    assert made.exit_code == 0, made.output
    assert "gateway --config gw/gateway.yaml --listen 127.0.0.1:8999\n" in made.stdout
    assert "Clients: http://127.0.0.1:8999/servers/finance/mcp\n" in made.stdout
    assert "         http://127.0.0.1:8999/servers/crm/mcp\n" in made.stdout
    assert "8788" not in made.stdout
    assert re.search(r"Authorization: Bearer \S{43} ", made.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gw"]


def test_the_configuration_is_read_from_any_directory_and_only_its_owner_reads_the_files(init, tmp_path, monkeypatch):
    assert init(id="gateway-absolute").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(tmp_path / "gw" / "gateway.yaml")
    assert config.state_directory == tmp_path / "gw" / "state"
    for uri in (config.keys.signing, config.keys.pseudonym, config.keys.spool):
        load_key(uri, None)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "gw").iterdir()} == {"0o600"}
    assert oct((tmp_path / "gw").stat().st_mode & 0o777) == "0o700"


def test_a_gateway_gets_the_pseudonym_key_that_the_log_uses_and_not_one_from_before(init, tmp_path):
    with start_service(tmp_path / "service") as rotated:
        keys_dir = rotated.services.settings.keys_dir
        first = load_key(f"file:{keys_dir / 'pseudonym.json'}", None)
        newer = generate_key("pseudonym", first.algorithm, first.name, created_ms=NOW_MS, simulated=True)
        save_key(newer, keys_dir / "pseudonym.2.json", None)
        options = {"keys_dir": str(keys_dir), "url": rotated.url, "token": rotated.token(Role.ADMIN)}
        assert init(directory="before", id="gateway-before", **options).exit_code == 0
        with rotated.client(Role.ADMIN) as admin:
            admin.post("/v1/keys", json={"key_id": newer.key_id}).raise_for_status()
            admin.post(f"/v1/keys/{first.key_id}/retirement", json={}).raise_for_status()
        assert init(directory="after", id="gateway-after", **options).exit_code == 0
    assert load_key(f"file:{tmp_path / 'before' / 'pseudonym.json'}", None).key_id == first.key_id
    assert load_key(f"file:{tmp_path / 'after' / 'pseudonym.json'}", None).key_id == newer.key_id


def test_a_gateway_gets_no_pseudonym_key_of_another_log(running, init, tmp_path):
    make_key_set(tmp_path / "keys", origin="service.example/other", service_id="service", created_ms=NOW_MS)
    made = init(id="gateway-other", keys_dir=str(tmp_path / "keys"))
    assert (made.exit_code, "is it of another log?" in made.stderr) == (64, True)
    assert "gateway-other" not in introduced(running)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"]


def test_for_programs_there_is_the_same_as_json(running, init, tmp_path):
    made = init("--json", id="gateway-json")
    value = json.loads(made.stdout)
    assert value["endpoints"] == {"finance": "http://127.0.0.1:8788/servers/finance/mcp"}
    assert (value["enforcer_id"], value["agent"]) == ("gateway-json", "Refund-Bot")
    assert value["config"] == str(tmp_path / "gw" / "gateway.yaml")
    assert running.services.reader.record(value["leaf_index"]).body.subject == "gateway-json"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"zone": "Mars/Olympus"}, "--zone: is not a time zone"),
        ({"agent": "My Agent"}, "--agent: is not a name"),
        ({"role": "a b"}, "--role: is not a name"),
        ({"id": "a b"}, "--id: is not a name"),
        ({"server": "finance=ftp://x"}, "--server: is not an http or https URL"),
        ({"server": "a b=http://x"}, "--server: is not of the right form"),
        ({"server": "finance"}, "--server takes NAME=URL"),
        ({"listen": "8788"}, "--listen takes HOST:PORT"),
        ({"url": "127.0.0.1:8787"}, "the URL of a service starts with"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_no_configuration_could_hold_is_refused_before_the_log_learns_of_a_key(
    running, init, tmp_path, changes, told
):
    before = introduced(running)
    refused = init(**changes)
    assert (refused.exit_code, refused.stdout) == (64, "")
    assert f"tallystick: {told}" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert introduced(running) == before


def test_several_faults_have_a_line_each(init):
    refused = init(zone="Mars/Olympus", agent="My Agent")
    assert [line.split()[1] for line in refused.stderr.splitlines()] == ["--zone:", "--agent:"]


def test_one_server_twice_is_refused(init):
    assert "--server finance stands twice" in init("--server", "finance=http://127.0.0.1:8").stderr


@pytest.mark.parametrize("token", ["auditor", "unknown"])
def test_a_refusal_of_the_service_leaves_nothing_and_the_next_try_succeeds(running, init, tmp_path, token):
    name = f"gateway-again-{token}"
    refused = init(id=name, token=running.token(Role.AUDITOR) if token == "auditor" else "ts1.acme." + "x" * 43)
    assert (refused.exit_code, refused.stderr.count("\n")) == (64, 1)
    assert list(tmp_path.iterdir()) == []
    assert init(id=name).exit_code == 0


def test_keys_that_are_not_there_leave_nothing_either(running, init, tmp_path):
    (tmp_path / "keys").mkdir()
    before = introduced(running)
    assert init(keys_dir=str(tmp_path / "keys")).exit_code == 64
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert introduced(running) == before


@pytest.mark.parametrize("kind", ["a file", "an empty directory", "a gateway"])
def test_what_stands_there_is_left_alone(running, init, tmp_path, kind):
    if kind == "a file":
        (tmp_path / "gw").write_text("mine")
    else:
        (tmp_path / "gw").mkdir()
    if kind == "a gateway":
        (tmp_path / "gw" / "signing.json").write_text("mine")
    before = introduced(running)
    refused = init()
    assert (refused.exit_code, "exists; name a new directory" in refused.stderr) == (64, True)
    assert [path.name for path in tmp_path.iterdir()] == ["gw"]
    assert introduced(running) == before


# --- blocks and releases ---------------------------------------------------------------------------------------------


def block(config_file: Path) -> None:
    """Leave in a gateway's state what a kill leaves there."""
    config = load_config(config_file)
    pseudonyms = Pseudonyms(load_key(config.keys.pseudonym, None).seed)
    state = StateDatabase(config.state_directory)
    sessions = Sessions(state, pseudonyms, idle_ms=1000)
    with state.transaction() as connection:
        sessions.block(AGENT, decision_id="d" * 32, now_ms=NOW_MS).apply(connection)
    state.close()


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["gateway", *arguments, "--config", "gw/gateway.yaml"])


def test_an_operator_sees_who_is_blocked_and_lets_him_call_again_on_record(init, tmp_path):
    assert init(id="gateway-releasing").exit_code == 0
    block(tmp_path / "gw" / "gateway.yaml")
    (found,) = json.loads(command("blocks", "--json").stdout)
    assert (found["agent"], found["decision_id"], found["since_ms"]) == ("Refund-Bot", "d" * 32, NOW_MS)
    shown = command("blocks").stdout
    assert "Refund-Bot" in shown
    assert "alice" not in shown
    who = ("release", "--agent", "Refund-Bot", "--user", "alice", "--by", "carol")
    done = command(*who, "--purpose", "reviewed with the team")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(command("blocks", "--json").stdout) == []
    state = StateDatabase(tmp_path / "gw" / "state")
    waiting = state.read("SELECT entry FROM queue")
    state.close()
    (event,) = [json.loads(entry)["body"] for (entry,) in waiting]
    assert (event["action"], event["actor_role"], event["target_id"]) == ("release_block", "operator", "d" * 32)
    assert "reviewed with the team" not in json.dumps(event)
    assert "carol" not in json.dumps(event)
    again = command(*who, "--purpose", "once more")
    assert (again.exit_code, again.stderr.count("\n")) == (4, 1)


@pytest.mark.parametrize("user", [(), ("--user", "bob")], ids=["no user", "another user"])
def test_a_release_is_for_the_agent_and_the_user_who_are_blocked_and_nobody_else(init, tmp_path, user):
    assert init(id=f"gateway-other-{len(user)}").exit_code == 0
    block(tmp_path / "gw" / "gateway.yaml")
    done = command("release", "--agent", "Refund-Bot", *user, "--purpose", "reviewed", "--by", "carol")
    assert done.exit_code == 4
    assert len(json.loads(command("blocks", "--json").stdout)) == 1


def test_a_release_without_a_reason_is_refused(init, tmp_path):
    assert init(id="gateway-reason").exit_code == 0
    block(tmp_path / "gw" / "gateway.yaml")
    assert command("release", "--agent", "Refund-Bot", "--user", "alice", "--purpose", " ").exit_code == 64
    assert len(json.loads(command("blocks", "--json").stdout)) == 1
