"""``tallystick discover``: MCP servers that nobody registered, on given hosts and in the configurations of clients."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enforcement.discovery.scope import DEFAULT_PATHS, DEFAULT_PORTS, Scope, parse_scope
from ledger.clock import SystemClock
from ledger.errors import ConfigError, TallystickError
from service.cli.client import ServiceClient
from service.cli.output import ExitCode, counted, echo_json, json_option, say, shown_path, table, with_exit_codes

if TYPE_CHECKING:
    from enforcement.discovery.comparison import Known, Sighting
    from enforcement.discovery.places import Unread
    from enforcement.discovery.scan import Scan

__all__ = ["discover"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(short_help="Find MCP servers that nobody registered.")
@click.argument("targets", nargs=-1, metavar="[HOST|HOST:PORT|NETWORK]...")
@click.option("--ports", default=DEFAULT_PORTS, show_default=True, help="Ports and ranges, for hosts without one.")
@click.option("--path", "paths", multiple=True, help=f"A path to ask; instead of {', '.join(DEFAULT_PATHS)}.")
@click.option("--also-path", "more_paths", multiple=True, help="A path to ask as well.")
@click.option("--configs", "folders", multiple=True, type=_FOLDER, help="A home or project folder of clients.")
@click.option("--servers", "lists", multiple=True, type=_FILE, help="A gateway's servers.yaml: what is registered.")
@click.option(
    "--gateway", "gateways", multiple=True, metavar="URL", help="A gateway: what is under it is in its hands."
)
@click.option(
    "--rate", type=click.FloatRange(0, 1000, min_open=True), default=50.0, show_default=True, help="A second."
)
@click.option("--dry-run", is_flag=True, help="Say what would be asked and read, and do neither.")
@click.option("--post", metavar="URL", help="Hand it in at the service there, which records it.")
@click.option("--token", envvar="TALLYSTICK_TOKEN", default=None, help="For --post; better: TALLYSTICK_TOKEN.")
@json_option
@with_exit_codes
def discover(
    targets: tuple[str, ...],
    ports: str,
    paths: tuple[str, ...],
    more_paths: tuple[str, ...],
    folders: tuple[Path, ...],
    lists: tuple[Path, ...],
    gateways: tuple[str, ...],
    rate: float,
    post: str | None,
    token: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask the hosts and networks that are given, and read clients' configurations, for MCP servers.

    Nothing else is asked: no host, port or folder that was not given. Only handshakes are made, and no tool is called.
    Ends with status 1 if there is a server that no list has, or a client that passes the gateways by; with 4 if not
    everything could be looked at. With --post the scan and all that it found is recorded; what was found is shown in
    any case.
    """
    if not targets and not folders:
        raise ConfigError("say where to look: hosts or networks, or --configs and a folder")
    scope = parse_scope(targets, ports=ports, paths=(*(paths or DEFAULT_PATHS), *more_paths))
    known = _known(lists, gateways)
    if dry_run:
        _foresee(scope, folders, rate, as_json=as_json)
        return
    # Before anybody is asked anything: nobody should scan for an hour to be told that there is no token.
    client = None if post is None else ServiceClient(post, token)
    from enforcement.discovery.places import present
    from service.cli.discovery_posting import Given, scan_report

    clock = SystemClock()
    started_ms = clock.now_ms()
    found, sightings, unread = _look(scope, folders, known, rate)
    ended_ms = clock.now_ms()
    recorded: Any = None
    refusal: TallystickError | None = None
    if client is not None:
        files = sum(1 for folder in folders for _ in present(folder))
        given = Given(targets=targets, ports=ports, folders=folders, files=files, scope=scope, known=known)
        try:
            report = scan_report(given, found, sightings, unread, started_ms=started_ms, ended_ms=ended_ms)
            recorded = client.post("/v1/discoveries", report)
        except TallystickError as error:
            refusal = error
    if as_json:
        echo_json({**_plain(scope, found, sightings, unread), **({"recorded": recorded} if post else {})})
    else:
        _tell(found, sightings, unread)
        if recorded is not None:
            say(f"recorded as scan {recorded['scan_id']}, leaf {recorded['leaf_index']}: {recorded['new']} new")
    if refusal is not None:
        raise refusal
    context = click.get_current_context()
    if any(one.standing in ("shadow", "bypass") for one in sightings):
        context.exit(ExitCode.FAILED)
    if unread or found.count("unfinished"):
        context.exit(ExitCode.UNCHECKED)


def _known(lists: Sequence[Path], gateways: tuple[str, ...]) -> Known:
    from enforcement.config_files import load_servers
    from enforcement.discovery.comparison import Known

    return Known(servers=[(one.name, one.url) for file in lists for one in load_servers(file)], gateways=gateways)


def _look(
    scope: Scope, folders: Sequence[Path], known: Known, rate: float
) -> tuple[Scan, list[Sighting], list[Unread]]:
    from enforcement.discovery.comparison import compare_configured, compare_found
    from enforcement.discovery.places import Unread, configured_servers
    from enforcement.discovery.scan import scan

    configured, unread = configured_servers(folders)
    found = asyncio.run(scan(scope, rate=rate))
    told = [(one.client, str(one.file), one.server) for one in configured]
    faults = [one for one in configured if one.server.fault is not None]
    unread += [Unread(file=one.file, reason=f"{one.server.name}: {one.server.fault}") for one in faults]
    return found, [*compare_found(found.servers, known), *compare_configured(told, known)], unread


def _foresee(scope: Scope, folders: Sequence[Path], rate: float, *, as_json: bool) -> None:
    from enforcement.discovery.places import present

    files = [path for folder in folders for _, path in present(folder)]
    if as_json:
        asked = [{"host": one.host, "port": one.port} for one in scope.endpoints]
        echo_json({"dry_run": True, "endpoints": asked, "paths": scope.paths, "files": [str(file) for file in files]})
        return
    hosts = len({one.host for one in scope.endpoints})
    say(f"would ask {counted(hosts, 'hosts')} on {counted(len(scope.endpoints), 'ports')} in all, {rate:g} a second")
    say(f"under {', '.join(scope.paths)}")
    for endpoint in scope.endpoints:
        say(f"  {endpoint.authority}")
    say(f"would read {counted(len(files), 'files')}")
    for file in files:
        say(f"  {shown_path(file)}")


def _plain(scope: Scope, found: Scan, sightings: Sequence[Sighting], unread: Sequence[Unread]) -> dict[str, Any]:
    return {
        "scope": {
            "hosts": sorted({one.host for one in scope.endpoints}),
            "endpoints": len(scope.endpoints),
            "paths": scope.paths,
        },
        "ports": {state: found.count(state) for state in ("closed", "asked", "unfinished")},
        "requests": found.requests,
        "shadow": sum(one.standing == "shadow" for one in sightings),
        "bypass": sum(one.standing == "bypass" for one in sightings),
        "servers": [
            {
                "standing": one.standing,
                "source": one.source,
                "place": one.place,
                "transport": one.transport,
                "name": one.name,
                "version": one.version,
                "registered": one.registered,
                "certainty": one.certainty,
                "needs_token": one.needs_token,
                "eras": one.eras,
                "revisions": one.revisions,
                "client": one.client,
                "file": one.file,
                "disabled": one.disabled,
            }
            for one in sightings
        ],
        "unread": [{"file": str(one.file), "reason": one.reason} for one in unread],
    }


def _tell(found: Scan, sightings: Sequence[Sighting], unread: Sequence[Unread]) -> None:
    rows = [
        (
            one.standing.upper() if one.standing in ("shadow", "bypass") else one.standing,
            one.registered or one.name,
            one.transport.replace("_", " "),
            one.place,
            one.client or ("needs a token; likely MCP" if one.needs_token else ", ".join(one.revisions)),
        )
        for one in sightings
    ]
    if rows:
        table(("", "server", "transport", "place", "client, or revisions"), rows)
    asked, unfinished = found.count("asked"), found.count("unfinished")
    say(f"{counted(len(sightings), 'servers')}; {asked} open ports asked, {found.count('closed')} closed")
    if unfinished:
        say(f"{counted(unfinished, 'ports')} took too long and were not asked to the end")
    for one in unread:
        say(f"not understood: {shown_path(one.file)}: {one.reason}")
