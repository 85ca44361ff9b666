"""From the service's settings to its TLS, and ``tallystick tls``: what is refused, and in which words."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enforcement.config_files import parse_config
from enforcement.tls_files import read_material
from ledger.clock import SystemClock
from ledger.errors import ConfigError
from service.cli.client import ServiceClient, service_section
from service.cli.joining import Wish, _configuration
from service.cli.main import cli
from service.settings import load_settings
from service.tls import certificate_checks, listener_settings

CERTIFICATE = {"tls_certificate": "service.crt", "tls_key": "file:service.key"}


def test_without_a_certificate_there_is_no_tls() -> None:
    assert listener_settings(load_settings()) is None
    assert certificate_checks(None) == ()


def test_client_certificates_are_demanded_where_somebody_is_named_who_issues_them() -> None:
    alone = listener_settings(load_settings(**CERTIFICATE))
    assert alone is not None
    assert (alone.client_certificates, alone.minimum, alone.groups) == ("none", "1.3", "permissive")
    mutual = listener_settings(load_settings(**CERTIFICATE, tls_client_ca="ca.crt", tls_client_names="DNS:a, URI:b:*"))
    assert mutual is not None
    assert mutual.client_certificates == "require"
    assert mutual.client_names == ("DNS:a", "URI:b:*")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tls_key": "file:service.key"}, "TALLYSTICK_TLS_CERTIFICATE"),
        ({"tls_client_ca": "ca.crt"}, "TALLYSTICK_TLS_CERTIFICATE"),
        ({"tls_client_certificates": "require"}, "TALLYSTICK_TLS_CERTIFICATE"),
        ({"tls_groups": "strict"}, "TALLYSTICK_TLS_CERTIFICATE"),
        ({"tls_minimum": "1.2"}, "TALLYSTICK_TLS_CERTIFICATE"),
        ({"tls_certificate": "service.crt"}, "TALLYSTICK_TLS_KEY"),
        ({**CERTIFICATE, "tls_client_certificates": "require"}, "client_ca"),
        ({**CERTIFICATE, "tls_client_certificates": "none", "tls_client_ca": "ca.crt"}, "TALLYSTICK_TLS_CLIENT"),
        ({**CERTIFICATE, "tls_client_names": "URI:spiffe://acme/a"}, "TALLYSTICK_TLS_CLIENT"),
        (
            {**CERTIFICATE, "tls_client_ca": "ca.crt", "tls_client_names": "spiffe://acme/a"},
            "TALLYSTICK_TLS_CLIENT_NAMES",
        ),
        ({**CERTIFICATE, "tls_minimum": "1.1"}, "TALLYSTICK_TLS_MINIMUM"),
        ({**CERTIFICATE, "tls_key": "service.key"}, "TALLYSTICK_TLS_KEY"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        listener_settings(load_settings(**settings))


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [("a.crt", "", "belong together"), ("", "file:a.key", "belong together"), ("a.crt", "a.key", "starts with file:")],
)
def test_half_a_client_certificate_is_no_certificate(
    monkeypatch: pytest.MonkeyPatch, certificate: str, key: str, told: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_CLIENT_CERTIFICATE", certificate)
    monkeypatch.setenv("TALLYSTICK_CLIENT_KEY", key)
    with pytest.raises(ConfigError, match=told):
        ServiceClient("https://localhost:1", "ts1.a.b")


def test_a_gateway_is_prepared_to_believe_whom_its_preparer_believes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.delenv("TALLYSTICK_CA", raising=False)
    assert service_section("https://ledger.test", "file:t") == {"url": "https://ledger.test", "token": "file:t"}
    monkeypatch.setenv("TALLYSTICK_CA", "ca.crt")
    assert service_section("https://ledger.test", "file:t")["tls"] == {"ca": "/ca.crt"}
    assert "tls" not in service_section("http://ledger.test", "file:t")


def test_a_gateway_that_enrols_itself_believes_whom_it_was_enrolled_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TALLYSTICK_CA", "/ca.crt")
    wish = Wish(enforcer_id="gateway-1", url="https://ledger.test", servers={}, agent=None, roles=(), zone="UTC")
    names = {"log_id": "acme", "tenant": "acme", "environment": "test"}
    config = parse_config(_configuration(wish, tmp_path, None, names, signed=False))
    assert config.service.tls is not None
    assert config.service.tls.ca == Path("/ca.crt")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["tls", *arguments])


def test_init_makes_certificates_that_say_development_with_keys_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    done = call(
        "init", str(folder), "--name", "acme", "--gateway", "gw-1", "--agent", "bot", "--host", "gw.test", "--json"
    )
    assert done.exit_code == 0, done.output
    made = {Path(one["file"]).stem: one for one in json.loads(done.output)["certificates"]}
    assert made.keys() == {"ca", "service", "server", "gw-1", "bot"}
    assert all("DEVELOPMENT" in one["subject"] for one in made.values())
    assert set(made["gw-1"]["names"]) >= {"DNS:gw.test", "IP:127.0.0.1", "URI:spiffe://acme/gateway/gw-1"}
    assert made["bot"]["names"] == ["URI:spiffe://acme/agent/bot"]
    for name in made:
        assert stat.S_IMODE((folder / f"{name}.key").stat().st_mode) == 0o600
        ca = folder / "ca.crt"
        read_material(folder / f"{name}.crt", f"file:{folder / f'{name}.key'}", ca, SystemClock())
    shown = json.loads(call("show", str(folder / "bot.crt"), "--json").output)
    assert shown["certificates"] == [{**made["bot"], "file": str(folder / "bot.crt")}]
    assert "spiffe://acme/agent/bot" in call("show", str(folder / "bot.crt")).output


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    done = call("init", str(tmp_path / "tls"))
    assert done.exit_code == 64
    assert list((tmp_path / "tls").iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--name", "Acme Inc"),
        ("--name", "acme/agent"),
        ("--gateway", "../gateway"),
        ("--agent", ".."),
        ("--agent", "ca"),
        ("--agent", "a", "--gateway", "a"),
        ("--days", "0"),
        ("--days", "400"),
        ("--algorithm", "rsa"),
    ],
)
def test_names_that_lead_elsewhere_and_long_lives_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = call("init", str(tmp_path / "tls"), *options)
    assert done.exit_code != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_show_says_what_is_no_certificate(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.crt").write_bytes(content)
    done = call("show", str(tmp_path / "x.crt"))
    assert done.exit_code == 64
    assert "no certificate" in done.output
