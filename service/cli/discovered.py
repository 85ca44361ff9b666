"""``tallystick inventory unregistered`` and what people do about it: servers that scans found and nobody registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from service.cli.client import ServiceClient, service_options
from service.cli.options import Spelt, utc
from service.cli.output import ExitCode, counted, echo_json, json_option, say, table, with_exit_codes

__all__ = ["dismiss", "reopen", "unregistered", "where"]

_UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_DISCOVERY_ID: Final = Spelt("id", _UUID, "`inventory unregistered` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
_WHY: Final = click.option("--reason", required=True, help="Why; recorded, in the vault.")


@click.command(short_help="List servers that scans found and nobody registered.")
@click.option(
    "--state",
    type=click.Choice(["open", "dismissed", "settled", "all"]),
    default="open",
    show_default=True,
    help="Which.",
)
@service_options
@json_option
@with_exit_codes
def unregistered(state: str, url: str, token: str | None, *, as_json: bool) -> None:
    """List servers that scans found, by default those in no gateway's list that nobody dismissed.

    Ends with status 1 if there is an open one. Where one is stands in the vault: `inventory where ID`.
    """
    client = ServiceClient(url, token)
    found: dict[str, Any] = client.get("/v1/discoveries", state=state)
    offset = found["next_offset"]
    while offset is not None:
        page = client.get("/v1/discoveries", state=state, offset=offset)
        found["items"] += page["items"]
        offset = page["next_offset"]
    found["next_offset"] = None
    if as_json:
        echo_json(found)
    else:
        header = ("id", "state", "how", "transport", "client, or eras", "in the scanner's list", "seen", "last (UTC)")
        table(header, [_row(one) for one in found["items"]])
        say(f"{counted(found['open'], 'servers')} open.")
        say(_scanned(found["scans"]))
    if found["open"]:
        click.get_current_context().exit(ExitCode.FAILED)


def _row(one: Mapping[str, Any]) -> tuple[object, ...]:
    listed = "" if one["server"] is None else one["server"] if one["listed"] else f"{one['server']} (in no gateway's)"
    return (
        one["id"],
        one["state"].upper() if one["state"] == "open" else one["state"],
        one["standing"],
        one["transport"].replace("_", " "),
        one["client"] or ", ".join(one["eras"]),
        listed,
        one["sightings"],
        utc(one["last_ms"]),
    )


def _scanned(scans: list[Mapping[str, Any]]) -> str:
    if not scans:
        return "No scan was handed in: `tallystick discover --post URL` does that."
    last = scans[0]
    ports = f"{counted(last['ports'], 'ports')} of {counted(last['hosts'], 'hosts')}"
    return (
        f"The last scan was handed in {utc(last['time_ms'])} UTC: {ports}, {counted(last['files'], 'files')}, "
        f"{counted(last['sightings'], 'servers')}; nothing is known of what it was not given."
    )


@click.command(short_help="Show where one of these is; recorded.")
@click.argument("discovery_id", type=_DISCOVERY_ID)
@click.option("--purpose", required=True, help="Why; recorded, in the vault.")
@service_options
@json_option
@with_exit_codes
def where(discovery_id: str, purpose: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Show where the server DISCOVERY_ID is and what it calls itself. It takes a person, and is recorded."""
    done = ServiceClient(url, token).post(f"/v1/discoveries/{discovery_id}/open", {"purpose": purpose})
    details = done["details"]
    if as_json:
        echo_json(done)
    elif details is None:
        say("nobody can say any more: its payload was erased, or has expired")
    else:
        table(("", "what the scan said"), [(name, _text(value)) for name, value in sorted(details.items())])
    if details is None:
        click.get_current_context().exit(ExitCode.UNCHECKED)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _said(discovery_id: str, action: str, reason: str, url: str, token: str | None, *, as_json: bool) -> None:
    done = ServiceClient(url, token).post(f"/v1/discoveries/{discovery_id}/{action}", {"comment": reason})
    if as_json:
        echo_json(done)
        return
    say(f"{discovery_id} is {done['state']}, leaf {done['leaf_index']}")


@click.command(short_help="Say that one of these is in order.")
@click.argument("discovery_id", type=_DISCOVERY_ID)
@_WHY
@service_options
@json_option
@with_exit_codes
def dismiss(discovery_id: str, reason: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Say that the server DISCOVERY_ID need not be registered. It takes a person.

    It stands open again by itself once a scan finds it otherwise than it was seen by now.
    """
    _said(discovery_id, "dismiss", reason, url, token, as_json=as_json)


@click.command(short_help="Take that back.")
@click.argument("discovery_id", type=_DISCOVERY_ID)
@_WHY
@service_options
@json_option
@with_exit_codes
def reopen(discovery_id: str, reason: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Say that the dismissed server DISCOVERY_ID is not in order after all. It takes a person."""
    _said(discovery_id, "reopen", reason, url, token, as_json=as_json)
