"""The file that names several logs: what it may say, and what two logs must not share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ledger.errors import ConfigError
from service.settings import PROCESS_WIDE, Settings, load_installation, load_settings

ACME: dict[str, Any] = {"log_id": "acme", "tenant": "Acme", "origin": "ledger.example/acme"}
GLOBEX: dict[str, Any] = {"log_id": "globex", "tenant": "Globex", "origin": "ledger.example/globex"}
SECRET = "do-not-quote-me"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the places of an installation, named by the environment."""
    monkeypatch.setenv("TALLYSTICK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TALLYSTICK_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("TALLYSTICK_LOGS", str(tmp_path / "logs.yaml"))
    return tmp_path


def write(machine: Path, *logs: dict[str, Any]) -> None:
    write_text(machine, yaml.safe_dump({"logs": list(logs)}))


def write_text(machine: Path, text: str | bytes) -> None:
    (machine / "logs.yaml").write_bytes(text.encode() if isinstance(text, str) else text)


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_installation(**overrides)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# --- what is in force ------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_one_log_and_it_is_the_process(machine, monkeypatch):
    monkeypatch.setenv("TALLYSTICK_LOGS", "")
    installation = load_installation()
    assert installation.logs == (installation.settings,)
    assert installation.one() is installation.settings


def test_each_log_has_its_own_settings_and_places_and_all_have_one_database(machine):
    write(machine, {**ACME, "public_log": True}, {**GLOBEX, "keys_dir": str(machine / "elsewhere")})
    installation = load_installation(max_batch_records=7)
    acme, globex = installation.logs
    assert (acme.log_id, acme.tenant, acme.origin, acme.public_log) == ("acme", "Acme", "ledger.example/acme", True)
    assert (acme.data_dir, acme.keys_dir) == (machine / "data" / "acme", machine / "keys" / "acme")
    assert (globex.data_dir, globex.keys_dir) == (machine / "data" / "globex", machine / "elsewhere")
    assert acme.effective_anchor != globex.effective_anchor
    assert not globex.public_log
    assert {log.max_batch_records for log in installation.logs} == {7}
    databases = {log.effective_database_url for log in (installation.settings, *installation.logs)}
    assert databases == {f"sqlite:///{machine / 'data' / 'ledger.db'}"}


def test_every_setting_is_the_processs_or_may_stand_in_an_entry(machine):
    assert set(Settings.model_fields) >= PROCESS_WIDE
    defaults = Settings().model_dump(mode="json", exclude={*PROCESS_WIDE, "anchor_retention_days", "anchor_endpoint"})
    write(machine, {**{name: value for name, value in defaults.items() if value not in (None, "")}, **ACME})
    assert load_installation().one().log_id == "acme"


# --- which log -------------------------------------------------------------------------------------------------------


def test_a_command_for_one_log_asks_which_where_there_are_several(machine):
    write(machine, ACME, GLOBEX)
    with pytest.raises(ConfigError, match=r"several logs are here; name one, by --log-id .*: acme, globex"):
        load_settings()


def test_a_log_is_named_by_an_option_or_by_the_environment(machine, monkeypatch):
    write(machine, ACME, GLOBEX)
    assert load_settings(log_id="globex").tenant == "Globex"
    monkeypatch.setenv("TALLYSTICK_LOG_ID", "acme")
    assert load_settings().tenant == "Acme"
    assert load_settings(log_id="globex").tenant == "Globex"


def test_a_log_that_the_file_does_not_name_is_refused(machine):
    write(machine, ACME, GLOBEX)
    assert refusal(log_id="initech") == "TALLYSTICK_LOG_ID: the file of TALLYSTICK_LOGS has no log initech"


def test_the_only_log_of_a_file_needs_no_naming(machine):
    write(machine, ACME)
    assert load_settings().log_id == "acme"


# --- what two logs must not share ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {"log_id": "acme"}, "two logs have the id acme"),
        ({}, {"origin": ACME["origin"]}, "share the origin"),
        ({"keys_dir": "k"}, {"keys_dir": "k"}, "share the key directory"),
        ({"keys_dir": "k"}, {"keys_dir": "x/../k"}, "share the key directory"),
        ({"keys_dir": "k"}, {"keys_dir": "k/globex"}, "share the key directory"),
        ({"keys_dir": "k/subjects"}, {"keys_dir": "k"}, "share the key directory"),
        ({"data_dir": "d"}, {"data_dir": "./d"}, "share the data directory"),
        ({"data_dir": "d"}, {"data_dir": "d/logs"}, "share the data directory"),
        ({"anchor": "directory:a"}, {"anchor": "directory:./a"}, "share the place of the anchor"),
        ({"anchor": "directory:a"}, {"anchor": "directory:a/b"}, "share the place of the anchor"),
        ({"anchor": "s3://b/p"}, {"anchor": "s3://b/p/"}, "share the place of the anchor"),
        ({"anchor": "s3://b"}, {"anchor": "s3://b/p"}, "share the place of the anchor"),
        ({"tiles": "s3://b/p"}, {"tiles": "s3://b/p"}, "share the place of the tiles"),
        ({"tiles": "directory:t"}, {"tiles": "directory:t/x"}, "share the place of the tiles"),
        ({"anchor": "s3://b/p/q"}, {"anchor": "s3://b/p"}, "share the place of the anchor"),
    ],
)
def test_logs_that_share_what_each_must_have_are_refused_with_the_reason(machine, monkeypatch, first, second, told):
    monkeypatch.chdir(machine)
    write(machine, {**ACME, **first}, {**GLOBEX, **second})
    said = refusal()
    assert told in said
    assert "acme" in said


def test_an_anchor_for_all_in_the_environment_is_shared_and_refused(machine, monkeypatch):
    monkeypatch.setenv("TALLYSTICK_ANCHOR", "s3://bucket/anchor")
    write(machine, ACME, GLOBEX)
    assert "share the place of the anchor" in refusal()


def test_a_folder_that_is_reached_by_a_link_is_the_same_folder(machine):
    (machine / "keys").mkdir()
    (machine / "link").symlink_to(machine / "keys")
    write(machine, {**ACME, "keys_dir": str(machine / "keys")}, {**GLOBEX, "keys_dir": str(machine / "link")})
    assert "share the key directory" in refusal()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"anchor": "s3://b/p"}, {"anchor": "s3://b/p2"}),
        ({"anchor": "s3://b/p"}, {"anchor": "s3://b/p", "anchor_endpoint": "http://s3.example"}),
        ({"anchor": "s3://b"}, {"anchor": "s3://b2"}),
        ({"data_dir": "d"}, {"data_dir": "d2"}),
        ({}, {"tenant": ACME["tenant"]}),
        ({}, {"service_id": "service", "environment": "test"}),
    ],
)
def test_logs_that_are_only_alike_are_taken(machine, monkeypatch, first, second):
    monkeypatch.chdir(machine)
    write(machine, {**ACME, **first}, {**GLOBEX, **second})
    assert [log.log_id for log in load_installation().logs] == ["acme", "globex"]


# --- files that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["log_id", "tenant", "origin"])
@pytest.mark.parametrize("how", ["absent", "empty", "null"])
def test_each_log_names_its_own_id_tenant_and_origin(machine, missing, how):
    entry = {**ACME, missing: {"empty": "", "null": None}.get(how)}
    if how == "absent":
        del entry[missing]
    write(machine, GLOBEX, entry)
    assert refusal() == f"logs[1].{missing}: each log names its own"


@pytest.mark.parametrize("name", sorted(PROCESS_WIDE))
def test_what_is_the_processs_stands_in_no_entry(machine, name):
    write(machine, {**ACME, name: SECRET})
    assert refusal() == f"logs[0].{name}: no setting that a log has for itself"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"log_id": "../acme"}, "logs[0].log_id: 1 to 63 of"),
        ({"log_id": "Acme"}, "logs[0].log_id: 1 to 63 of"),
        ({"log_id": "acme\n"}, "logs[0].log_id: 1 to 63 of"),
        ({"log_id": 12}, "logs[0].log_id: 1 to 63 of"),
        ({"log_id": "a" * 64}, "logs[0].log_id: 1 to 63 of"),
        ({"tenant": f"{SECRET} and\n more"}, "logs[0].tenant: "),
        ({"tenant": [SECRET]}, "logs[0].tenant: "),
        ({"origin": f"{SECRET}+x"}, "logs[0].origin: "),
        ({"anchor": SECRET}, "logs[0].anchor: "),
        ({"public_log": SECRET}, "logs[0].public_log: "),
        ({"max_waiting_records": 0}, "logs[0].max_waiting_records: "),
        ({"publik_log": True}, "logs[0].publik_log: no setting"),
        ({f"{SECRET} \n": True}, "logs[0]: no setting"),
        ({7: True}, "logs[0]: no setting"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place_and_not_quoted(machine, values, told):
    write(machine, {**ACME, **values}, GLOBEX)
    assert refusal().startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds one key, logs, and nothing else"),
        ("[]", "holds one key, logs, and nothing else"),
        ("logs: []\nmore: 1", "holds one key, logs, and nothing else"),
        ("logs: {}", "a list of 1 to 256 logs"),
        ("logs: []", "a list of 1 to 256 logs"),
        ("logs: [" + "1," * 257 + "]", "a list of 1 to 256 logs"),
        ("logs: [1]", "logs[0]: a mapping of settings"),
        ("logs: [{log_id: a, log_id: b}]", "is not sound YAML in line 1"),
        (f"logs:\n  - {SECRET}: [", "is not sound YAML in line"),
        (f"logs: !!python/object/apply:os.system [{SECRET}]", "is not sound YAML in line 1"),
        ("logs: &a [*a]", "logs[0]: a mapping of settings"),
        ("{[1]: 2}", "is not sound YAML"),
        ("logs: " + "[" * 5000, "is not sound YAML"),
        (b"logs: \xff", "is not sound YAML"),
        (b"logs: \x00", "is not sound YAML"),
        ("#" * ((1 << 20) + 1), "has more than 1048576 bytes"),
    ],
)
def test_what_is_no_such_file_is_refused(machine, text, told):
    write_text(machine, text)
    assert told in refusal()


def test_a_file_that_is_not_there_is_refused(machine):
    assert refusal() == "the file of TALLYSTICK_LOGS cannot be read: No such file or directory"
