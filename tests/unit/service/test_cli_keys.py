"""`tallystick keys` and `migrate` on an empty machine: each says what is missing, and what to do first."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import nacl.secret
import pytest
from click.testing import CliRunner, Result

from ledger.errors import ConfigError
from ledger.notes import encode_base64
from ledger.trust import parse_trust_policy
from service.cli.keys import _backup_key
from service.cli.main import cli
from service.keyset import KEY_FILES, unprotected_keys
from service.settings import load_settings
from service.wiring.assembly import build_services

PASSPHRASE = "a long enough one"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Path:
    """An empty machine whose settings lead to ``data`` and ``keys``."""
    for name in ("PASSPHRASE", "PASSPHRASE_FILE", "BACKUP_PASSPHRASE", "DATABASE_URL", "SERVICE_ID"):
        monkeypatch.delenv(f"TALLYSTICK_{name}", raising=False)
    monkeypatch.setenv("TALLYSTICK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TALLYSTICK_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("TALLYSTICK_ORIGIN", "ledger.example/acme")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def do(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def made(*arguments: str) -> Result:
    done = do(*arguments)
    assert done.exit_code == 0, done.output
    return done


# --- first tokens ----------------------------------------------------------------------------------------------------


def test_a_token_before_there_is_a_database_is_refused_with_what_to_run_first(machine):
    refused = do("keys", "token", "--role", "admin", "--name", "ops")
    told = f"tallystick: there is no database yet at {machine / 'data' / 'ledger.db'}: run `tallystick migrate`"
    assert refused.exit_code == 64
    assert refused.stderr.startswith(told)
    assert list(machine.iterdir()) == []


def test_after_migrating_there_is_a_token(machine):
    assert json.loads(made("migrate", "--json").stdout) == {"migrated": True}
    assert made("keys", "token", "--role", "admin", "--name", "ops").stdout.startswith("ts1.main.")


def test_a_database_that_is_named_is_migrated_where_it_is_and_no_directory_is_made(machine, monkeypatch):
    monkeypatch.setenv("TALLYSTICK_DATABASE_URL", f"sqlite:///{machine / 'other.db'}")
    made("migrate")
    assert [path.name for path in machine.iterdir()] == ["other.db"]
    with sqlite3.connect(machine / "other.db") as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    connection.close()


# --- keys that do not fit the settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("TALLYSTICK_ORIGIN", "TALLYSTICK_ORIGIN is ledger.example/other, the keys are of ledger.example/acme"),
        ("TALLYSTICK_SERVICE_ID", "TALLYSTICK_SERVICE_ID is ledger.example/other, the keys are of service"),
    ],
)
def test_keys_of_another_origin_are_refused_with_the_setting_to_change(machine, monkeypatch, name, told):
    made("keys", "init", "keys")
    monkeypatch.setenv(name, "ledger.example/other")
    with pytest.raises(ConfigError) as caught:
        build_services(load_settings())
    assert str(caught.value) == f"the keys were made for another origin or service id: {told}"
    assert not (machine / "data").exists()


# --- protection ------------------------------------------------------------------------------------------------------


def test_keys_without_a_passphrase_are_known_and_those_with_one(machine, monkeypatch):
    made("keys", "init", "keys")
    assert unprotected_keys(machine / "keys") == list(KEY_FILES)
    monkeypatch.setenv("TALLYSTICK_PASSPHRASE", PASSPHRASE)
    made("keys", "init", "protected")
    assert unprotected_keys(machine / "protected") == []


# --- backups ---------------------------------------------------------------------------------------------------------


def backed_up(file: str = "backup.json", secret: str = PASSPHRASE) -> Result:
    return do("keys", "backup", "keys", file, "--backup-passphrase", secret, "--json")


def test_a_backup_is_restored_to_the_same_keys(machine):
    init = json.loads(made("keys", "init", "keys", "--json").stdout)
    assert json.loads(backed_up().stdout) == {"file": "backup.json", "keys": sorted(KEY_FILES)}
    back = made("keys", "restore", "backup.json", "again", "--backup-passphrase", PASSPHRASE, "--json")
    assert json.loads(back.stdout)["trust_policy"] == init["trust_policy"]
    for name in KEY_FILES:
        assert (machine / "again" / name).read_bytes() == (machine / "keys" / name).read_bytes()


def disowned(machine: Path) -> tuple[str, str]:
    """Leave one log key out of the trust policy, as a compromise does; return that policy and the key's fingerprint."""
    path = machine / "keys" / "trust.policy"
    policy = parse_trust_policy(path.read_bytes())
    path.write_text(f"# without the key that was found outside\n{replace(policy, logs=policy.logs[1:]).encode()}")
    return path.read_text(), policy.logs[0].fingerprint


def test_a_key_that_was_disowned_does_not_come_back_with_a_restore(machine):
    made("keys", "init", "keys")
    policy, fingerprint = disowned(machine)
    assert json.loads(backed_up().stdout)["keys"] == sorted(KEY_FILES)
    back = made("keys", "restore", "backup.json", "again", "--backup-passphrase", PASSPHRASE)
    assert (machine / "again" / "trust.policy").read_text() == policy
    assert (machine / "again" / "log-ed25519.json").exists()
    assert fingerprint not in (machine / "again" / "fingerprints.txt").read_text() + back.stdout


def test_showing_keys_shows_the_trust_policy_beside_them_and_no_key_that_it_left_out(machine):
    made("keys", "init", "keys")
    policy, fingerprint = disowned(machine)
    told = json.loads(made("keys", "show", "keys", "--json").stdout)
    assert parse_trust_policy(told["trust_policy"].encode()) == parse_trust_policy(policy.encode())
    assert fingerprint not in made("keys", "show", "keys").stdout


def test_a_backup_of_an_earlier_version_is_restored_and_says_what_it_does_not_know(machine):
    made("keys", "init", "keys")
    files = {name: (machine / "keys" / name).read_text() for name in KEY_FILES}
    salt = bytes(16)
    box = nacl.secret.SecretBox(_backup_key(PASSPHRASE, salt)).encrypt(json.dumps(files).encode())
    document = {"format": "tallystick.key-backup/1", "salt": encode_base64(salt), "box": encode_base64(bytes(box))}
    (machine / "backup.json").write_text(json.dumps(document))
    back = made("keys", "restore", "backup.json", "again", "--backup-passphrase", PASSPHRASE)
    assert "knows nothing of keys that were disowned" in back.stdout
    assert (machine / "again" / "trust.policy").read_bytes() == (machine / "keys" / "trust.policy").read_bytes()


def test_what_stands_in_the_way_of_a_backup_is_named_and_left_alone(machine):
    made("keys", "init", "keys")
    (machine / "backup.json").write_text("mine")
    refused = backed_up()
    assert (refused.exit_code, refused.stderr) == (64, "tallystick: backup.json exists; name a new file\n")
    assert (machine / "backup.json").read_text() == "mine"


@pytest.mark.parametrize("secret", ["x", "eleven char"])
def test_a_backup_under_a_short_passphrase_is_not_made(machine, secret):
    made("keys", "init", "keys")
    refused = backed_up(secret=secret)
    assert (refused.exit_code, "at least 12 characters" in refused.stderr) == (64, True)
    assert not (machine / "backup.json").exists()
