"""``tallystick find``, ``replay`` and ``open``: what an incident responder asks a service."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ledger.contents import json_digest
from ledger.errors import ConfigError
from ledger.notes import decode_base64
from service.cli.client import ServiceClient, service_options
from service.cli.options import DECISION_ID, SESSION_ID, milliseconds, utc
from service.cli.output import ExitCode, echo_json, json_option, say, table, with_exit_codes

__all__ = ["EFFECTS", "bundle_argument", "find", "open_payload", "replay"]

_A_PAGE: Final = 50
_ALL: Final = 10_000
"""Decisions that `find` reads at most."""

_MAX_JSON_BYTES: Final = 16 << 20
"""A longer file is sought as it is alone, and not as a JSON value too."""

EFFECTS = ("permit", "deny", "indeterminate", "not_applicable")


def _row(item: Mapping[str, Any]) -> tuple[object, ...]:
    record = item["record"]
    body = record["body"]
    called = "/".join(filter(None, (body["server"], body.get("tool") or body.get("method"))))
    why = ",".join(body.get("rules", ())) or body["reason"]
    if drift := body.get("drift"):
        why += f" [{','.join(drift)}]"
    if said := [*(body.get("inspection") or {}).get("findings", ()), *body.get("deviations", ())]:
        why += f" {{{','.join(said)}}}"
    mark = "SIMULATED" if record.get("simulated") else ""
    observed = " (not enforced)" if body["mode"] == "observe" else ""
    return (
        item["leaf_index"],
        utc(record["time_ms"]),
        body["agent"],
        called,
        f"{body['enforcement'].upper()}{observed}",
        why,
        record["record_id"],
        body.get("session") or "",
        mark,
    )


@click.command(short_help="Find decisions.")
@click.option("--from", "time_from", callback=milliseconds, help="ISO 8601; decisions at or after.")
@click.option("--to", "time_to", callback=milliseconds, help="ISO 8601; decisions before.")
@click.option("--agent", help="The agent that called.")
@click.option("--user", help="The user's name; the service seeks its pseudonym.")
@click.option("--session", type=SESSION_ID, help="Decisions of this session.")
@click.option("--server", help="The MCP server.")
@click.option("--tool", help="The tool, or what else the message names.")
@click.option("--rule", help="A rule that decided.")
@click.option("--decision", type=click.Choice([effect.upper() for effect in EFFECTS]), help="What policy said.")
@click.option(
    "--enforcement", type=click.Choice(["allow", "deny", "ask", "kill"]), help="What the enforcer did about it."
)
@click.option("--mode", type=click.Choice(["enforce", "observe"]), help="Whether it was enforced, or only observed.")
@click.option("--trace", help="The trace id that the caller sent.")
@click.option("--seen", metavar="DIGEST", help="SHA-256 of arguments sent, or of content received.")
@click.option(
    "--seen-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same, of what a file holds; the file goes nowhere.",
)
@click.option("--sessions", is_flag=True, help="List the sessions of what is found, each once.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    help="At most so many decisions; 50, or 10000 with --sessions, if left out.",
)
@service_options
@json_option
@with_exit_codes
def find(  # one parameter for each filter
    *,
    url: str,
    token: str | None,
    as_json: bool,
    limit: int | None,
    time_from: int | None,
    time_to: int | None,
    seen: str | None,
    seen_file: Path | None,
    sessions: bool,
    **filters: str | None,
) -> None:
    """Find decisions, newest first; what is asked for must all be so. Then see `session`, `replay` and `open`."""
    if seen is not None and seen_file is not None:
        raise click.UsageError("--seen and --seen-file say the same in two ways: give one of them")
    limit = limit or (_ALL if sessions else _A_PAGE)
    client = ServiceClient(url, token)
    items: list[dict[str, Any]] = []
    left_out: list[str] = []
    cursor: int | None = None
    while len(items) < limit:
        page = client.get(
            "/v1/decisions",
            time_from_ms=time_from,
            time_to_ms=time_to,
            digest=seen if seen_file is None else ",".join(_digests_of(seen_file)),
            cursor=cursor,
            limit=min(500, limit - len(items)),
            **filters,
        )
        items += page["items"]
        cursor, left_out = page["next_cursor"], page["left_out"]
        if cursor is None:
            break
    if sessions:
        _tell_sessions(items, left_out, as_json=as_json)
    elif as_json:
        echo_json({"items": items, "left_out": left_out})
    else:
        _tell_decisions(items)
    if cursor is not None and not as_json:
        say(f"older decisions may match: at most {limit} were asked for (--limit)")


def _digests_of(path: Path) -> list[str]:
    """Return what a file may be known by, hexadecimal: its SHA-256 and, of JSON, that of its canonical form."""
    try:
        with path.open("rb") as file:
            digests = [hashlib.file_digest(file, "sha256").digest()]
            file.seek(0)
            text = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the file {path.name} cannot be read: {error.strerror}") from error
    as_value = json_digest(text) if len(text) <= _MAX_JSON_BYTES else None
    if as_value is not None and as_value not in digests:
        digests.append(as_value)
    return [digest.hex() for digest in digests]


def _tell_decisions(items: Sequence[Mapping[str, Any]]) -> None:
    header = ("leaf", "time (UTC)", "agent", "called", "enforcement", "why", "decision id", "session", "")
    table(header, map(_row, items))


def _tell_sessions(items: Sequence[Mapping[str, Any]], left_out: Sequence[str], *, as_json: bool) -> None:
    """List the sessions of decisions, newest first: each with its agent, its decisions among these, and their times."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        record = item["record"]
        body, time_ms = record["body"], record["time_ms"]
        known = found.setdefault(
            body["session"],
            {"session": body["session"], "agent": body["agent"], "decisions": 0, "last_ms": time_ms},
        )
        known["decisions"] += 1
        known["first_ms"] = time_ms
    if as_json:
        echo_json({"sessions": list(found.values()), "left_out": left_out})
        return
    rows = ((s["session"], s["agent"], s["decisions"], utc(s["first_ms"]), utc(s["last_ms"])) for s in found.values())
    table(("session", "agent", "decisions", "first (UTC)", "last (UTC)"), rows)


def bundle_argument(value: str) -> dict[str, object]:
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


@click.command(short_help="Replay past decisions, under the policy of then or another.")
@click.argument("decision_ids", nargs=-1, required=True, type=DECISION_ID)
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
    """Replay the decisions DECISION_IDS under the policy of then, or under another."""
    for condition in fail_on:
        before, _, after = condition.partition(":")
        if before not in EFFECTS or after not in EFFECTS:
            raise ConfigError(f"--fail-on takes FROM:TO of {', '.join(EFFECTS)}, not {condition}")
    body = {"decision_ids": list(decision_ids), **bundle_argument(bundle)}
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


# --- payloads --------------------------------------------------------------------------------------------------------


@click.command("open", short_help="Open what was sent or answered; that you did is recorded.")
@click.argument("decision_id", type=DECISION_ID)
@click.option("--purpose", required=True, help="Why, in eight characters or more; recorded, in the vault.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    type=click.Choice(["message", "request", "masked_request", "result"]),
    default=("request",),
    show_default=True,
    help="The client's message, the facts that policy saw, or the server's answer; may be repeated.",
)
@service_options
@json_option
@with_exit_codes
def open_payload(
    decision_id: str, purpose: str, fields: tuple[str, ...], url: str, token: str | None, *, as_json: bool
) -> None:
    """Open what the decision DECISION_ID or its outcome committed to, and print it.

    Who opened it and why is a record in the log before anything is handed out. What comes was compared with the
    commitment in the log by the service.
    """
    wanted = {"purpose": purpose, "fields": list(dict.fromkeys(fields))}
    answer = ServiceClient(url, token).post(f"/v1/decisions/{decision_id}/openings", wanted)
    if as_json:
        echo_json(answer)
        return
    for opening in answer["openings"]:
        payload = decode_base64(opening["payload"])
        say(f"{opening['field']}: {len(payload)} bytes, SHA-256 {opening['sha256']}")
        try:
            say(payload.decode())
        except UnicodeDecodeError:
            say("  (not text; --json has its bytes)")
