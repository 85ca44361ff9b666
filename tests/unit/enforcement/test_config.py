"""The configuration: production by default, refused as a whole, one clear line for each thing that is wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcement.config import GatewayConfig
from enforcement.config_files import load_config, parse_config, read_secret
from ledger.errors import ConfigError

DIGEST = "ab" * 32
GOOD: dict[str, Any] = {
    "enforcer_id": "gateway-1",
    "log_id": "acme",
    "tenant": "acme",
    "environment": "production",
    "zone": "Europe/Berlin",
    "state_directory": "state",
    "service": {"url": "https://ledger.example", "token": "env:TOKEN"},
    "keys": {"signing": "file:a", "pseudonym": "file:b", "spool": "file:c"},
    "networks": [{"label": "office", "cidrs": ["10.0.0.0/8", "fd00::/8"]}],
    "principals": [{"token_sha256": DIGEST, "agent": "Finance-Bot", "user": "alice", "roles": ["finance"]}],
    "servers": [
        {
            "name": "finance",
            "url": "http://127.0.0.1:9001/mcp",
            "tags": ["internal"],
            "tools": [{"name": "Payroll-DB", "recording": "available", "mode": "observe", "tags": ["pii"]}],
        }
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    settings = copy.deepcopy(GOOD)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = settings
    for parent in parents:
        place = place[parent]
    place[last] = value
    return settings


def refused(settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(yaml.safe_dump(settings))
    return str(caught.value).splitlines()


def test_a_good_configuration_is_read_with_the_defaults_of_production() -> None:
    config = parse_config(yaml.safe_dump(GOOD))
    (server,) = config.servers
    assert (server.mode, server.recording) == ("enforce", "by_kind")
    assert (config.allowed_origins, config.principals[0].mfa) == ((), False)
    assert server.tools[0].mode == "observe"
    assert config.limits.body_bytes == 1 << 20


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("enforcer_id", "gate way", "enforcer_id: is not a name"),
        ("log_id", "Acme", "log_id: is not a log id"),
        ("zone", "Mars/Olympus", "zone: is not a time zone"),
        ("zone", "../../etc/passwd", "zone: is not a time zone"),
        ("service.url", "ftp://ledger.example", "service.url: is not an http or https URL"),
        ("service.url", "https://user:secret@ledger.example", "service.url: must not carry credentials"),
        ("service.token", "hunter2", "service.token: starts with file: or env:"),
        ("keys.spool", "file:", "keys.spool: starts with file: or env:"),
        ("networks.0.cidrs.0", "10.0.0.1/8", "networks[0].cidrs[0]: is not a network"),
        ("networks.0.cidrs", [], "networks[0].cidrs: is empty"),
        ("principals.0.token_sha256", "secret-token", "principals[0].token_sha256: "),
        ("principals.0.agent", "", "principals[0].agent: is not a name"),
        ("principals.0.roles", ["a b"], "principals[0].roles[0]: is not a name"),
        ("principals.0.mfaa", True, "principals[0].mfaa: Extra inputs are not permitted"),
        ("servers", [], "the configuration: servers are listed either here, under servers, or in servers_file"),
        ("servers.0.name", "a/b", "servers[0].name: "),
        ("servers.0.mode", "enforced", "servers[0].mode: "),
        ("servers.0.recording", "none", "servers[0].recording: "),
        ("servers.0.tools.0.mode", "off", "servers[0].tools[0].mode: "),
        ("servers.0.tools", GOOD["servers"][0]["tools"] * 2, "servers[0]: a tool is listed twice"),
        ("servers", GOOD["servers"] * 2, "the configuration: a server is listed twice"),
        ("principals", GOOD["principals"] * 2, "the configuration: a token stands for two principals"),
        ("networks", GOOD["networks"] * 2, "the configuration: a network has two labels"),
        ("limits", {"body_bytes": 0}, "limits.body_bytes: "),
        ("recording", {"strict_seconds": 0}, "recording.strict_seconds: "),
    ],
)
def test_each_thing_that_is_wrong_is_one_line_that_names_its_place(path: str, value: Any, line: str) -> None:
    lines = refused(changed(path, value))
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_all_that_is_wrong_is_said_at_once() -> None:
    settings = changed("zone", "nowhere")
    settings["servers"][0]["mode"] = "off"
    assert [line.split(":")[0] for line in refused(settings)] == ["zone", "servers[0].mode"]


def test_no_error_shows_a_value() -> None:
    for path in ("service.token", "principals.0.token_sha256", "principals.0.agent", "enforcer_id"):
        assert "hunter 2" not in "\n".join(refused(changed(path, "hunter 2")))


@pytest.mark.parametrize(
    "text",
    ["", "7", "[", "a: b: c", "zone: A\nzone: B", "!!python/object/apply:os.system ['true']", "&a [*a]", "? [a]\n: b"],
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text)


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"line 2: the key 'mode' stands twice"):
        parse_config("servers:\n- {mode: enforce, mode: observe}\n")


def test_a_configuration_cannot_be_changed_after_reading() -> None:
    config = GatewayConfig.model_validate(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.zone = "UTC"  # type: ignore[misc]  # that is the point


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load_config(path).enforcer_id == "gateway-1"


@pytest.mark.parametrize("data", [None, b"\xff", b"#" * (1 << 20) + b"\n"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "gateway.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"gateway\.yaml"):
        load_config(path)


def test_a_secret_is_read_from_a_file_of_its_owner_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text(" hunter2\n")
    path.chmod(0o600)
    monkeypatch.setenv("A_TOKEN", "hunter3")
    assert read_secret(f"file:{path}") == "hunter2"
    assert read_secret("env:A_TOKEN") == "hunter3"


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hunter2")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(f"file:{path}")


@pytest.mark.parametrize("uri", ["file:/nowhere/token", "env:NOT_SET_ANYWHERE"])
def test_a_secret_that_is_not_there_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        read_secret(uri)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no secret"):
        read_secret(f"file:{path}")
