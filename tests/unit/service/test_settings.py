"""Settings: production's defaults, refusals that name the setting and not its value, loud warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import ConfigError
from service.settings import Settings, load_settings, passphrase

SECRET = "swordfish-4711"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TALLYSTICK_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_those_of_production():
    settings = load_settings()
    assert not settings.insecure_cookies
    assert not settings.public_log
    assert settings.host == "127.0.0.1"
    assert settings.environment == "production"
    assert settings.effective_database_url == "sqlite:////var/lib/tallystick/ledger.db"
    assert settings.effective_anchor == "directory:/var/lib/tallystick/anchor"
    assert settings.anchor_retention_days is None


def test_the_environment_is_read_and_the_command_line_goes_before_it(monkeypatch):
    monkeypatch.setenv("TALLYSTICK_LOG_ID", "acme")
    monkeypatch.setenv("TALLYSTICK_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("TALLYSTICK_PUBLIC_LOG", "true")
    settings = load_settings(listen="127.0.0.1:2", tenant=None)
    assert (settings.log_id, settings.port, settings.public_log, settings.tenant) == ("acme", 2, True, "main")


def test_an_anchors_endpoint_that_is_set_to_nothing_is_none(monkeypatch):
    """A compose file sets the variable always; boto3 would refuse an empty address."""
    monkeypatch.setenv("TALLYSTICK_ANCHOR_ENDPOINT", "")
    assert load_settings().anchor_endpoint is None


@pytest.mark.parametrize("name", ["anchor_retention_days", "tiles_retention_days"])
def test_a_retention_that_is_set_to_nothing_is_no_decision(monkeypatch, name):
    monkeypatch.setenv(f"TALLYSTICK_{name.upper()}", "")
    assert getattr(load_settings(), name) is None


S3 = {"anchor": "s3://a/p", "tiles": "s3://b/p", "tiles_retention_days": 1, "anchor_credentials": "profile:anchor"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"anchor_credentials": ""}, "the same S3 credentials"),
        ({"tiles_credentials": "profile:anchor"}, "the same S3 credentials"),
        ({"anchor_credentials": "", "tiles": ""}, None),
        ({"tiles_retention_days": 0}, "not locked"),
        ({"anchor_accept": "shorten, downgrade"}, "may not refuse: shorten, downgrade."),
    ],
)
def test_weak_storage_is_told_loudly(changes, told):
    found = load_settings(**{**S3, "origin": "log.example/acme", **changes}).warnings()
    assert len(found) == (0 if told is None else 1)
    assert told is None or told in found[0]


def test_settings_do_not_change_once_they_are_read():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().tenant = "globex"


def test_what_is_not_ours_in_the_environment_does_not_matter(monkeypatch):
    monkeypatch.setenv("TALLYSTICK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LOG_ID", "other")
    assert load_settings().log_id == "main"


BAD = [
    ("tiles", f"ftp://{SECRET}"),
    ("tiles_credentials", SECRET),
    ("anchor_credentials", f"vault:{SECRET}"),
    ("log_id", SECRET.upper()),
    ("log_id", ""),
    ("log_id", "a" * 64),
    ("log_id", "../etc"),
    ("log_id", "main\n"),
    ("tenant", f"{SECRET} with blanks"),
    ("tenant", ""),
    ("origin", f"{SECRET}+x"),
    ("origin", "a" * 123),
    ("environment", f"{SECRET} "),
    ("service_id", f"-{SECRET}"),
    ("listen", SECRET),
    ("listen", "127.0.0.1:65536"),
    ("listen", "127.0.0.1:"),
    ("listen", "127.0.0.1:-1"),
    ("listen", f"{SECRET}/x:80"),
    ("anchor", SECRET),
    ("anchor", f"/{SECRET}"),
    ("anchor", f"s3:{SECRET}"),
    ("anchor_retention_days", "0"),
    ("anchor_retention_days", "36501"),
    ("anchor_retention_days", SECRET),
    ("public_log", SECRET),
    ("checkpoint_interval_seconds", "0"),
    ("checkpoint_interval_seconds", "nan"),
    ("checkpoint_interval_seconds", "inf"),
    ("heartbeat_interval_seconds", "0.5"),
    ("max_request_bytes", "1023"),
    ("max_request_bytes", str((1 << 30) + 1)),
    ("max_body_seconds", "0"),
    ("max_batch_records", "0"),
    ("max_waiting_records", "1e99"),
    ("proof_timeout_seconds", "301"),
    ("session_seconds", "59"),
    ("insecure_cookies", SECRET),
    ("engine_workers", "0"),
    ("engine_batch_workers", "65"),
    ("engine_seconds", "0"),
    ("engine_seconds", "nan"),
    ("engine_memory_bytes", str(1 << 30)),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_variable_and_not_quoted(monkeypatch, name, value):
    monkeypatch.setenv(f"TALLYSTICK_{name.upper()}", value)
    with pytest.raises(ConfigError, match=rf"^TALLYSTICK_{name.upper()}: ") as caught:
        load_settings()
    assert SECRET not in str(caught.value)
    assert SECRET.upper() not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_bound_on_outside_input_is_a_setting_with_bounds_of_its_own():
    for name in ("max_request_bytes", "max_body_seconds", "max_batch_records", "max_waiting_records"):
        kinds = {type(item).__name__ for item in Settings.model_fields[name].metadata}
        assert {"Ge", "Le"} <= kinds, name


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:8787", "127.0.0.1", 8787),
        ("[::1]:80", "::1", 80),
        ("localhost:0", "localhost", 0),
        ("a.b:1", "a.b", 1),
    ],
)
def test_a_place_to_listen_is_taken_apart(listen, host, port):
    settings = load_settings(listen=listen)
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1"])
def test_insecure_cookies_are_taken_on_a_loopback_address(listen):
    assert load_settings(listen=listen, insecure_cookies=True).insecure_cookies


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "ledger.example:1", "localhost.example:1"])
def test_insecure_cookies_are_refused_anywhere_else(listen):
    with pytest.raises(ConfigError, match="TALLYSTICK_INSECURE_COOKIES is for a loopback address only"):
        load_settings(listen=listen, insecure_cookies=True)


# --- warnings --------------------------------------------------------------------------------------------------------

SOUND = {"origin": "ledger.example/acme", "anchor": "s3://bucket/acme", "anchor_retention_days": 365}


def test_sound_settings_warn_of_nothing():
    assert load_settings(**SOUND).warnings() == []
    beyond = {"listen": "0.0.0.0:8787", "external_url": "https://ledger.example"}
    assert load_settings(**SOUND, **beyond).warnings() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"origin": "tallystick.invalid/main"}, "TALLYSTICK_ORIGIN is the placeholder"),
        ({"anchor": ""}, "The anchor is a directory"),
        ({"anchor": "directory:/mnt/worm"}, "The anchor is a directory"),
        ({"listen": "0.0.0.0:8787"}, "tokens can be overheard"),
        ({"listen": "[::]:8787", "external_url": "http://ledger.example"}, "tokens can be overheard"),
        ({"listen": "0.0.0.0:8787", "external_url": "HTTP://ledger.example"}, "tokens can be overheard"),
        ({"insecure_cookies": True}, "Login cookies are sent over plain HTTP"),
    ],
)
def test_what_is_weaker_than_production_is_said_in_one_sentence(changes, told):
    (warning,) = load_settings(**{**SOUND, **changes}).warnings()
    assert told in warning


def test_a_fresh_installation_is_warned_of_all_that_it_has_not_set():
    assert len(load_settings().warnings()) == 2


# --- passphrase ------------------------------------------------------------------------------------------------------


def test_there_is_no_passphrase_unless_somebody_gave_one():
    assert passphrase() is None


def test_a_passphrase_is_taken_from_the_environment_even_if_it_is_empty(monkeypatch, tmp_path):
    monkeypatch.setenv("TALLYSTICK_PASSPHRASE_FILE", str(tmp_path / "absent"))
    for text in (SECRET, ""):
        monkeypatch.setenv("TALLYSTICK_PASSPHRASE", text)
        assert passphrase() == text


@pytest.mark.parametrize("written", [SECRET, f"{SECRET}\n", f"{SECRET}\n\n"])
def test_a_passphrase_is_read_from_a_file_without_its_line_end(monkeypatch, tmp_path: Path, written):
    (tmp_path / "phrase").write_text(written)
    monkeypatch.setenv("TALLYSTICK_PASSPHRASE_FILE", str(tmp_path / "phrase"))
    assert passphrase() == SECRET


def test_a_passphrase_file_that_cannot_be_read_is_an_error_and_never_no_passphrase(monkeypatch, tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("absent", "binary", "."):
        monkeypatch.setenv("TALLYSTICK_PASSPHRASE_FILE", str(tmp_path / name))
        with pytest.raises(ConfigError, match="passphrase file cannot be read"):
            passphrase()


# --- several workers -------------------------------------------------------------------------------------------------


def test_several_workers_need_a_database_that_they_can_share():
    with pytest.raises(ConfigError, match="TALLYSTICK_WORKERS: SQLite is for one process"):
        load_settings(workers=2)
    assert load_settings(workers=2, database_url="postgresql+psycopg://db/x").workers == 2


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_there_are_one_to_64_workers(workers):
    with pytest.raises(ConfigError, match="TALLYSTICK_WORKERS"):
        load_settings(workers=workers, database_url="postgresql+psycopg://db/x")


@pytest.mark.parametrize("place", ["127.0.0.1", "127.0.0.1:65536", "here and there:1", "127.0.0.1:65534"])
def test_each_worker_has_a_port_of_its_own(place):
    with pytest.raises(ConfigError, match="TALLYSTICK_WORKER_LISTEN"):
        load_settings(workers=3, worker_listen=place, database_url="postgresql+psycopg://db/x")


@pytest.mark.parametrize(
    ("listen", "places"),
    [("127.0.0.1:9000", [("127.0.0.1", 9000), ("127.0.0.1", 9001)]), ("[::1]:1", [("::1", 1), ("::1", 2)])],
)
def test_workers_answer_at_ports_in_a_row(listen, places):
    settings = load_settings(workers=2, worker_listen=listen, database_url="postgresql+psycopg://db/x")
    assert [settings.worker_place(number) for number in (0, 1)] == places
    assert not any("worker" in warning for warning in settings.warnings())


def test_workers_without_a_place_of_their_own_are_warned_of():
    settings = load_settings(workers=2, database_url="postgresql+psycopg://db/x")
    assert any("/metrics tells of whichever worker answers" in warning for warning in settings.warnings())
