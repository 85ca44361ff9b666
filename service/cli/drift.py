"""``tallystick drift``: departures of agents from what they usually do, and what people say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ledger.errors import ConfigError, ConflictError
from service.cli.client import ServiceClient, service_options
from service.cli.options import DRIFT_ID, utc
from service.cli.output import counted, echo_json, json_option, say, table, with_exit_codes

__all__ = ["drift"]

_A_PAGE: Final = 500
_MIN_DIGEST_CHARS: Final = 12
_STATES: Final = ("none", "learning", "ready")
_COUNTING: Final = "not all calls were counted yet: there may be agents without a baseline that are not among these"
_AGENT = click.option("--agent", help="Of this agent alone.")
_COMMENT = click.option("--comment", required=True, help="Why; recorded in the vault.")
_GATEWAY = click.option("--gateway", "enforcer", required=True, help="Whose baseline: `drift baselines` shows it.")


@click.group(short_help="Departures of agents from what they usually do.")
def drift() -> None:
    """See where agents depart from what they usually do, and say what it was; see docs/behaviour.md."""


def _about(item: Mapping[str, Any]) -> str:
    return f"{item['previous']} > {item['subject']}" if item["previous"] else item["subject"] or ""


@drift.command("list", short_help="Show departures, the open ones first.")
@click.option("--all", "everything", is_flag=True, help="Those that were closed as well.")
@_AGENT
@service_options
@json_option
@with_exit_codes
def list_drift(agent: str | None, url: str, token: str | None, *, everything: bool, as_json: bool) -> None:
    """Show what gateways flagged, and how many agents have a baseline: without one, nothing can be flagged."""
    client = ServiceClient(url, token)
    found: list[Mapping[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        state = "all" if everything else "open"
        page = client.get("/v1/drift", state=state, agent=agent, offset=offset, limit=_A_PAGE)
        found += page["items"]
        offset = page["next_offset"]
    told = client.get("/v1/drift/baselines", agent=agent)
    known = [item["state"] for item in told["items"]] + ["none"] * len(told["unknown"])
    states = {state: known.count(state) for state in _STATES}
    if as_json:
        echo_json({"items": found, "baselines": states, "complete": told["complete"]})
        return
    rows = [
        (item["id"], item["state"], item["agent"], item["detector"], _about(item), utc(item["time_ms"]))
        for item in found
    ]
    if rows:
        table(("id", "state", "agent", "detector", "about", "flagged (UTC)"), rows)
    else:
        say("no departure is open" if not everything else "no departure was flagged")
    say(_known(states))
    if not told["complete"]:
        say(_COUNTING)


def _known(states: Mapping[str, int]) -> str:
    """Return how much the list can say: of what has no baseline, it says nothing."""
    whole = sum(states.values())
    if not whole:
        return "no gateway knows what any agent usually does: nothing can be found, and that is no good news"
    missing = whole - states["ready"]
    told = f"{states['ready']} of {counted(whole, 'baselines')} ready"
    return told if not missing else f"{told}; of the other {missing} nothing can be found yet"


@drift.command(short_help="Show a departure with the decisions that it rests on.")
@click.argument("drift_id", type=DRIFT_ID)
@service_options
@json_option
@with_exit_codes
def show(drift_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Show what DRIFT_ID is about, what was measured, and the ids of the decisions that it rests on."""
    from service.drift_words import EXPLANATIONS, detector_words, measured_words

    item = ServiceClient(url, token).get(f"/v1/drift/{drift_id}")
    if as_json:
        echo_json(item)
        return
    say(f"{item['agent']} at {item['enforcer_id']}: {detector_words(item['detector'])} ({item['detector']})")
    if about := _about(item):
        say(f"about: {about}")
    say(f"measured: {measured_words(item['detector'], item['value_milli'], item['threshold_milli'])}")
    version = f"version {item['baseline_version']}" if item["baseline_version"] else "none: a declared job"
    say(f"baseline: {version}; thresholds {item['thresholds'] or 'none'}")
    if item["explained"]:
        say(f"may be why: {EXPLANATIONS.get(item['explained'], item['explained'])} ({item['explained_by']})")
    if item["unflagged"]:
        say(f"before it, {counted(item['unflagged'], 'departures')} were too many to be flagged")
    say(f"flagged {utc(item['time_ms'])} UTC, leaf {item['leaf_index']}; {item['state']}")
    if item["disposition"]:
        say(f"closed as {item['disposition']} by {item['closed_by']}")
    elif item["acknowledged_by"]:
        say(f"acknowledged by {item['acknowledged_by']}")
    say(f"rests on {counted(item['calls'], 'calls')}, the latest of them:")
    for decision in item["decisions"]:
        say(f"  {decision}")


@drift.command(short_help="Show what gateways know of what agents usually do.")
@_AGENT
@service_options
@json_option
@with_exit_codes
def baselines(agent: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Show baselines, those that are not ready first; an agent without a gateway calls and is known to none."""
    found = ServiceClient(url, token).get("/v1/drift/baselines", agent=agent)
    if as_json:
        echo_json(found)
        return
    if not found["items"] and not found["unknown"]:
        say(_known(dict.fromkeys(_STATES, 0)))
        return
    rows = [(name, "", "none", "", "", "", "", "") for name in found["unknown"]]
    rows += [
        (
            item["agent"],
            item["enforcer_id"],
            item["state"] + (", silent" if item["silent"] else ""),
            item["version"] or "",
            f"{item['calls']} on {counted(item['days'], 'days')}",
            f"{item['needed_calls']} on {item['needed_days']} more" if item["state"] == "learning" else "",
            ", ".join(item["blind"]),
            "" if item["offered"] is None else item["offered"]["digest"][:_MIN_DIGEST_CHARS],
        )
        for item in found["items"]
    ]
    table(("agent", "gateway", "state", "version", "calls", "still needed", "cannot tell", "offers"), rows)
    if not found["complete"]:
        say(_COUNTING)


@drift.command(short_help="Say that you look after a departure.")
@click.argument("drift_id", type=DRIFT_ID)
@_COMMENT
@service_options
@json_option
@with_exit_codes
def acknowledge(drift_id: str, comment: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Say that you have seen DRIFT_ID and look after it."""
    done = ServiceClient(url, token).post(f"/v1/drift/{drift_id}/acknowledge", {"comment": comment})
    if as_json:
        echo_json(done)
    else:
        say(f"{drift_id} is acknowledged, at leaf {done['leaf_index']}")


@drift.command(short_help="Say what a departure was.")
@click.argument("drift_id", type=DRIFT_ID)
@click.option(
    "--as",
    "disposition",
    required=True,
    type=click.Choice(["expected", "harmless", "misuse", "compromise", "false_alarm"]),
    help="What it was.",
)
@_COMMENT
@service_options
@json_option
@with_exit_codes
def close(drift_id: str, disposition: str, comment: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Close DRIFT_ID with what it was; no baseline changes by that."""
    said = {"disposition": disposition, "comment": comment}
    done = ServiceClient(url, token).post(f"/v1/drift/{drift_id}/close", said)
    if as_json:
        echo_json(done)
    else:
        say(f"{drift_id} is closed as {disposition}, at leaf {done['leaf_index']}")


def _offered(client: ServiceClient, agent: str, enforcer: str, digest: str) -> str:
    """Return the whole digest of the candidate that somebody looked at, if it is offered still."""
    if len(digest) < _MIN_DIGEST_CHARS or not set(digest) <= set("0123456789abcdef"):
        raise ConfigError(f"--digest takes at least the first {counted(_MIN_DIGEST_CHARS, 'digits')} of the digest")
    for item in client.get("/v1/drift/baselines", agent=agent)["items"]:
        if item["enforcer_id"] == enforcer and item["offered"] is not None:
            offered = str(item["offered"]["digest"])
            if offered.startswith(digest):
                return offered
    raise ConflictError(f"{enforcer} does not offer this baseline of {agent}: look at `tallystick drift baselines`")


def _order(client: ServiceClient, order: Mapping[str, Any], told: str, *, as_json: bool) -> None:
    done = client.post("/v1/drift/baselines", order)
    if as_json:
        echo_json({**done, "action": order["action"]})
    else:
        say(f"{told}, at leaf {done['leaf_index']}; the gateway does it when it asks next")


@drift.command(short_help="Let what a gateway has learned since be the baseline.")
@click.argument("agent")
@_GATEWAY
@click.option("--digest", required=True, help="Of the candidate that was looked at: `drift baselines`.")
@_COMMENT
@service_options
@json_option
@with_exit_codes
def accept(agent: str, enforcer: str, digest: str, comment: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Accept the baseline of AGENT that a gateway offers: what it learned becomes what is usual."""
    client = ServiceClient(url, token)
    whole = _offered(client, agent, enforcer, digest)
    order = {"action": "accept", "agent": agent, "enforcer": enforcer, "digest": whole, "comment": comment}
    _order(client, order, f"the baseline {whole} of {agent} is accepted", as_json=as_json)


@drift.command(short_help="Have a gateway forget what an agent usually does.")
@click.argument("agent")
@_GATEWAY
@_COMMENT
@service_options
@json_option
@with_exit_codes
def reset(agent: str, enforcer: str, comment: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Have a gateway forget its baseline of AGENT and learn anew; until it has, nothing is found."""
    order = {"action": "reset", "agent": agent, "enforcer": enforcer, "comment": comment}
    _order(ServiceClient(url, token), order, f"the baseline of {agent} is to be forgotten", as_json=as_json)
