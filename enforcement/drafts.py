"""From what is known of a message to the records that tell of it.

What is decided is `enforcement.pep`'s part; here it is only put into words, with commitments where the words would be
personal (`ledger.bodies` declares the classes). Salts are made here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import UNSET

from enforcement.capture import NAMED_METHODS, Captured, Capturing, captured, captured_request, capturing_of
from enforcement.config import ServerSettings
from enforcement.config_capture import Capture
from enforcement.facts import UNKNOWN, Pseudonyms
from enforcement.identity import Identity
from enforcement.mcp import Message, Refusal
from enforcement.rounds import OpenedRound
from enforcement.state import Change
from enforcement.tls_peer import TLSPeer
from enforcement.verdicts import CallTrace, Completion, Inbound, Permitted
from ledger import bodies, body_fields
from ledger.bodies_inspection import Inspection
from ledger.commitments import SALT_BYTES, fingerprint
from ledger.contents import NO_CONTENTS, contents_of
from ledger.ports import Draft, Opening, commit
from ledger.restrictions import Restriction
from policies.bundles import Bundle
from policies.evaluate import Evaluation
from policies.model import DecisionRequest, Environment, encode_request, public_facts
from policies.signals import Signals

__all__ = ["Case", "Ruling", "decision_draft", "inspection_of", "minimal_draft", "outcome_draft", "outcome_of"]

_UNAUTHENTICATED: Final = "unauthenticated"
_NO_ENGINE_VERSION: Final = "unavailable"


@dataclass(slots=True, kw_only=True)
class Case:
    """What is known of one message so far; filled step by step, so that a record can be written at every step.

    Attributes:
        decision_id: Record id of its decision.
        now_ms: When it was taken up.
        inbound: The message as received.
        place: Where it came from.
        message: As read, if it could be.
        refusal: Why it could not be.
        identity: Who sent it.
        session: The session's name.
        server: Where it is to go.
        request: What the policy is asked.
        bundle: Which policy is asked.
        evaluation: What it answered.
        tool_digest: Digest of the tool's definition as last listed.
        block: What ends the session, for a kill.
        restriction: What stands against it, whatever a policy says.
        recorded: Its decision is durable.
        continues: Record id of the first decision of the call that it is a part of.
        round: For a further round of a call, what it was known by.
        answered: For a client's answer, the server's request that it answers: its outcome is all that is recorded.
        off_job: In what it lies outside of declared jobs (`policies.job_profiles`).
        ruling: What was decided of it last.
        trace: Its spans, where calls are traced.
        strictest: How it is captured as long as nobody knows which server it is for.
    """

    decision_id: str
    now_ms: int
    inbound: Inbound
    place: Environment
    message: Message | None = None
    refusal: Refusal | None = None
    identity: Identity | None = None
    session: str | None = None
    server: ServerSettings | None = None
    request: DecisionRequest | None = None
    bundle: Bundle | None = None
    evaluation: Evaluation | None = None
    tool_digest: str | None = None
    block: Change | None = None
    restriction: Restriction | None = None
    recorded: bool = False
    continues: str | None = None
    round: OpenedRound | None = None
    answered: Permitted | None = None
    off_job: tuple[str, ...] = ()
    ruling: Ruling | None = None
    trace: CallTrace | None = None
    strictest: Capture = "full"

    @property
    def capturing(self) -> Capturing:
        """How much of it goes into the vault."""
        return capturing_of(self.server, self.message, strictest_known=self.strictest)

    @property
    def session_name(self) -> str:
        """The session's name; callers that are not known have one for each address."""
        return self.session if self.session is not None else f"{_UNAUTHENTICATED}/{self.place.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What was decided and what was done.

    Attributes:
        decision: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE.
        enforcement: allow, deny, ask or kill.
        reason: Machine-readable cause.
        observed: The decision was not enforced.
    """

    decision: body_fields.Effect
    enforcement: body_fields.Enforcement
    reason: str
    observed: bool = False


def _commit(name: str, payload: bytes) -> tuple[body_fields.Commitment, Opening]:
    return commit(name, secrets.token_bytes(SALT_BYTES), payload)


def _name(text: str | None) -> str | None:
    """Return what may stand in the open: a name; anything else stays in the vaulted message."""
    try:
        return None if text is None else msgspec.convert(text, body_fields.Name)
    except msgspec.ValidationError:
        return None


def decision_draft(case: Case, ruling: Ruling, pseudonyms: Pseudonyms) -> Draft:
    """Return the decision record of a message, with everything that is known of it."""
    read = case.message or case.refusal
    method = None if read is None else read.method
    request = case.request
    capturing = case.capturing
    taken = captured(capturing, case.inbound.body, pseudonyms.content, readable=case.message is not None)
    message, opening = _commit("message", taken.payload)
    openings = [opening]
    committed: dict[str, body_fields.Commitment] = {}
    if request is not None:
        name, payload = _asked(capturing, taken, request)
        committed[name], opening = _commit(name, payload)
        openings.append(opening)
    arguments = None if case.message is None else case.message.arguments
    answer = None if case.evaluation is None else case.evaluation.decision
    found = None if request is None or request.signals is UNSET else request.signals
    body = bodies.Decision(
        agent=_agent(case),
        server=_server(case),
        decision=ruling.decision,
        enforcement=ruling.enforcement,
        mode="observe" if ruling.observed else "enforce",
        reason=ruling.reason,
        evaluation_us=0 if case.evaluation is None else case.evaluation.duration_us,
        session=pseudonyms.session(case.session_name),
        message=message,
        method=_name(method),
        tool=_name(read.name) if read is not None and method in NAMED_METHODS else None,
        tool_digest=case.tool_digest,
        protocol_version=None if read is None else _name(read.protocol_version),
        bundle=_bundle(case),
        rules=() if answer is None else answer.rules,
        failed_condition=None if answer is None else answer.failed_condition,
        obligations=() if answer is None else answer.obligations,
        facts=None if request is None else _facts(request, case.inbound.tls),
        user=None if case.identity is None else pseudonyms.user(case.identity.user),
        address=pseudonyms.address(case.place.address),
        request=committed.get("request"),
        masked_request=committed.get("masked_request"),
        capture=taken.capture,
        capture_reason=taken.reason,
        arguments_fingerprint=pseudonyms.content(None if arguments is None else arguments.encode()),
        tags=() if request is None else request.resource.tags,
        trace_id=_trace_id(case),
        drift=() if answer is None else answer.drift,
        transport=_transport(case),
        continues=case.continues,
        direction=_direction(case),
        restriction=None if case.restriction is None else case.restriction.restriction_id,
        inspection=inspection_of(found),
        tool_state=None if found is None or found.tool_state == "none" else found.tool_state,
        deviations=() if found is None else found.deviations,
    )
    return Draft(body=body, openings=tuple(openings))


def minimal_draft(case: Case, pseudonyms: Pseudonyms) -> Draft:
    """Return the decision record of a message that the gateway failed on; it holds nothing that could fail again."""
    mode = case.capturing.mode
    strict = Capturing(mode="digest" if mode != "full" else mode)
    taken = captured(strict, case.inbound.body, pseudonyms.content, readable=False)
    message, opening = _commit("message", taken.payload)
    body = bodies.Decision(
        agent=_agent(case),
        server=_server(case),
        decision="INDETERMINATE",
        enforcement="deny",
        mode="enforce",
        reason="internal_error",
        evaluation_us=0,
        session=pseudonyms.session(case.session_name),
        message=message,
        transport=_transport(case),
        direction=_direction(case),
        capture=taken.capture,
        capture_reason="unreadable" if mode == "redacted" else taken.reason,
    )
    return Draft(body=body, openings=(opening,))


def outcome_draft(permitted: Permitted, completion: Completion, pseudonyms: Pseudonyms) -> Draft:
    """Return the outcome record of a permitted call."""
    result: body_fields.Commitment | None = None
    openings: tuple[Opening, ...] = ()
    taken: Captured | None = None
    if completion.answer is not None:
        capturing = capturing_of(permitted.server, permitted.message, strictest_known="digest")
        taken = captured(capturing, completion.answer, pseudonyms.content)
        result, opening = _commit("result", taken.payload)
        openings = (opening,)
    found = NO_CONTENTS if completion.result is None else contents_of(completion.result)
    body = bodies.Outcome(
        decision_id=permitted.decision_id,
        status=completion.status,
        session=permitted.session,
        reason=completion.reason,
        latency_us=completion.latency_us,
        http_status=completion.http_status,
        tls_group=_name(completion.tls_group),
        error_code=completion.error_code,
        tool_error=completion.tool_error,
        user=permitted.user,
        result=result,
        result_fingerprint=pseudonyms.content(completion.result),
        hidden=completion.hidden,
        messages=completion.messages,
        capture=None if taken is None else taken.capture,
        capture_reason=None if taken is None else taken.reason,
        contents=tuple(sorted(fingerprint(pseudonyms.key, digest) for digest in found.digests)),
        contents_left_out=found.left_out,
        inspection=inspection_of(completion.signals),
        redacted=completion.redacted,
    )
    return Draft(body=body, openings=openings)


def inspection_of(signals: Signals | None) -> Inspection | None:
    """Return what a record says of an inspection; None if there was none."""
    if signals is None or signals.inspected == "none":
        return None
    return Inspection(
        extent=signals.inspected,
        inspector=signals.inspector,
        findings=signals.findings,
        count=signals.finding_count,
    )


def outcome_of(case: Case, pseudonyms: Pseudonyms, reason: str) -> Draft:
    """Return the outcome record of a permitted call that does not go upstream."""
    body = bodies.Outcome(
        decision_id=case.decision_id,
        status="not_forwarded",
        session=pseudonyms.session(case.session_name),
        reason=reason,
        user=None if case.identity is None else pseudonyms.user(case.identity.user),
    )
    return Draft(body=body)


def _asked(capturing: Capturing, taken: Captured, request: DecisionRequest) -> tuple[str, bytes]:
    """Return what is recorded of what the policy was asked: in which field, and its payload."""
    if taken.capture is None:
        return "request", encode_request(request)
    return "masked_request", captured_request(capturing, request, taken.capture)


def _facts(request: DecisionRequest, tls: TLSPeer | None) -> bodies.Facts:
    facts = public_facts(request)
    if tls is None:
        return facts
    return msgspec.structs.replace(facts, tls_version=_name(tls.version), tls_group=_name(tls.group))


def _direction(case: Case) -> Literal["server"] | None:
    read = case.message or case.refusal
    return "server" if (case.inbound if read is None else read).direction == "server" else None


def _trace_id(case: Case) -> str | None:
    """Return the trace that a message belongs to: its sender's, or the one that began here."""
    if case.trace is not None and case.trace.trace_id is not None:
        return case.trace.trace_id
    read = case.message or case.refusal
    return None if read is None or read.trace is None else read.trace.trace_id


def _agent(case: Case) -> str:
    return _UNAUTHENTICATED if case.identity is None else case.identity.agent


def _server(case: Case) -> str:
    return UNKNOWN if case.server is None else case.server.name


def _transport(case: Case) -> str | None:
    return None if case.inbound.transport == "http" else case.inbound.transport


def _bundle(case: Case) -> bodies.BundleReference | None:
    bundle = case.bundle
    if bundle is None:
        return None
    answer = None if case.evaluation is None else case.evaluation.decision
    return bodies.BundleReference(
        name=bundle.manifest.name,
        revision=bundle.revision if answer is None else answer.bundle_revision,
        engine=bundle.manifest.engine if answer is None else answer.engine,
        engine_version=_NO_ENGINE_VERSION if answer is None else answer.engine_version,
    )
