"""``tallystick servers``: a list is checked, shown, and made from what clients have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enforcement.config_files import load_servers
from service.cli.main import cli
from service.cli.output import ExitCode

CLIENT = {
    "mcpServers": {
        "Finance Tools": {
            "url": "https://u:p@finance.example/mcp",
            "headers": {"authorization": "Bearer s3cret", "X-Team": "7"},
        },
        "files": {"command": "npx", "args": ["server"], "env": {"KEY": "s3cret"}},
        "broken": {"url": "ftp://x"},
    }
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["servers", *map(str, arguments)])


def client_file(tmp_path: Path, value: object = CLIENT) -> Path:
    path = tmp_path / "client.json"
    path.write_text(json.dumps(value))
    return path


def test_a_list_is_made_from_a_client_and_a_gateway_takes_it(tmp_path: Path) -> None:
    output = tmp_path / "servers.yaml"
    done = run("import", client_file(tmp_path), "--output", output, "--owner", "payments")
    assert done.exit_code == 0, done.output
    finance, files = load_servers(output)
    assert (finance.name, finance.url, finance.mode, finance.owner) == (
        "Finance-Tools",
        "https://finance.example/mcp",
        "observe",
        "payments",
    )
    assert finance.authorization == "env:FINANCE_TOOLS_AUTHORIZATION"
    assert (files.name, files.url) == ("files", None)
    assert "s3cret" not in done.output + output.read_text()
    for said in ("broken: has no http or https URL", "FINANCE_TOOLS_AUTHORIZATION", "X-Team", "tallystick wrap"):
        assert said in done.output


def test_of_servers_that_would_have_one_name_each_that_is_left_out_is_said(tmp_path: Path) -> None:
    started = {
        name: {"command": command} for name, command in (("my files", "a"), ("my/files", "b"), ("my-files", "a"))
    }
    done = json.loads(run("import", client_file(tmp_path, {"mcpServers": started}), "--json").stdout)
    assert [one["name"] for one in done["servers"]] == ["my-files"]
    assert sum("differs; the first counts" in note for note in done["notes"]) == 1
    assert sum("tallystick wrap" in note for note in done["notes"]) == 1


def test_a_server_that_no_client_uses_is_said_to_be_disabled_and_one_that_another_client_uses_is_not(
    tmp_path: Path,
) -> None:
    entry = {"url": "https://mail.example/mcp"}
    clients = {"/a": {"off": {**entry, "disabled": True}, "both": {**entry, "enabled": False}}, "/b": {"both": entry}}
    value = {"projects": {path: {"mcpServers": servers} for path, servers in clients.items()}}
    done = json.loads(run("import", client_file(tmp_path, value), "--json").stdout)
    assert [one["name"] for one in done["servers"]] == ["off", "both"]
    (note,) = done["notes"]
    assert note.startswith("off: the client has it disabled")


def test_what_a_gateway_would_pass_over_is_said_before(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text("servers: [{name: a, url: http://x/mcp}, {name: files}]")
    assert json.loads(run("check", path, "--json").stdout)["without_url"] == ["files"]
    assert "tallystick wrap): files" in run("check", path).stdout


def test_enforcing_from_the_start_is_asked_for(tmp_path: Path) -> None:
    done = run("import", client_file(tmp_path), "--enforce", "--json")
    assert all("mode" not in one for one in json.loads(done.stdout)["servers"])


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    output = tmp_path / "servers.yaml"
    output.write_text("mine")
    done = run("import", client_file(tmp_path), "--output", output)
    assert done.exit_code == ExitCode.USAGE
    assert output.read_text() == "mine"


@pytest.mark.parametrize("value", [{}, {"mcpServers": {}}, {"mcpServers": {"a": {}}}])
def test_a_client_without_a_server_that_could_be_listed_makes_no_list(tmp_path: Path, value: object) -> None:
    done = run("import", client_file(tmp_path, value), "--output", tmp_path / "servers.yaml")
    assert done.exit_code != 0
    assert not (tmp_path / "servers.yaml").exists()


def test_a_sound_list_is_said_to_be_one_and_the_unowned_are_named(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text("servers: [{name: a, url: http://x/mcp}, {name: b, url: http://x/mcp, owner: team}]")
    assert json.loads(run("check", path, "--json").stdout) == {
        "servers": 2,
        "unowned": ["a"],
        "without_url": [],
    }
    shown = run("list", path).stdout
    assert "unowned" in shown
    assert "team" in shown


@pytest.mark.parametrize(
    "text",
    ["", "servers: []", "servers: [{name: a b}]", "servers: [{name: a}, {name: a}]", "servers: [{name: a, mode: x}]"],
)
def test_each_fault_of_a_list_is_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(text)
    done = run("check", path)
    assert done.exit_code != 0
    assert "Traceback" not in done.output
    assert done.output.startswith("tallystick: ") or "servers" in done.output
