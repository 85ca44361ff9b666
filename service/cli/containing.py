"""``tallystick contain``: stopping an agent, a session, a tool, a server or everything, at every gateway at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ledger.errors import ConfigError
from service.cli.client import ServiceClient, service_options
from service.cli.options import CONTAINMENT_ID, SESSION_ID, duration, utc
from service.cli.output import ExitCode, echo_json, json_option, say, table, with_exit_codes

__all__ = ["contain"]

_MS_PER_SECOND: Final = 1000
_STATES: Final = {
    "reached": "in force",
    "unreached": "UNREACHED",
    "stopped": "not running: it closed its stream",
    "never_started": "never started",
}


def _wanted(
    agent: str | None, session: str | None, tool: str | None, server: str | None, *, everything: bool
) -> dict[str, object]:
    """Return what is to be stopped, as the service takes it.

    Raises:
        ConfigError: Nothing, or more than one thing.
    """
    given: list[dict[str, object]] = []
    if agent is not None:
        given.append({"agent": agent})
    if session is not None:
        given.append({"session": session})
    if server is not None:
        given.append({"server": server})
    if everything:
        given.append({"all": True})
    if tool is not None:
        name, separator, of = tool.partition("/")
        if not separator or not name or not of:
            raise ConfigError("--tool takes SERVER/TOOL")
        given.append({"server": name, "tool": of})
    if len(given) != 1:
        raise ConfigError("say what to stop, and one thing only: --agent, --session, --tool, --server or --all")
    return given[0]


@click.group(invoke_without_command=True, short_help="Stop an agent, session, tool, server, or all.")
@click.option("--agent", help="Stop this agent, whoever it acts for.")
@click.option("--session", type=SESSION_ID, help="Stop this session, as records have it.")
@click.option("--tool", metavar="SERVER/TOOL", help="Stop calls of this tool.")
@click.option("--server", help="Stop everything that is for this server.")
@click.option("--all", "everything", is_flag=True, help="Stop everything.")
@click.option("--for", "lasting", callback=duration, metavar="TIME", help="How long, such as 4h; 30d at most.")
@click.option("--reason", help="Why; recorded in the vault.")
@click.option(
    "--wait",
    "waiting",
    callback=duration,
    default="2s",
    show_default=True,
    metavar="TIME",
    help="How long to wait for gateways that it has not reached; 30s at most.",
)
@service_options
@json_option
@click.pass_context
@with_exit_codes
def contain(
    context: click.Context,
    agent: str | None,
    session: str | None,
    tool: str | None,
    server: str | None,
    lasting: int | None,
    reason: str | None,
    waiting: int,
    url: str,
    token: str | None,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """Stop an agent, a session, a tool, a server or everything, for a time, at every gateway.

    One responder may: it permits nothing, ends by itself, and somebody else is to review it within 24 hours. Ends with
    status 4 if a gateway has not said in time that it holds there; it is on its way all the same.
    """
    if context.invoked_subcommand is not None:
        return
    wanted = _wanted(agent, session, tool, server, everything=everything)
    if lasting is None or reason is None:
        raise ConfigError("--for says how long, such as 4h, and --reason why")
    client = ServiceClient(url, token)
    ordered = client.post("/v1/containments", {**wanted, "seconds": lasting // _MS_PER_SECOND, "reason": reason})
    seconds = min(waiting / _MS_PER_SECOND, 30)
    done = client.get(f"/v1/containments/{ordered['id']}", wait=seconds)
    if as_json:
        echo_json(done)
    else:
        told = f"containment {done['id']}, leaf {done['leaf_index']}"
        say(f"{_what(done)} is contained until {utc(done['until_ms'])} UTC: {told}")
        say(f"To be reviewed by somebody else until {utc(done['review_due_ms'])} UTC: tallystick contain review")
        _tell_gateways(done["gateways"])
    if not done["reached"]:
        context.exit(ExitCode.UNCHECKED)


def _tell_gateways(gateways: list[Mapping[str, Any]]) -> None:
    if not gateways:
        say("no gateway is introduced in this log")
        return
    rows = [
        (
            one["enforcer_id"],
            _STATES.get(one["state"], one["state"]),
            "" if one["seen_ms"] is None else utc(one["seen_ms"]),
        )
        for one in gateways
    ]
    table(("gateway", "there", "last heard of (UTC)"), rows)


def _what(item: Mapping[str, Any]) -> str:
    scope = item["scope"]
    if scope == "all":
        return "everything"
    if scope == "tool":
        return f"tool {item['server']}/{item['tool']}"
    if scope == "principal":
        return f"agent {item['agent']}" + (f" for user {item['user']}" if item["user"] else "")
    return f"{scope} {item[scope]}"


def _review(item: Mapping[str, Any]) -> str:
    if item["kind"] == "kill":
        return ""
    if item["verdict"] is not None:
        return str(item["verdict"])
    return "OVERDUE" if item["review_overdue"] else f"due {utc(item['review_due_ms'])}"


@contain.command("list", short_help="Show what is stopped.")
@click.option("--to-review", is_flag=True, help="Instead: the containments that nobody has reviewed, in force or over.")
@click.option("--ever", is_flag=True, help="Instead: all containments there ever were.")
@service_options
@json_option
@with_exit_codes
def list_containments(url: str, token: str | None, *, to_review: bool, ever: bool, as_json: bool) -> None:
    """Show the containments in force, and the agents that a kill has blocked, as the log's own records say."""
    if to_review and ever:
        raise ConfigError("give --to-review or --ever, not both")
    state = "to_review" if to_review else "all" if ever else "in_force"
    found = ServiceClient(url, token).get("/v1/containments", state=state)
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            item["id"],
            _what(item),
            item["kind"],
            utc(item["since_ms"]),
            "until released" if item["until_ms"] is None else utc(item["until_ms"]),
            item["state"].replace("_", " "),
            _review(item),
            item["release_requested_by"] or "",
        )
        for item in found["items"]
    ]
    table(("id", "stopped", "by", "since (UTC)", "until (UTC)", "state", "review", "release asked for by"), rows)


@contain.command(short_help="Ask for an early end, or confirm it.")
@click.argument("containment_id", type=CONTAINMENT_ID)
@click.option("--reason", required=True, help="Why; recorded in the vault.")
@service_options
@json_option
@with_exit_codes
def release(containment_id: str, reason: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Ask for the early end of CONTAINMENT_ID, or confirm it if somebody else has asked: it takes two people.

    Also of the block that a kill has left behind, by the id of its decision.
    """
    done = ServiceClient(url, token).post(f"/v1/containments/{containment_id}/release", {"reason": reason})
    if as_json:
        echo_json(done)
    elif done["action"] == "released":
        say(f"{_what(done)} is released; gateways let it go on as soon as they have heard of it")
    else:
        say(f"the release of {_what(done)} is asked for; somebody else confirms it")


@contain.command(short_help="Review a containment.")
@click.argument("containment_id", type=CONTAINMENT_ID)
@click.option(
    "--verdict", type=click.Choice(["justified", "unfounded"]), required=True, help="Was it right to order it?"
)
@click.option("--comment", required=True, help="What was found; recorded in the vault.")
@service_options
@json_option
@with_exit_codes
def review(containment_id: str, verdict: str, comment: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Record what somebody else than who ordered CONTAINMENT_ID finds of it; it ends nothing by itself."""
    body = {"verdict": verdict, "comment": comment}
    done = ServiceClient(url, token).post(f"/v1/containments/{containment_id}/review", body)
    if as_json:
        echo_json(done)
    else:
        say(f"the containment of {_what(done)} is reviewed: {done['verdict']}")
