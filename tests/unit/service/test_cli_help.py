"""What the help says: each command in a whole line, each option in words, JSON for whoever is a program."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from service.cli.main import cli
from service.settings import Settings
from tests.support.repository import ROOT

NO_JSON = {("serve",), ("gateway",), ("wrap",), ("witness", "serve")}
"""They run until they are stopped, and log JSON."""

NO_SETTINGS = {
    "URL", "TOKEN", "CA", "CLIENT_CERTIFICATE", "CLIENT_KEY", "USE_PROXY", "GATEWAY_LISTEN", "BACKUP_PASSPHRASE",
    "PASSPHRASE", "PASSPHRASE_FILE",
}  # fmt: skip
"""Variables that are not settings of the service."""

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def walk(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += walk(command, (*path, name))
    return found


COMMANDS = walk(cli)
GROUPS = [(), *[path for path, command in COMMANDS if isinstance(command, click.Group)]]
RUNNABLE = [
    (path, command)
    for path, command in COMMANDS
    if not isinstance(command, click.Group) or command.invoke_without_command
]


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_the_list_of_commands_cuts_no_sentence_off_on_a_terminal_of_80_columns(path):
    shown = CliRunner().invoke(cli, [*path, "--help"], terminal_width=80).output
    listed = shown.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert listed
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_option_says_what_it_is_for(path, command):
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(("path", "command"), RUNNABLE, ids=[" ".join(path) for path, _ in RUNNABLE])
def test_every_command_that_ends_prints_json_for_programs(path, command):
    has_json = any("--json" in parameter.opts for parameter in command.params)
    assert has_json is (path not in NO_JSON)
    if not has_json:
        assert "JSON" in (command.help or "")


# --- the documented variables ----------------------------------------------------------------------------------------


def documented() -> set[str]:
    cells = re.findall(r"^\| (`[A-Z_`, ]+`) \|", OPERATIONS, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"[A-Z_]+", cell)}


def test_every_setting_of_the_service_is_documented_and_no_other():
    settings = {name.upper() for name in Settings.model_fields}
    assert documented() == settings | NO_SETTINGS


def test_every_variable_that_an_option_reads_is_documented():
    read = {
        parameter.envvar.removeprefix("TALLYSTICK_")
        for _, command in COMMANDS
        for parameter in command.params
        if isinstance(parameter.envvar, str)
    }
    assert read - documented() == set()
