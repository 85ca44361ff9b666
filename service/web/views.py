"""What the pages show of records: rows of the live table, and every field of one decision.

Pure: records in, plain values out. Fields are shown by their declared class (`ledger.bodies`): public ones as they
are, pseudonyms marked as such, vaulted ones as the commitment that stands in the leaf. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ledger.bodies import BundleReference, Decision, Facts, Outcome
from ledger.bodies_inspection import Inspection
from ledger.body_fields import Commitment
from ledger.records import Record, leaf_hash
from service.web.wording import WEEKDAYS, number, size

__all__ = [
    "DecisionView",
    "Field",
    "Kind",
    "OutcomeView",
    "Row",
    "Section",
    "decision_row",
    "decision_view",
    "local_time",
    "outcome_view",
]

Kind = Literal["text", "code", "list", "pseudonym", "vaulted"]
"""How a value is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record.

    Attributes:
        label: For people.
        value: What the record says, as text; empty for a list.
        kind: How it is set.
        items: The members of a list.
        note: What it means, where the label does not say it.
        link: Path of a page about it, or empty.
    """

    label: str
    value: str = ""
    kind: Kind = "text"
    items: tuple[str, ...] = ()
    note: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Fields that belong together."""

    title: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A decision in a table.

    Attributes:
        record_id: The decision's id.
        leaf: Its leaf index.
        time_ms: The enforcer's clock.
        local: Weekday, hour and minute that the decision was made for, in the facts' zone; empty without facts.
        agent: Who called.
        server: Which server.
        called: Tool or prompt, or else the method; empty if the message named neither.
        effect: What the policy said.
        enforcement: What was done.
        observed: Made in observe mode: recorded, not enforced.
        why: The determining rules, or else the reason.
        by_rule: Whether ``why`` names rules.
    """

    record_id: str
    leaf: int
    time_ms: int
    local: str
    agent: str
    server: str
    called: str
    effect: str
    enforcement: str
    observed: bool
    why: tuple[str, ...]
    by_rule: bool


def local_time(facts: Facts) -> str:
    """Return the local time of a decision, such as ``Wed 03:12 Europe/Zurich``."""
    day = WEEKDAYS[facts.weekday - 1][:3]
    return f"{day} {facts.local_hour:02}:{facts.local_minute:02} {facts.zone}"


def decision_row(index: int, record: Record, body: Decision) -> Row:
    """Return the row of a decision."""
    return Row(
        record_id=record.record_id,
        leaf=index,
        time_ms=record.time_ms,
        local=local_time(body.facts) if body.facts else "",
        agent=body.agent,
        server=body.server,
        called=body.tool or body.method or "",
        effect=body.decision,
        enforcement=body.enforcement,
        observed=body.mode == "observe",
        why=body.rules or (body.reason,),
        by_rule=bool(body.rules),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeView:
    """An outcome of a decision.

    Attributes:
        leaf: Leaf index.
        time_ms: The enforcer's clock.
        status: How the call ended.
        fields: Every field of the outcome.
        record: Every field of its record.
    """

    leaf: int
    time_ms: int
    status: str
    fields: tuple[Field, ...]
    record: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionView:
    """All of a decision.

    Attributes:
        row: As in a table.
        session: The session's pseudonym.
        sections: Every field of the decision and of its record; the call and the decision come first.
        outcomes: What became of the call; there should be at most one.
        outcome_due: A permitted call has an outcome sooner or later; a denied one has none.
    """

    row: Row
    session: str
    sections: tuple[Section, ...]
    outcomes: tuple[OutcomeView, ...]
    outcome_due: bool


def _text(label: str, value: object | None, *, note: str = "", link: str = "", code: bool = False) -> Iterator[Field]:
    if value is not None:
        yield Field(label=label, value=str(value), kind="code" if code else "text", note=note, link=link)


def _flag(label: str, value: bool) -> Iterator[Field]:  # noqa: FBT001  # a record's own flag
    yield Field(label=label, value="yes" if value else "no")


def _list(label: str, values: Sequence[str]) -> Iterator[Field]:
    if values:
        yield Field(label=label, kind="list", items=tuple(values))


def _pseudonym(label: str, value: str | None, *, link: str = "") -> Iterator[Field]:
    if value is not None:
        yield Field(label=label, value=value, kind="pseudonym", link=link)


def _vaulted(label: str, commitment: Commitment | None) -> Iterator[Field]:
    if commitment is not None:
        note = f"{size(commitment.size_bytes)} in the vault"
        yield Field(label=label, value=commitment.digest, kind="vaulted", note=note)


def _call(body: Decision) -> Iterator[Field]:
    yield from _text("Agent", body.agent)
    yield from _text("Server", body.server)
    yield from _text("MCP method", body.method)
    yield from _text("Tool or prompt", body.tool)
    yield from _list("Tags", body.tags)
    yield from _text("Tool definition, SHA-256", body.tool_digest, code=True)
    yield from _text("Protocol version", body.protocol_version)
    yield from _text("Transport", body.transport)
    yield from _text("Sent by the", body.direction)
    yield from _text("Part of the call that began with", body.continues, code=True)
    yield from _text("Trace id", body.trace_id, code=True)


def _judgement(body: Decision) -> Iterator[Field]:
    yield from _text("Policy decision", body.decision)
    yield from _text("Enforcement", body.enforcement)
    mode_note = "decided and recorded, not enforced" if body.mode == "observe" else ""
    yield from _text("Mode", body.mode, note=mode_note)
    yield from _text("Asked for over", body.interface, note="what the caller did with the answer is not known here")
    yield from _text("Reason", body.reason)
    yield from _list("Determining rules", body.rules)
    yield from _text("First condition against it", body.failed_condition)
    yield from _list("Obligations", body.obligations)
    yield from _list("Outside the tool's description", body.drift)
    yield from _inspection("message", body.inspection)
    yield from _text("Tool definition is", body.tool_state)
    yield from _list("Unusual for this agent", body.deviations)
    yield from _text("Stopped before any policy by", body.restriction, code=True)
    yield from _text("Evaluation", f"{number(body.evaluation_us)} µs")


def _inspection(what: str, found: Inspection | None) -> Iterator[Field]:
    if found is None:
        return
    yield from _text(f"Inspection of the {what}", found.extent)
    yield from _list(f"Found in the {what}", found.findings)
    yield from _text(f"Places found in the {what}", number(found.count))
    yield from _text(f"Rules that the {what} was inspected by", found.inspector, code=True)


def _bundle(bundle: BundleReference) -> Iterator[Field]:
    yield from _text("Bundle", bundle.name)
    yield from _text("Revision", bundle.revision, code=True)
    yield from _text("Engine", f"{bundle.engine} {bundle.engine_version}")


def _facts(facts: Facts) -> Iterator[Field]:
    minute = f"{facts.local_hour:02}:{facts.local_minute:02}"
    yield from _text("Local time", f"{WEEKDAYS[facts.weekday - 1]} {minute}")
    yield from _text("Time zone", facts.zone)
    yield from _text("Authentication", facts.authn)
    yield from _flag("Second factor", facts.mfa)
    yield from _list("Roles", facts.roles)
    yield from _text("Network", facts.network)
    yield from _text("Calls before this one", number(facts.session_calls), note="of the same session")
    yield from _text("TLS of the client's connection", facts.tls_version)
    yield from _text("Key agreement", facts.tls_group)


def _people(body: Decision, key_id: str | None) -> Iterator[Field]:
    yield from _pseudonym("Session", body.session, link=f"/sessions/{body.session}")
    yield from _pseudonym("User", body.user)
    yield from _pseudonym("Client address", body.address)
    yield from _pseudonym("Arguments, keyed fingerprint", body.arguments_fingerprint)
    yield from _text("Pseudonym key", key_id, code=True)


def _vault(body: Decision) -> Iterator[Field]:
    yield from _vaulted("Message as received" if body.capture is None else "Message as captured", body.message)
    yield from _vaulted("Request that was judged", body.request)
    yield from _vaulted("Request that was judged, masked", body.masked_request)
    yield from _text("Captured", body.capture, note="of message and request")
    yield from _text("Captured less than configured", body.capture_reason)


def _envelope(record: Record) -> Iterator[Field]:
    yield from _text("Record id", record.record_id, code=True)
    yield from _text("Log", record.log_id)
    yield from _text("Tenant", record.tenant)
    yield from _text("Environment", record.environment)
    yield from _text("Enforcer", record.enforcer_id)
    yield from _text("Epoch", record.epoch, code=True)
    yield from _text("Number in the epoch", number(record.seq))
    yield from _text("Decisions of the epoch so far", number(record.running_count))
    yield from _text("Enforcer's clock", record.time_ms, note="milliseconds since 1970, UTC")
    yield from _flag("Simulated", record.simulated)
    yield from _text("Schema version", record.schema_version)
    yield from _text("Enforcer's signature", record.signature, code=True, note="Ed25519, base64")
    yield from _text("Leaf hash", leaf_hash(record).hex(), code=True, note="SHA-256, RFC 6962")


def _sections(index: int, record: Record, body: Decision) -> Iterator[Section]:
    parts: Mapping[str, tuple[Field, ...]] = {
        "The call": tuple(_call(body)),
        "The decision": tuple(_judgement(body)),
        "Policy bundle": tuple(_bundle(body.bundle)) if body.bundle else (),
        "Facts that it was made on": tuple(_facts(body.facts)) if body.facts else (),
        "Pseudonyms": tuple(_people(body, record.pseudonym_key_id)),
        "Vaulted": tuple(_vault(body)),
        "The record in the log": (*_text("Leaf index", index), *_envelope(record)),
    }
    for title, fields in parts.items():
        yield Section(title=title, fields=fields)


def outcome_view(index: int, record: Record, body: Outcome) -> OutcomeView:
    """Return an outcome with every field."""
    fields = (
        *_text("Reason", body.reason),
        *_text("Latency", f"{number(body.latency_us)} µs"),
        *_text("HTTP status", body.http_status),
        *_text("Key agreement with the server", body.tls_group),
        *_text("JSON-RPC error", body.error_code),
        *_flag("The tool reported an error", body.tool_error),
        *(_text("Entries not shown", number(body.hidden)) if body.hidden else ()),
        *_inspection("answer", body.inspection),
        *(_text("Places redacted for the client", number(body.redacted)) if body.redacted else ()),
        *(_text("Messages that passed", number(body.messages)) if body.messages else ()),
        *_vaulted("Answer as received" if body.capture is None else "Answer as captured", body.result),
        *_text("Captured", body.capture, note="of the answer"),
        *_text("Captured less than configured", body.capture_reason),
        *_pseudonym("Answer, keyed fingerprint", body.result_fingerprint),
        *(field for one in body.contents for field in _pseudonym("Content, keyed fingerprint", one)),
        *(_text("Contents without fingerprint", number(body.contents_left_out)) if body.contents_left_out else ()),
        *_pseudonym("Session", body.session),
        *_pseudonym("User", body.user),
    )
    whole = (*_text("Leaf index", index), *_envelope(record))
    return OutcomeView(leaf=index, time_ms=record.time_ms, status=body.status, fields=fields, record=whole)


def decision_view(
    index: int, record: Record, body: Decision, outcomes: Sequence[tuple[int, Record, Outcome]]
) -> DecisionView:
    """Return all of a decision, with what became of the call."""
    return DecisionView(
        row=decision_row(index, record, body),
        session=body.session,
        sections=tuple(_sections(index, record, body)),
        outcomes=tuple(outcome_view(*outcome) for outcome in outcomes),
        outcome_due=body.enforcement in ("allow", "ask") or bool(outcomes),
    )
