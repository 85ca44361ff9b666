"""``tallystick servers``: the list of servers of a gateway, checked, shown, and made from what clients have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import ConfigError
from service.cli.output import echo_json, json_option, say, shown_path, table, with_exit_codes

if TYPE_CHECKING:
    from enforcement.client_configs import ClientServer, ConfigFormat
    from enforcement.config import ServerSettings

__all__ = ["servers"]

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FORMATS: Final[dict[str, ConfigFormat]] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
_UNOWNED: Final = "unowned"


@click.group(short_help="A gateway's list of servers: check, show, import.")
def servers() -> None:
    """The servers that a gateway stands before, as its servers.yaml lists them."""


@servers.command(short_help="Say whether a list is sound.")
@click.argument("file", type=_FILE)
@json_option
@with_exit_codes
def check(file: Path, *, as_json: bool) -> None:
    """Read the list FILE as a gateway would. Each fault is a line that names its place."""
    listed = _read(file)
    unowned = [one.name for one in listed if one.owner is None]
    wrapped = [one.name for one in listed if one.url is None]
    if as_json:
        echo_json({"servers": len(listed), "unowned": unowned, "without_url": wrapped})
        return
    say(f"{len(listed)} servers; the list is sound.")
    if unowned:
        say(f"unowned: {', '.join(unowned)}")
    if wrapped:
        say(f"without a url, so that a gateway passes them over (tallystick wrap): {', '.join(wrapped)}")


@servers.command("list", short_help="Show a list.")
@click.argument("file", type=_FILE)
@json_option
@with_exit_codes
def list_servers(file: Path, *, as_json: bool) -> None:
    """Show the servers of FILE: who owns each, and what is enforced."""
    listed = _read(file)
    if as_json:
        echo_json([_plain(one) for one in listed])
        return
    rows = [
        (one.name, one.owner or _UNOWNED, one.mode, one.recording, _tools(one), ", ".join(one.tags), one.url or "")
        for one in listed
    ]
    table(("server", "owner", "mode", "recording", "tools apart", "tags", "url"), rows)


def _read(file: Path) -> tuple[ServerSettings, ...]:
    from enforcement.config_files import load_servers

    return load_servers(file)


def _tools(server: ServerSettings) -> str:
    return ", ".join(f"{tool.name} {tool.mode}" for tool in server.tools if tool.mode not in (None, server.mode))


def _plain(server: ServerSettings) -> dict[str, object]:
    return server.model_dump(mode="json", exclude_defaults=True)


@servers.command("import", short_help="Make a list from what MCP clients have.")
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it; it must not exist.")
@click.option("--owner", help="Who answers for them.")
@click.option("--enforce", is_flag=True, help="Enforce from the start; without it they are observed at first.")
@json_option
@with_exit_codes
def import_servers(
    files: tuple[Path, ...], output: Path | None, owner: str | None, *, enforce: bool, as_json: bool
) -> None:
    """Make a list of servers from the configuration FILES of MCP clients: desktop apps, editors, command lines.

    JSON (with comments), TOML and YAML are read. No header's value is copied. Servers that a client starts itself are
    not reached over HTTP: they are listed with the command that puts Tallystick before them.
    """
    found = [(file, one) for file in files for one in _servers_of(file)]
    entries, notes = _entries(found, owner=owner, enforce=enforce)
    if not entries:
        raise ConfigError("no server was found that could be listed")
    text = _yaml(entries)
    if output is not None:
        _write(output, text)
    if as_json:
        echo_json({"servers": entries, "notes": notes, "output": None if output is None else str(output)})
        return
    if output is None:
        click.echo(text, nl=False)
    else:
        say(f"{len(entries)} servers are in {shown_path(output)}")
    for note in notes:
        click.echo(note, err=True)


def _servers_of(file: Path) -> Sequence[ClientServer]:
    from enforcement.client_configs import read_client_config
    from enforcement.config_files import read_text

    try:
        return read_client_config(read_text(file), _FORMATS.get(file.suffix, "json"))
    except ConfigError as error:
        raise ConfigError(f"{file.name}: {error}") from error


def _entries(
    found: Iterable[tuple[Path, ClientServer]], *, owner: str | None, enforce: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    entries: list[dict[str, Any]] = []
    firsts, notes = _firsts(found)
    for name, one in firsts.items():
        entry: dict[str, Any] = {"name": name} if one.url is None else {"name": name, "url": one.url}
        if owner is not None:
            entry["owner"] = owner
        if not enforce:
            entry["mode"] = "observe"
        secret = re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_AUTHORIZATION"
        if any(header.lower() == "authorization" for header in one.headers):
            entry["authorization"] = f"env:{secret}"
            notes.append(f"{name}: put its Authorization value into the environment as {secret}")
        others = [header for header in one.headers if header.lower() != "authorization"]
        if others:
            notes.append(f"{name}: the client also sends {', '.join(others)}; the gateway does not")
        if one.disabled:
            notes.append(
                f"{name}: the client has it disabled; it is listed all the same, take it out if nobody needs it"
            )
        if one.stripped:
            notes.append(f"{name}: credentials or a query in its URL are left out")
        if one.command:
            notes.append(
                f"{name}: a client starts it: tallystick wrap --config gateway.yaml --server {name} -- COMMAND"
            )
        entries.append(entry)
    return entries, notes


def _firsts(found: Iterable[tuple[Path, ClientServer]]) -> tuple[dict[str, ClientServer], list[str]]:
    """Return the first server of each name, and what is to be said of those that are left out."""
    firsts: dict[str, ClientServer] = {}
    notes: list[str] = []
    for file, one in found:
        name = _name(one.name)
        if one.fault is not None:
            notes.append(f"{file.name}: {one.name}: {one.fault}; left out")
            continue
        first = firsts.setdefault(name, one)
        if replace(first, name=one.name, disabled=one.disabled) != one:
            notes.append(f"{file.name}: {name} stands elsewhere too, and differs; the first counts")
        elif first.disabled and not one.disabled:
            firsts[name] = replace(first, disabled=False)  # one client at least uses it
    return firsts, notes


def _name(name: str) -> str:
    """Return a name that a server may have, as near to the client's as can be."""
    made = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64]
    return made or "server"


def _yaml(entries: Sequence[dict[str, Any]]) -> str:
    import yaml

    from enforcement.config_files import parse_servers

    text = yaml.safe_dump({"servers": list(entries)}, sort_keys=False, allow_unicode=True)
    parse_servers(text)  # what is written is what a gateway takes
    return text


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{output.name} is there already") from error
    except OSError as error:
        raise ConfigError(f"{output.name} cannot be written: {error.strerror}") from error
