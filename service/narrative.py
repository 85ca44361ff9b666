"""What happened in a session, in sentences: for a terminal, for the dashboard, and to be pasted into a ticket.

Pure. It reads records as JSON has them, so that the command says the same of an older or newer service's records;
a member that it does not know it passes over, and one that is absent it does not make up.

INVARIANT: it says what records say. Whether the log holds them, and all of them, is told apart (streams and counts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["about_call", "about_outcome", "event_line", "head", "moment", "summary", "who_called"]

Body = Mapping[str, Any]
Event = Mapping[str, Any]

_SHORT: Final = 12  # hexadecimal digits that tell two digests of one log apart
_MAX_NAMED: Final = 12

_STEPS: Final = {
    "held": "held for people to agree",
    "seen": "somebody opened exactly what would run",
    "granted": "a person agreed",
    "denied": "a person denied it",
    "used": "the approval was used, and the call went on",
    "expired": "nobody agreed in time",
    "cancelled": "the call was withdrawn",
    "refused": "a way round was tried and refused",
}
_TOOLS: Final = {
    "first_seen": "was seen for the first time",
    "changed": "changed again while quarantined",
    "quarantined": "was quarantined",
    "vouched": "was vouched for by a signed manifest",
    "returned": "was listed again",
    "gone": "was listed no more",
    "approved": "was approved by a person",
    "rejected": "was rejected by a person",
}
_CONTAINED: Final = {
    "ordered": "was ordered",
    "release_requested": "is to be released: one person asked",
    "released": "was released by another person",
    "expired": "ended by itself",
    "reviewed": "was reviewed",
}


def moment(time_ms: int) -> str:
    """Return a time for people, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _short(digest: object) -> str:
    return str(digest)[:_SHORT]


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown} and {len(names) - _MAX_NAMED} more"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _person(body: Body) -> str:
    if "actor" not in body:
        return ""
    role = f", {body['actor_role']}" if body.get("actor_role") else ""
    return f" (pseudonym {_short(body['actor'])}{role})"


def who_called(body: Body) -> str:
    """Return who made a call, as far as its record says: agent, user, how proven, from where."""
    facts: Body = body.get("facts") or {}
    said = [f"agent {body['agent']}"]
    if body.get("user"):
        said.append(f"for user {_short(body['user'])} (pseudonym)")
    if facts.get("authn"):
        said.append(f"proven by {facts['authn']}, {'with' if facts.get('mfa') else 'without'} a second factor")
    if facts.get("roles"):
        said.append(f"roles {_named(facts['roles'])}")
    if facts.get("network"):
        said.append(f"network {facts['network']}")
    if body.get("transport"):
        said.append(f"over {body['transport']}")
    return ", ".join(said)


def _found(where: str, inspection: Body | None) -> Iterator[str]:
    if inspection is None:
        return
    extent = "" if inspection.get("extent") == "complete" else f", looked through {inspection.get('extent')}ly only"
    findings = inspection.get("findings", ())
    if findings or extent:
        by = f"; inspector {_short(inspection['inspector'])}" if inspection.get("inspector") else ""
        count = _many(inspection.get("count", len(findings)), "finding")
        yield f"found in the {where}: {_named(findings) or 'nothing'} ({count}{extent}{by})"


def about_call(body: Body) -> list[str]:
    """Return what a decision's record says beside who called what: what was decided by which rule, on what facts."""
    lines = []
    rules = body.get("rules", ())
    by = f" by {_named(rules)}" if rules else ""
    bundle = body.get("bundle")
    of = "no bundle was asked" if bundle is None else f"bundle {bundle['name']} {_short(bundle['revision'])}"
    engine = "" if bundle is None else f", {bundle['engine']} {bundle['engine_version']}"
    lines.append(f"decided: {body['decision']}{by} ({body['reason']}), {of}{engine}")
    if body.get("failed_condition") and body["failed_condition"] not in rules:
        lines.append(f"stood against it: {body['failed_condition']}")
    if body.get("obligations"):
        lines.append(f"on condition of: {_named(body['obligations'])}")
    lines += _found("call", body.get("inspection"))
    if body.get("tool_state"):
        digest = f", definition {_short(body['tool_digest'])}" if body.get("tool_digest") else ""
        lines.append(f"tool: {body['tool_state']}{digest}")
    if body.get("tags"):
        lines.append(f"tags: {_named(body['tags'])}")
    if body.get("deviations"):
        lines.append(f"unusual for this agent: {_named(body['deviations'])}")
    if body.get("drift"):
        lines.append(f"outside the policy's boundaries: {_named(body['drift'])}")
    if body.get("restriction"):
        lines.append(f"stopped by containment {body['restriction']}")
    return lines


def about_outcome(body: Body) -> list[str]:
    """Return what an outcome's record says beside how the call ended."""
    lines = list(_found("answer", body.get("inspection")))
    if body.get("redacted"):
        lines.append(f"redacted before the client got it: {_many(body['redacted'], 'place')}")
    if body.get("hidden"):
        lines.append(f"not shown of the list: {_many(body['hidden'], 'entry').replace('entrys', 'entries')}")
    return lines


def event_line(body: Body) -> str:
    """Return the sentence of a record that is neither a decision nor an outcome; empty for types that have none."""
    match body["type"]:
        case "approval":
            return _approval(body)
        case "tool":
            return _tool(body)
        case "drift":
            return _drift(body)
        case "containment":
            return _containment(body)
        case "session_end":
            told = f"{_many(body['calls'], 'call')} by its enforcer's count, {body['denied']} not let through"
            return f"the session ended ({body['reason']}): {told}"
    return ""


def _approval(body: Body) -> str:
    said = f"approval {body['approval_id']}: {_STEPS.get(body['action'], body['action'])}{_person(body)}"
    if body["action"] == "held":
        needed = _many(body.get("needed", 1), "person").replace("persons", "people")
        cause = f" ({body['cause']})" if body.get("cause") else ""
        until = moment(body.get("expires_ms", 0))
        said += f"{cause}: {needed} must agree until {until}, to binding {_short(body['binding'])}"
    return f"{said}: {body['reason']}" if body.get("reason") else said


def _tool(body: Body) -> str:
    said = (
        f"the definition of {body['server']}/{body['tool']} {_TOOLS.get(body['action'], body['action'])}{_person(body)}"
    )
    if body.get("reasons"):
        said += f": {_named(body['reasons'])}"
    if body.get("other"):
        said += f", compared with {body['other']}"
    if body.get("changes"):
        said += f"; it brought in: {_named(body['changes'])}"
    if body.get("digest"):
        said += f"; definition {_short(body['digest'])}"
    if body.get("previous"):
        said += f", before {_short(body['previous'])}"
    return said


def _drift(body: Body) -> str:
    if body["action"] != "flagged":
        what = f" as {body['disposition']}" if body.get("disposition") else ""
        return f"departure {body['drift_id']} was {body['action']}{what}{_person(body)}"
    about = f" about {body['subject']}" if body.get("subject") else ""
    value, threshold = body.get("value_milli", 0) / 1000, body.get("threshold_milli", 0) / 1000
    return (
        f"departure {body['drift_id']} of {body.get('agent')}: {body.get('detector')}{about}, measured {value:g} "
        f"above {threshold:g} (baseline {body.get('baseline_version', 0)})"
    )


def _containment(body: Body) -> str:
    named = (body.get(part) for part in ("agent", "server", "tool", "session"))
    stopped = "/".join(str(part) for part in named if part)
    of = f" of {body.get('scope')} {stopped}".rstrip() if body["action"] == "ordered" else ""
    said = f"containment {body['containment_id']}{of} {_CONTAINED.get(body['action'], body['action'])}{_person(body)}"
    if body.get("until_ms"):
        said += f", until {moment(body['until_ms'])}"
    return f"{said}: {body['verdict']}" if body.get("verdict") else said


def summary(events: Sequence[Event]) -> dict[str, Any]:
    """Return what a program, or the first lines of a report, say of a session.

    Args:
        events: The session's own records in log order, each with its leaf index.
    """
    decisions = [event["record"] for event in events if event["record"]["body"]["type"] == "decision"]
    outcomes = [event["record"]["body"] for event in events if event["record"]["body"]["type"] == "outcome"]
    bodies = [record["body"] for record in decisions]
    bundles = {(one["name"], one["revision"]) for body in bodies if (one := body.get("bundle")) is not None}
    inspections = [one for body in (*bodies, *outcomes) if (one := body.get("inspection")) is not None]
    return {
        "agents": sorted({body["agent"] for body in bodies}),
        "users": sorted({body["user"] for body in bodies if body.get("user")}),
        "first_ms": min((record["time_ms"] for record in decisions), default=None),
        "last_ms": max((record["time_ms"] for record in decisions), default=None),
        "first_leaf": min((event["leaf_index"] for event in events), default=None),
        "last_leaf": max((event["leaf_index"] for event in events), default=None),
        "enforcements": dict(sorted(Counter(body["enforcement"] for body in bodies).items())),
        "observed": sum(body["mode"] == "observe" for body in bodies),
        "servers": sorted({body["server"] for body in bodies}),
        "bundles": [{"name": name, "revision": revision} for name, revision in sorted(bundles)],
        "refused_by": dict(
            sorted(
                Counter(
                    body.get("failed_condition") or body["reason"] for body in bodies if body["enforcement"] != "allow"
                ).items()
            )
        ),
        "findings": sorted({name for one in inspections for name in one.get("findings", ())}),
        "redacted": sum(body.get("redacted", 0) for body in outcomes),
        "simulated": any(record.get("simulated") for record in decisions),
    }


def head(events: Sequence[Event]) -> list[str]:
    """Return the first lines of a session's report: who, when, what came of it.

    Args:
        events: The session's own records in log order, each with its leaf index.
    """
    told = summary(events)
    if told["first_ms"] is None:
        return []
    callers = dict.fromkeys(
        who_called(event["record"]["body"]) for event in events if event["record"]["body"]["type"] == "decision"
    )
    lines = [f"who: {caller}" for caller in list(callers)[:_MAX_NAMED]]
    if len(callers) > _MAX_NAMED:
        lines.append(f"who: {len(callers) - _MAX_NAMED} more ways of the same agents to call")
    leaves = f"leaves {told['first_leaf']} to {told['last_leaf']}"
    lines.append(f"when: {moment(told['first_ms'])} to {moment(told['last_ms'])} UTC by the enforcer's clock, {leaves}")
    decided = ", ".join(f"{number} {name.upper()}" for name, number in told["enforcements"].items())
    observed = f"; {told['observed']} of them only observed, and not enforced" if told["observed"] else ""
    lines.append(f"decided: {decided}{observed}")
    if told["refused_by"]:
        lines.append(f"refused by: {_named([f'{name} ({count})' for name, count in told['refused_by'].items()])}")
    if told["findings"]:
        lines.append(f"found: {_named(told['findings'])}")
    return lines
