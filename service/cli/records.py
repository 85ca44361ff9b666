"""``tallystick find``, ``session`` and ``replay``: what an incident responder asks a service."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ledger.errors import ConfigError, MalformedError
from service.cli.client import ServiceClient, service_options
from service.cli.options import milliseconds
from service.cli.output import ExitCode, echo_json, json_option, say, table, with_exit_codes

__all__ = ["find", "replay", "session"]

_EFFECTS = ("permit", "deny", "indeterminate", "not_applicable")


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _row(item: Mapping[str, Any]) -> tuple[object, ...]:
    record = item["record"]
    body = record["body"]
    called = "/".join(filter(None, (body["server"], body.get("tool") or body.get("method"))))
    why = ",".join(body.get("rules", ())) or body["reason"]
    mark = "SIMULATED" if record.get("simulated") else ""
    observed = " (not enforced)" if body["mode"] == "observe" else ""
    return (
        item["leaf_index"],
        _time(record["time_ms"]),
        body["agent"],
        called,
        f"{body['enforcement'].upper()}{observed}",
        why,
        record["record_id"],
        mark,
    )


@click.command()
@click.option("--from", "time_from", callback=milliseconds, help="ISO 8601; decisions at or after.")
@click.option("--to", "time_to", callback=milliseconds, help="ISO 8601; decisions before.")
@click.option("--agent")
@click.option("--user", help="The user's name; the service seeks its pseudonym.")
@click.option("--session")
@click.option("--server")
@click.option("--tool")
@click.option("--rule")
@click.option("--decision", type=click.Choice([effect.upper() for effect in _EFFECTS]))
@click.option("--enforcement", type=click.Choice(["allow", "deny", "ask", "kill"]))
@click.option("--mode", type=click.Choice(["enforce", "observe"]))
@click.option("--trace")
@click.option("--seen", metavar="DIGEST", help="SHA-256 of arguments sent or of a result received.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@service_options
@json_option
@with_exit_codes
def find(  # one parameter for each filter
    *,
    url: str,
    token: str | None,
    as_json: bool,
    limit: int,
    time_from: int | None,
    time_to: int | None,
    seen: str | None,
    **filters: str | None,
) -> None:
    """Find decisions, newest first."""
    client = ServiceClient(url, token)
    items: list[dict[str, Any]] = []
    cursor: int | None = None
    while len(items) < limit:
        page = client.get(
            "/v1/decisions",
            time_from_ms=time_from,
            time_to_ms=time_to,
            digest=seen,
            cursor=cursor,
            limit=min(500, limit - len(items)),
            **filters,
        )
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if as_json:
        echo_json(items)
        return
    table(("leaf", "time (UTC)", "agent", "called", "enforcement", "why", "decision id", ""), map(_row, items))


def _outcome(body: Mapping[str, Any]) -> str:
    details = [body["status"]]
    if body.get("reason"):
        details.append(body["reason"])
    if "error_code" in body:
        details.append(f"error {body['error_code']}")
    if body.get("tool_error"):
        details.append("the tool reported an error")
    return ", ".join(details)


@click.command()
@click.argument("session_id")
@service_options
@json_option
@with_exit_codes
def session(session_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Tell what happened in a session, in order."""
    found = ServiceClient(url, token).get(f"/v1/sessions/{session_id}")
    if as_json:
        echo_json(found)
        return
    events: Sequence[Mapping[str, Any]] = found["events"]
    decisions = [event for event in events if event["record"]["body"]["type"] == "decision"]
    outcomes = {
        event["record"]["body"]["decision_id"]: event["record"]["body"]
        for event in events
        if event["record"]["body"]["type"] == "outcome"
    }
    say(f"session {session_id}: {len(decisions)} calls")
    for event in decisions:
        leaf, when, _agent, called, enforcement, why, record_id, mark = _row(event)
        body = event["record"]["body"]
        say(f"  {when}  leaf {leaf}  {body['agent']} calls {called}: {enforcement} ({why}) {mark}".rstrip())
        if (bundle := body.get("bundle")) is not None:
            engine = f"{bundle['engine']} {bundle['engine_version']}"
            say(f"      bundle {bundle['name']} {bundle['revision'][:12]}, {engine}")
        outcome = outcomes.get(record_id)
        say(f"      outcome: {_outcome(outcome) if outcome else 'none: the call did not go upstream'}")
    for stream in found["streams"]:
        missing = stream["missing"]
        told = "no record is missing" if missing == 0 else f"{missing} records are MISSING"
        say(f"  {stream['enforcer_id']}: numbers {stream['first_seq']} to {stream['last_seq']}, {told}")


def _bundle_argument(value: str) -> dict[str, object]:
    """Return the request's members for ``--bundle``: a word, a revision, or a directory to propose."""
    from policies.directories import read_bundle_directory

    if Path(value).is_dir():
        import json

        archive = json.loads(read_bundle_directory(Path(value)).archive())
        return {"archive": archive}
    return {"bundle": value}


def _flip(result: Mapping[str, Any]) -> str | None:
    if result["replayed"] is None:
        return None
    return f"{result['original']['effect']}:{result['replayed']['effect']}".lower()


@click.command()
@click.argument("decision_ids", nargs=-1, required=True)
@click.option(
    "--bundle", default="recorded", show_default=True, help="recorded, active, a revision, or a bundle's directory."
)
@click.option("--fail-on", multiple=True, metavar="FROM:TO", help="Exit 5 if a decision flips so, e.g. deny:permit.")
@click.option("--purpose", help="Why; recorded. A bundle's directory needs one: its rules ask what the vault holds.")
@service_options
@json_option
@with_exit_codes
def replay(
    decision_ids: tuple[str, ...],
    bundle: str,
    fail_on: tuple[str, ...],
    purpose: str | None,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Replay past decisions under the policy of then, or under another."""
    for condition in fail_on:
        before, _, after = condition.partition(":")
        if before not in _EFFECTS or after not in _EFFECTS:
            raise MalformedError(f"--fail-on takes FROM:TO of {', '.join(_EFFECTS)}, not {condition}")
    body = {"decision_ids": list(decision_ids), **_bundle_argument(bundle)}
    if purpose is not None:
        body["purpose"] = purpose
    elif "archive" in body:
        raise ConfigError("a replay under a proposed bundle needs --purpose, which is recorded")
    answer = ServiceClient(url, token).post("/v1/replays", body)
    if as_json:
        echo_json(answer)
    else:
        for result in answer["results"]:
            _tell(result)
    if any(_flip(result) in fail_on for result in answer["results"]):
        sys.exit(ExitCode.CONDITION_HIT)


def _tell(result: Mapping[str, Any]) -> None:
    words = {True: "SAME", False: "DIFFERENT", None: "NOT REPLAYED"}
    say(f"{result['decision_id']}: {words[result['same']]} ({result['class']})")
    if result["explanation"]:
        say(f"  {result['explanation']}")
    for label in ("original", "replayed"):
        if (summary := result[label]) is not None:
            rules = ", ".join(summary["rules"]) or "no rule"
            revision = (summary["bundle_revision"] or "none")[:12]
            say(f"  {label:8} {summary['effect']:14} {rules} ({summary['reason']}), bundle {revision}")
