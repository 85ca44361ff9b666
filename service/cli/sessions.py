"""``tallystick session``: what happened in a session, as a report that can be pasted into an incident's ticket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from service.cli.client import ServiceClient, service_options
from service.cli.options import SESSION_ID
from service.cli.output import counted, echo_json, json_option, say, with_exit_codes
from service.narrative import about_call, about_outcome, event_line, head, moment, summary

__all__ = ["session"]

Event = Mapping[str, Any]


def _whole_session(client: ServiceClient, session_id: str) -> dict[str, Any]:
    """Return all pages of a session as one."""
    events: list[Event] = []
    streams: dict[tuple[str, str], dict[str, Any]] = {}
    cursor: int | None = None
    while True:
        page = client.get(f"/v1/sessions/{session_id}", cursor=cursor)
        events += page["events"]
        for stream in page["streams"]:
            whole = streams.setdefault((stream["enforcer_id"], stream["epoch"]), {**stream, "missing": 0})
            whole["last_seq"] = max(whole["last_seq"], stream["last_seq"])
            whole["missing"] += stream["missing"]
        cursor = page["next_cursor"]
        if cursor is None:
            return {
                "session": session_id,
                "summary": summary(events),
                "events": events,
                "related": page.get("related", []),  # a service of an earlier version has none
                "streams": list(streams.values()),
                "calls": page["calls"],
                "left_out": page["left_out"],
            }


def _outcome(body: Mapping[str, Any]) -> str:
    details = [body["status"]]
    if body.get("reason"):
        details.append(body["reason"])
    if "error_code" in body:
        details.append(f"error {body['error_code']}")
    if body.get("tool_error"):
        details.append("the tool reported an error")
    return ", ".join(details)


def _call(event: Event) -> str:
    record = event["record"]
    body = record["body"]
    called = "/".join(filter(None, (body["server"], body.get("tool") or body.get("method"))))
    method = f" ({body['method']})" if body.get("method") and body["method"] != "tools/call" else ""
    observed = " (not enforced)" if body["mode"] == "observe" else ""
    why = body.get("failed_condition") or ",".join(body.get("rules", ())) or body["reason"]
    said = f"{body['agent']} calls {called}: {body['enforcement'].upper()}{observed} ({why})"
    mark = " SIMULATED" if record.get("simulated") else ""
    return f"{_place(event)}  {said}{method if body.get('tool') else ''}{mark}"


def _place(event: Event) -> str:
    return f"{moment(event['record']['time_ms'])}  leaf {event['leaf_index']}"


class _Story:
    """The records of a session and those that belong to it, put in order."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.events: Sequence[Event] = found["events"]
        self.outcomes: dict[str, Event] = {}
        self.steps: defaultdict[str, list[Event]] = defaultdict(list)
        self._alone: list[Event] = []
        calls = {event["record"]["record_id"] for event in self._of("decision")}
        for event in (*self.events, *found["related"]):
            body = event["record"]["body"]
            if body["type"] == "outcome":
                self.outcomes[body["decision_id"]] = event
            elif body["type"] == "approval" and body["decision_id"] in calls:
                self.steps[body["decision_id"]].append(event)
            else:
                self._alone.append(event)

    def _of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["record"]["body"]["type"] == kind]

    @property
    def calls(self) -> int:
        """How many decisions there are."""
        return len(self._of("decision"))

    def lines(self) -> Iterator[str]:
        """Yield the story in log order: calls with what became of each, and what happened besides."""
        for event in sorted(self._alone, key=lambda event: event["leaf_index"]):
            if event["record"]["body"]["type"] == "decision":
                yield from self._call_lines(event)
            elif line := event_line(event["record"]["body"]):
                yield f"{_place(event)}  {line}"

    def _call_lines(self, event: Event) -> Iterator[str]:
        record = event["record"]
        yield _call(event)
        yield from (f"    {line}" for line in about_call(record["body"]))
        for step in self.steps[record["record_id"]]:
            yield f"    {_place(step)}  {event_line(step['record']['body'])}"
        outcome = self.outcomes.get(record["record_id"])
        if outcome is not None:
            body = outcome["record"]["body"]
            yield f"    outcome: {_outcome(body)}, leaf {outcome['leaf_index']}"
            yield from (f"    {line}" for line in about_outcome(body))
        elif record["body"]["enforcement"] in ("allow", "ask"):
            yield "    outcome: none is in the log: whether the server was called is not known"
        else:
            yield "    outcome: none: the call did not go upstream"
        yield f"    decision id {record['record_id']}"


@click.command(short_help="Tell what happened in a session.")
@click.argument("session_id", type=SESSION_ID)
@service_options
@json_option
@with_exit_codes
def session(session_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Tell what happened in the session SESSION_ID, in order, and whether a record is missing in between.

    It is a report that can be pasted into a ticket: who called, what was tried, what was decided by which rule of which
    bundle, what was found, what people said, what followed, each with its place in the log. No argument and no answer
    stands in it; `tallystick open` shows those, for a purpose.
    """
    found = _whole_session(ServiceClient(url, token), session_id)
    if as_json:
        echo_json(found)
        return
    story = _Story(found)
    say(f"session {session_id}: {counted(story.calls, 'calls')}")
    for line in head(found["events"]):
        say(f"  {line}")
    say()
    for line in story.lines():
        say(f"  {line}")
    say()
    for stream in found["streams"]:
        missing = stream["missing"]
        told = "no record is missing" if missing == 0 else f"{missing} records are MISSING"
        say(f"  {stream['enforcer_id']}: numbers {stream['first_seq']} to {stream['last_seq']}, {told}")
    if found["calls"] is not None:
        say(f"  calls: {found['calls']['verdict']}: {found['calls']['reason']}")
    for told in found["left_out"]:
        say(f"  left out: {told}")
