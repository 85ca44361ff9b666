"""``tallystick approvals``: calls that wait for people, exactly what will run, and what somebody says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from service.cli.client import ServiceClient, service_options
from service.cli.options import APPROVAL_ID, utc
from service.cli.output import echo_json, json_option, say, table, with_exit_codes

__all__ = ["approvals"]


@click.group(short_help="See and decide held calls.")
def approvals() -> None:
    """See which calls are held until people have agreed, and say what becomes of them."""


@approvals.command("list", short_help="Show held calls.")
@click.option("--all", "everything", is_flag=True, help="Those that were decided, expired or withdrawn as well.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many, newest first.")
@service_options
@json_option
@with_exit_codes
def list_approvals(limit: int, url: str, token: str | None, *, everything: bool, as_json: bool) -> None:
    """Show the calls that wait for people; what is in them, only `show` shows."""
    state = "all" if everything else "waiting"
    found = ServiceClient(url, token).get("/v1/approvals", state=state, limit=limit)
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            item["approval_id"],
            item["state"],
            f"{item['server']}/{item['tool'] or item['method']}",
            item["agent"],
            utc(item["held_ms"]),
            utc(item["expires_ms"]),
            f"{len(item['granted_by'])} of {item['needed']}",
        )
        for item in found["items"]
    ]
    table(("id", "state", "tool", "agent", "held (UTC)", "until (UTC)", "agreed"), rows)
    if found["left_out"]:
        say(f"{found['left_out']} more are not shown")


def _tell(opened: Mapping[str, Any]) -> None:
    say(f"{opened['agent']} calls {opened['server']}/{opened['tool'] or opened['method']}: {opened['state']}")
    say(f"rules: {', '.join(opened['rules']) or 'none'}; bundle {opened['bundle']} {opened['bundle_revision']}")
    say(f"held at {opened['enforcer_id']} since {utc(opened['held_ms'])}, until {utc(opened['expires_ms'])} UTC")
    say(f"agreed: {len(opened['granted_by'])} of {opened['needed']}")
    if opened["shown"]["hidden"]:
        say(f"IT HOLDS WHAT CANNOT BE SEEN: {', '.join(opened['shown']['hidden'])}")
    say("exactly what will run:")
    # What is shown is legible already: `service.shown_call` lets nothing through that steers a terminal.
    click.echo(opened["shown"]["text"])
    if opened["said"] is not None:
        say("said with the request, by whoever requested it:")
        click.echo(opened["said"]["text"])
    say(f"binding: {opened['binding']}")


@approvals.command("show", short_help="Show exactly what will run.")
@click.argument("approval_id", type=APPROVAL_ID)
@service_options
@json_option
@with_exit_codes
def show_approval(approval_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Open what APPROVAL_ID will run if enough people agree; that you opened it is recorded."""
    opened = ServiceClient(url, token).post(f"/v1/approvals/{approval_id}/open", {})
    if as_json:
        echo_json(opened)
    else:
        _tell(opened)


def _decide(
    approval_id: str, verdict: str, binding: str, reason: str, url: str, token: str | None, *, as_json: bool
) -> None:
    body = {"verdict": verdict, "binding": binding, "reason": reason}
    done = ServiceClient(url, token).post(f"/v1/approvals/{approval_id}/verdict", body)
    if as_json:
        echo_json(done)
    else:
        say(f"{verdict}: {len(done['granted_by'])} of {done['needed']} have agreed; it is {done['state']}")


_BINDING = click.option("--binding", required=True, help="As `show` gave it: what you have looked at, and no other.")
_REASON = click.option("--reason", required=True, help="Why; recorded in the vault.")


@approvals.command("approve", short_help="Agree to a held call.")
@click.argument("approval_id", type=APPROVAL_ID)
@_BINDING
@_REASON
@service_options
@json_option
@with_exit_codes
def approve(approval_id: str, binding: str, reason: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Agree to exactly what `show` showed of APPROVAL_ID; it goes on once as many people have as it needs."""
    _decide(approval_id, "granted", binding, reason, url, token, as_json=as_json)


@approvals.command("deny", short_help="Deny a held call.")
@click.argument("approval_id", type=APPROVAL_ID)
@_BINDING
@_REASON
@service_options
@json_option
@with_exit_codes
def deny(approval_id: str, binding: str, reason: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Deny APPROVAL_ID: it does not go on, whoever has agreed."""
    _decide(approval_id, "denied", binding, reason, url, token, as_json=as_json)
