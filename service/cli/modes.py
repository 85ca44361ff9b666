"""``tallystick modes``: what is only observed, and who agreed to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import click

from ledger.errors import ConfigError
from service.cli.client import ServiceClient, service_options
from service.cli.options import utc
from service.cli.output import echo_json, json_option, say, table, with_exit_codes

__all__ = ["modes"]

_DURATION: Final = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_A_PAGE: Final = 500
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group(short_help="What is only observed: propose, approve, list.")
def modes() -> None:
    """What gateways only observe: what was enforced is, once somebody else than its proposer has approved it."""


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise click.BadParameter("takes a number and s, m, h or d, such as 24h")
    return int(match["number"]) * _SECONDS[match["unit"]]


@modes.command(short_help="Propose that something be only observed.")
@click.option("--server", required=True, help="The server, as the gateway's list has it.")
@click.option("--tool", help="One of its tools; without it, the server itself.")
@click.option("--gateway", "enforcer_id", help="The only gateway that may take it up; without it, each may once.")
@click.option("--for", "valid_seconds", default="24h", show_default=True, callback=_seconds, help="Until it lapses.")
@click.option("--reason", required=True, help="Why; recorded, in the vault.")
@service_options
@json_option
@with_exit_codes
def propose(
    server: str,
    tool: str | None,
    enforcer_id: str | None,
    valid_seconds: int,
    reason: str,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Propose that a server or tool that is enforced be only observed.

    Once somebody else has approved it, a gateway takes it up as soon as its list of servers says so too.
    """
    wanted = {"server": server, "tool": tool, "enforcer_id": enforcer_id, "valid_seconds": valid_seconds}
    given = {name: value for name, value in wanted.items() if value is not None}
    done = ServiceClient(url, token).post("/v1/modes", {**given, "reason": reason})
    if as_json:
        echo_json(done)
        return
    say(f"change {done['change_id']} is proposed, leaf {done['leaf_index']}; somebody else approves it")


@modes.command(short_help="Approve, reject or review a change.")
@click.argument("change_id")
@click.option("--approve", "verdict", flag_value="approved", help="It may be observed, or was rightly.")
@click.option("--reject", "verdict", flag_value="rejected", help="It may not.")
@click.option("--reason", help="Why; recorded, in the vault.")
@service_options
@json_option
@with_exit_codes
def review(
    change_id: str, verdict: str | None, reason: str | None, url: str, token: str | None, *, as_json: bool
) -> None:
    """Say what you think of the change CHANGE_ID: somebody else's proposal, or what a gateway took up by itself."""
    if verdict is None:
        raise ConfigError("say --approve or --reject")
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", change_id) is None:
        raise ConfigError("CHANGE_ID is no id of a change; `tallystick modes list` shows them")
    said = {"verdict": verdict} | ({} if reason is None else {"reason": reason})
    done = ServiceClient(url, token).post(f"/v1/modes/{change_id}/review", said)
    if as_json:
        echo_json(done)
        return
    say(f"change {change_id} is {done['action']}, leaf {done['leaf_index']}")


@modes.command("list", short_help="Show changes of what is observed.")
@click.option("--waiting", is_flag=True, help="Only those that somebody must say something of.")
@click.option("--limit", type=click.IntRange(min=1), default=500, show_default=True, help="At most so many.")
@service_options
@json_option
@with_exit_codes
def list_modes(url: str, token: str | None, *, waiting: bool, limit: int, as_json: bool) -> None:
    """Show what was proposed and what gateways have taken up, newest first, as the log's own records say."""
    client = ServiceClient(url, token)
    items: list[Mapping[str, Any]] = []
    cursor: int | None = None
    while len(items) < limit:
        asked = min(_A_PAGE, limit - len(items))
        page = client.get("/v1/modes", waiting=waiting, cursor=cursor, limit=asked)
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if as_json:
        echo_json({"items": items, "next_cursor": cursor})
        return
    table(("since (UTC)", "what", "mode", "state", "gateways", "change"), [_row(item) for item in items])
    if cursor is not None:
        say(f"There are older ones: at most {limit} were asked for (--limit).")


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    what = item["server"] if item["tool"] is None else f"{item['server']}/{item['tool']}"
    taken = ", ".join(one["enforcer_id"] for one in item["taken_up"])
    return (
        utc(item["time_ms"]),
        what,
        item["mode"],
        item["state"].replace("_", " "),
        taken or (item["enforcer_id"] or "any"),
        item["change_id"],
    )
