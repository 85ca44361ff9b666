"""``tallystick fleet``: the gateways, and how they stand."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from service.cli.client import ServiceClient, service_options
from service.cli.output import ExitCode, counted, echo_json, json_option, say, table, with_exit_codes

__all__ = ["fleet"]

_DIGITS: Final = 12
_MS: Final = 1000
_HEADER: Final = ("gateway", "state", "bundle", "version", "observed", "waiting", "clock", "heard", "to look at")
_WORDS: Final = {
    "bundle": "another bundle is active",
    "version": "a version that this service does not work with",
    "restrictions": "what is contained is not in force there",
    "clock": "its clock is wrong",
    "spool": "records wait long for the ledger",
    "set_aside": "the ledger refused records",
    "unconfirmed": "its bundle was long not confirmed",
}


@click.command(short_help="Show the gateways, and what is wrong with any.")
@service_options
@json_option
@with_exit_codes
def fleet(url: str, token: str | None, *, as_json: bool) -> None:
    """Show each gateway: its bundle, version and modes, what waits in its spool, its clock, when it was last heard of.

    The worst stand first. Ends with status 1 if a gateway is silent, skewed, stopped, was never heard of, or needs a
    look for another reason. A gateway that is gone for good is retired: `tallystick gateway retire`.
    """
    found = ServiceClient(url, token).get("/v1/fleet")
    if as_json:
        echo_json(found)
    else:
        _show(found)
    sys.exit(ExitCode.OK if found["well"] else ExitCode.FAILED)


def _show(found: dict[str, Any]) -> None:
    gateways = found["gateways"]
    if not gateways:
        say("No gateway is enrolled. See tallystick enroll.")
        return
    table(_HEADER, [_row(one, found) for one in gateways])
    active = found["active"]["revision"]
    troubled = sum(one["state"] != "ok" or bool(one["warnings"]) for one in gateways)
    say(f"{counted(len(gateways), 'gateways')}; active bundle {active[:_DIGITS] if active else 'none'}.")
    if found["restrictions"]["count"]:
        say(f"Stopped everywhere: {found['restrictions']['count']}; see tallystick contain list.")
    say("All are well." if not troubled else f"{troubled} to look at.")


def _row(one: dict[str, Any], found: dict[str, Any]) -> tuple[object, ...]:
    beat = one["heartbeat"]
    heard = "" if one["heard_ms"] is None else f"{_span(found['now_ms'] - one['heard_ms'])} ago"
    if beat is None:
        return (one["enforcer_id"], one["state"], "", "", "", "", "", heard, "no heartbeat yet")
    return (
        one["enforcer_id"],
        one["state"],
        (beat["bundle_revision"] or "none")[:_DIGITS],
        beat["version"],
        f"{beat['observed']} of {beat['observed'] + beat['enforced']}",
        beat["spool_depth"],
        _clock(beat),
        heard,
        "; ".join(_told(one, warning, found["now_ms"]) for warning in one["warnings"]),
    )


def _told(one: dict[str, Any], warning: str, now_ms: int) -> str:
    since_ms = one["skewed_since_ms"]
    since = f" since {_span(now_ms - since_ms)}" if warning == "bundle" and since_ms is not None else ""
    return _WORDS.get(warning, warning) + since


def _clock(beat: dict[str, Any]) -> str:
    offset, bound = beat["clock_offset_ms"], beat["clock_bound_ms"]
    if offset is None:
        return ""
    return f"{offset:+d} ms" if bound is None else f"{offset:+d} ±{bound} ms"


def _span(milliseconds: int) -> str:
    seconds = max(0, milliseconds) // _MS
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
