"""What records say: the body of each type.

Pure. The field types are in `body_fields`; the envelope, its codec and its signature in `records`. Version 1 of a type
is frozen with its first release; a type that comes later is a new tag beside the others, and a reader that does not
know the tag refuses the entry.

Each field is declared *public*, *pseudonymous* or *vaulted* (architecture.md, invariant 6). Vaulted fields appear as a
`Commitment`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from ledger.bodies_discovery import DiscoveryEvent
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.bodies_inspection import Inspection, ToolState
from ledger.bodies_inventory import InventoryEvent
from ledger.bodies_tools import ToolEvent
from ledger.body_fields import (
    PUBLIC,
    Base64,
    Capture,
    Commitment,
    Count,
    Effect,
    Enforcement,
    Flag,
    Hex8,
    Hex16,
    Hex32,
    Hour,
    Minute,
    Mode,
    Name,
    Names,
    Ordinal,
    OutcomeStatus,
    Pseudonym,
    SignedCount,
    Struct,
    Uuid,
    Weekday,
    Zone,
)

__all__ = [
    "AccessEvent",
    "AccessScope",
    "Approval",
    "Body",
    "BundleEvent",
    "BundleReference",
    "Containment",
    "Decision",
    "Dropped",
    "ErasureEvent",
    "Facts",
    "Heartbeat",
    "HoldEvent",
    "KeyEvent",
    "ModeEvent",
    "OPADecision",
    "OPALoss",
    "Outcome",
    "RetentionEvent",
    "SessionEnd",
    "Shadow",
    "ShadowCount",
    "Succession",
    "Tombstone",
]


class BundleReference(Struct, frozen=True):
    """The policy bundle and engine that made a decision.

    Attributes:
        name: The bundle's name.
        revision: Its digest, 32 bytes in hexadecimal.
        engine: Engine name, such as ``cedar``.
        engine_version: Exact version of the engine's package.
    """

    name: Name
    revision: Hex32
    engine: Name
    engine_version: Name


class Facts(Struct, frozen=True):
    """The facts of a decision that may stand in the open; all facts, these included, are in the vaulted request.

    Attributes:
        authn: How the principal proved who it is, such as ``api_token``; ``none`` if it did not.
        mfa: Whether a second factor was part of it.
        roles: The principal's roles.
        zone: IANA time zone in which the hour is meant.
        local_hour: 0 to 23 in that zone.
        local_minute: 0 to 59.
        weekday: 1 (Monday) to 7, ISO 8601.
        network: Label of the network that the client's address belongs to.
        session_calls: Calls of this session before this one.
        tls_version: TLS version of the client's connection, such as ``TLSv1.3``; absent without TLS.
        tls_group: Key agreement of the client's connection, such as ``X25519MLKEM768``; ``unknown`` if who terminated
            TLS did not say.
    """

    authn: Name
    zone: Zone
    local_hour: Hour
    local_minute: Minute
    weekday: Weekday
    network: Name
    session_calls: Count
    mfa: Flag = False
    roles: Names = ()
    tls_version: Name | None = None
    tls_group: Name | None = None


class Decision(Struct, frozen=True, tag_field="type", tag="decision"):
    """What the policy said about one MCP message, and what the enforcement point did.

    Attributes:
        agent: The calling agent; ``unauthenticated`` if it could not prove who it is.
        server: Name of the MCP server behind the gateway.
        method: MCP method; absent if the message could not be read or the method is not a name.
        tool: Tool or prompt name, if the message names one and it is a name.
        tool_digest: SHA-256 over the canonical definition of the tool, as the gateway last saw it listed.
        protocol_version: MCP revision of the message, such as ``2026-07-28``.
        decision: The policy's answer.
        enforcement: What was done: allow, deny, ask (a person must agree), kill (deny and end the session).
        mode: ``observe``: the decision was made and recorded but not enforced.
        reason: Machine-readable cause: ``policy``, ``no_permit``, ``malformed``, ``header_mismatch``, …
        bundle: Absent if no bundle could be consulted.
        rules: Names of the determining rules, sorted.
        failed_condition: Name of the first rule or condition that stood against the call.
        obligations: What the enforcement point had to fulfil, sorted.
        evaluation_us: Time the evaluation took, in microseconds.
        facts: Absent if the message was refused before facts were gathered.
        session: The gateway's own session.
        user: The person on whose behalf the agent acts.
        address: The client's network address.
        message: The message's bytes as received.
        request: The `DecisionRequest`, canonical JSON; what replay evaluates. Absent if none could be built.
        arguments_fingerprint: Keyed fingerprint of the arguments as received.
        tags: Tags of the server and tool, sorted.
        trace_id: W3C trace id of the request.
        drift: Codes of what of the call lies outside the bundle's boundaries, sorted.
        interface: How an enforcement point that is not ours asked the service for the decision, such as ``authzen``;
            ``enforcement`` is then what it was told, and whether it did so is not known here. Absent otherwise.
        transport: How the message reached our enforcement point: ``asgi`` (in front of an application in the same
            process), ``stdio`` (a wrapped process), ``sdk`` (middleware inside the server). Absent for HTTP.
        continues: The first decision of the call that this message is a part of: a further round of it, or a question
            that the server put in answer to it; for a question of an enforcement point that is not ours, the one that
            was denied and that people have agreed to since. Absent for what begins a call.
        direction: ``server`` if the MCP server sent the message, to this agent; absent if the agent did.
        restriction: What stood against the call before any policy: the id of a `Containment`, or the record id of the
            decision that ended a session.
        capture: What went into the vault of the message and of what was asked: ``redacted`` or ``digest``; absent if
            all of it did (`enforcement.capture`).
        capture_reason: Why it is less than was configured: ``oversize`` or ``unreadable``.
        masked_request: The `DecisionRequest` with what was withheld masked, in place of ``request``: it can be read,
            and not replayed.
        inspection: What inspection found in the message; absent if nothing was inspected.
        tool_state: What was known of the tool's definition; absent if nobody looks after it.
        deviations: In what the call is unusual for the agent, sorted.
    """

    agent: Name
    server: Name
    decision: Effect
    enforcement: Enforcement
    mode: Mode
    reason: Name
    evaluation_us: Count
    session: Pseudonym
    message: Commitment
    method: Name | None = None
    tool: Name | None = None
    tool_digest: Hex32 | None = None
    protocol_version: Name | None = None
    bundle: BundleReference | None = None
    rules: Names = ()
    failed_condition: Name | None = None
    obligations: Names = ()
    facts: Facts | None = None
    user: Pseudonym | None = None
    address: Pseudonym | None = None
    request: Commitment | None = None
    arguments_fingerprint: Pseudonym | None = None
    tags: Names = ()
    trace_id: Hex16 | None = None
    drift: Names = ()
    interface: Name | None = None
    transport: Name | None = None
    continues: Uuid | None = None
    direction: Annotated[Literal["server"] | None, msgspec.Meta(extra=PUBLIC)] = None
    restriction: Uuid | None = None
    capture: Capture | None = None
    capture_reason: Name | None = None
    masked_request: Commitment | None = None
    inspection: Inspection | None = None
    tool_state: ToolState = None
    deviations: Names = ()


class Outcome(Struct, frozen=True, tag_field="type", tag="outcome"):
    """What became of a permitted call; exactly one for each permitted decision.

    Attributes:
        decision_id: Record id of the decision.
        status: completed, failed, cancelled, not_forwarded (it never went upstream), unknown (found at restart).
        reason: Why it was not forwarded, failed or was cancelled.
        latency_us: From forwarding to the last byte of the answer, in microseconds.
        http_status: The upstream's HTTP status.
        error_code: JSON-RPC error code of the answer.
        tool_error: The tool itself reported an error (``isError``).
        session: As in the decision.
        user: As in the decision.
        result: The answer's bytes as received.
        result_fingerprint: Keyed fingerprint of the answer's ``result`` member.
        hidden: Entries of a list that the client was not shown; of an observed server, that it would not have been.
        tls_group: Key agreement of the connection to the server, such as ``X25519MLKEM768``; absent without TLS.
        messages: For notifications of a server, how many of one kind passed in one stream under the one decision.
        capture: What of the answer went into the vault: ``redacted`` or ``digest``; absent if all of it did.
        capture_reason: Why it is less than was configured: ``oversize`` or ``unreadable``.
        contents: Keyed fingerprints of what the answer holds: each text, document and value apart, each once, sorted
            (`ledger.contents`).
        contents_left_out: How many of these have no fingerprint here: there were too many, or they cannot be read in
            one way. What cannot be read at all counts as one.
        inspection: What inspection found in the answer; absent if nothing was inspected.
        redacted: Places of the answer in which the client got something else than the server sent.
    """

    decision_id: Uuid
    status: OutcomeStatus
    session: Pseudonym
    reason: Name | None = None
    latency_us: Count = 0
    http_status: Count | None = None
    error_code: SignedCount | None = None
    tool_error: Flag = False
    user: Pseudonym | None = None
    result: Commitment | None = None
    result_fingerprint: Pseudonym | None = None
    hidden: Count = 0
    tls_group: Name | None = None
    messages: Count = 0
    capture: Capture | None = None
    capture_reason: Name | None = None
    contents: Annotated[tuple[Pseudonym, ...], msgspec.Meta(max_length=64)] = ()
    contents_left_out: Count = 0
    inspection: Inspection | None = None
    redacted: Count = 0


class BundleEvent(Struct, frozen=True, tag_field="type", tag="bundle"):
    """A step in the life of a policy bundle.

    Attributes:
        action: The step.
        name: Bundle name.
        revision: Bundle digest.
        engine: Engine that the bundle is written for.
        actor: Who did it.
        actor_role: Role under which it was done.
        previous_revision: What was active before, for an activation or rollback.
        comment: Free text of the actor.
        verdict: Of a review.
        also: Of a review: what the actor is called under earlier pseudonym keys, where the publication names its author
            under one of them.
        engine_version: Of a test: exact version of the engine.
        cases: Of a test: how many of the bundle's cases were run.
        failures: Of a test: those of them that failed.
        uncovered_rules: Of a test: how many rules no case reached.
        uncovered: The first of these by name.
        unreviewed: The bundle became active though no second person had approved that: the service allows it.
        replayed: Of a rollback: how many denials of the last 24 hours were replayed under the bundle that it leads to.
        loosened: Those of them that it would have permitted.
        unknown: Those of them that could not be replayed.
        signature: Of a signing: SHA-256 over the DSSE envelope.
        signers: Key ids that have signed, in order.
        source: Of a publication: where its author says that the bundle is from, such as ``git:`` and a commit id.
    """

    action: Annotated[
        Literal[
            "published",
            "tested",
            "signed",
            "reviewed",
            "activated",
            "rolled_back",
            "retired",
            "canary_started",
            "canary_ended",
        ],
        msgspec.Meta(extra=PUBLIC),
    ]
    name: Name
    revision: Hex32
    engine: Name
    actor: Pseudonym
    actor_role: Name
    previous_revision: Hex32 | None = None
    comment: Commitment | None = None
    verdict: Annotated[Literal["approved", "rejected"] | None, msgspec.Meta(extra=PUBLIC)] = None
    also: Annotated[tuple[Pseudonym, ...], msgspec.Meta(max_length=64)] = ()
    engine_version: Name | None = None
    cases: Count = 0
    failures: Count = 0
    uncovered_rules: Count = 0
    uncovered: Names = ()
    unreviewed: Flag = False
    replayed: Count = 0
    loosened: Count = 0
    unknown: Count = 0
    signature: Hex32 | None = None
    signers: Names = ()
    source: Name | None = None


class KeyEvent(Struct, frozen=True, tag_field="type", tag="key"):
    """A step in the life of a key.

    Attributes:
        action: created, retired, or compromised.
        purpose: What the key is for.
        algorithm: ``ed25519``, ``ml-dsa-44``, ``hmac-sha256`` or ``xchacha20-poly1305``.
        subject: Who holds it: the log's origin, the pack signer's name, an enforcer id.
        key_id: Public id of the key.
        public_key: Raw public key, base64; absent for a symmetric key.
        first_size: The key is valid from this tree size on.
        last_size: The key is valid up to this tree size.
    """

    action: Annotated[Literal["created", "retired", "compromised"], msgspec.Meta(extra=PUBLIC)]
    purpose: Annotated[Literal["log", "pack", "enforcer", "vault", "pseudonym"], msgspec.Meta(extra=PUBLIC)]
    algorithm: Name
    subject: Name
    key_id: Name
    public_key: Base64 | None = None
    first_size: Count = 0
    last_size: Count | None = None


class Heartbeat(Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """An enforcer says that it lives, and up to when its stream is known to be complete: the envelope's time.

    Attributes:
        kind: ``start`` opens an epoch or a process, ``stop`` closes it in order.
        version: The enforcer's software version.
        spool_depth: Records not yet acknowledged by the ledger.
        previous_epoch: For the first heartbeat of an epoch, the one before, if known.
        bundle_revision: The bundle in force at the enforcer.
        clock_offset_ms: Measured offset to the ledger's clock, positive if the enforcer is ahead.
        clock_bound_ms: The offset is true to within so much.
        contact_ms: While it lives, the service hears of it at least this often.
        spool_bytes: Bytes that wait for the ledger.
        oldest_ms: For how long the oldest record that waits has done so.
        set_aside: Records that the ledger refused, and that are kept aside.
        enforced: Servers, and tools with a mode of their own, whose decisions are enforced.
        observed: Those whose decisions are not.
        bundle_age_ms: How long ago the service confirmed the bundle.
        signed_bundles: The enforcer takes up no bundle but a signed one.
        config_fingerprint: Keyed fingerprint of what gateways of one fleet have in common of their configuration.
        restrictions_version: Version of the set of restrictions in force at the enforcer; None before the first.
    """

    kind: Annotated[Literal["start", "periodic", "stop"], msgspec.Meta(extra=PUBLIC)]
    version: Name
    spool_depth: Count
    previous_epoch: Hex16 | None = None
    bundle_revision: Hex32 | None = None
    clock_offset_ms: SignedCount | None = None
    clock_bound_ms: Count | None = None
    contact_ms: Count | None = None
    spool_bytes: Count = 0
    oldest_ms: Count | None = None
    set_aside: Count = 0
    enforced: Count = 0
    observed: Count = 0
    bundle_age_ms: Count | None = None
    signed_bundles: Flag = False
    config_fingerprint: Hex16 | None = None
    restrictions_version: Count | None = None


class Dropped(Struct, frozen=True, tag_field="type", tag="dropped"):
    """An enforcer declares that records were lost; loss is itself a record.

    Attributes:
        first_seq: First sequence number lost.
        last_seq: Last sequence number lost.
        decisions: Decisions among them.
        reason: Why.
    """

    first_seq: Ordinal
    last_seq: Ordinal
    decisions: Count
    reason: Name


class SessionEnd(Struct, frozen=True, tag_field="type", tag="session_end"):
    """A session is over, and so many calls it had: with it, what the log holds of the session can be counted.

    Attributes:
        session: As in its decisions.
        calls: Calls that the enforcer counted in it; each has one decision.
        denied: Calls among them that were not let through.
        reason: ``client`` (it said so), ``idle`` (it was silent for too long), ``killed`` (a decision ended it), or
            ``shutdown`` (the enforcer ended, and the session with it).
        agent: The calling agent.
        started_ms: The enforcer's clock at the first call, POSIX milliseconds.
        user: As in its decisions.
    """

    session: Pseudonym
    calls: Count
    denied: Count
    reason: Annotated[Literal["client", "idle", "killed", "shutdown"], msgspec.Meta(extra=PUBLIC)]
    agent: Name
    started_ms: Count
    user: Pseudonym | None = None


class ModeEvent(Struct, frozen=True, tag_field="type", tag="mode"):
    """A step in a change of what is enforced, and what only observed.

    A server or tool that was enforced is observed only after somebody has proposed it and somebody else has approved
    it. Any other change is taken up at once and reviewed afterwards.

    Attributes:
        change_id: One id for the steps of one change.
        action: The step; ``in_force`` is written by the enforcer that took it up.
        server: Which server.
        mode: What it is to be, or is.
        tool: Which of its tools; absent if the server itself is meant. What is no name is given by its digest.
        previous: What it was, where an enforcer took it up and knew it before.
        enforcer: At which enforcer, in a proposal; absent for all.
        expires_ms: Of a proposal: POSIX milliseconds after which no enforcer takes it up.
        actor: Who did it; absent where an enforcer took it up.
        actor_role: Under which role.
        reason: Free text of the actor.
    """

    change_id: Uuid
    action: Annotated[Literal["proposed", "approved", "rejected", "in_force", "reviewed"], msgspec.Meta(extra=PUBLIC)]
    server: Name
    mode: Mode
    tool: Name | None = None
    previous: Mode | None = None
    enforcer: Name | None = None
    expires_ms: Count = 0
    actor: Pseudonym | None = None
    actor_role: Name | None = None
    reason: Commitment | None = None


class Approval(Struct, frozen=True, tag_field="type", tag="approval"):
    """A step in the approval of a held call; which ones count, and what follows from them, is in `ledger.approvals`.

    The gateway writes what happens to the call (held, used, expired, cancelled, refused), the service what people do
    about it (seen, granted, denied, refused); neither can write the other's. What another's enforcement point requests
    is held by the service itself.

    Attributes:
        approval_id: One id for the steps of one approval.
        decision_id: The held decision.
        action: The step: held; seen (its exact parameters were opened); granted and denied, by one person each; used
            (approved, checked again, and about to be forwarded); expired; cancelled (its client withdrew it or went
            away, or the gateway stopped); refused (somebody tried a way round).
        binding: Digest of what is approved, and of nothing else (`ledger.approvals.binding_of`). It goes over the
            salted commitment to the message, never over its plaintext.
        expires_ms: Of a held call: POSIX milliseconds from which on nobody can approve it.
        needed: Of a held call: how many people must agree.
        roles: Of a held call: under which roles they may.
        cause: Of a held call: ``policy`` asked for it, or the tool is ``irreversible``.
        reason: Of what is cancelled or refused: machine-readable.
        actor: Who did it; absent where the gateway did. Of what the service holds: who requested it.
        actor_role: Under which role.
        comment: Free text of whoever granted or denied, or requested.
    """

    approval_id: Uuid
    decision_id: Uuid
    action: Annotated[
        Literal["held", "seen", "granted", "denied", "used", "expired", "cancelled", "refused"],
        msgspec.Meta(extra=PUBLIC),
    ]
    binding: Hex32
    expires_ms: Count = 0
    needed: Count = 0
    roles: Names = ()
    cause: Annotated[Literal["policy", "irreversible"] | None, msgspec.Meta(extra=PUBLIC)] = None
    reason: Name | None = None
    actor: Pseudonym | None = None
    actor_role: Name | None = None
    comment: Commitment | None = None


class Tombstone(Struct, frozen=True, tag_field="type", tag="tombstone"):
    """Keys and salts of a subject were destroyed; the leaves stay, their payloads are gone.

    Attributes:
        subject: Whose payloads.
        payloads: How many were made unreadable.
        reason: ``erasure``, ``expiry`` or another cause.
        actor: Who ordered it.
        basis: Free text: the request or rule.
    """

    subject: Pseudonym
    payloads: Count
    reason: Name
    actor: Pseudonym
    basis: Commitment | None = None


class Succession(Struct, frozen=True, tag_field="type", tag="succession"):
    """This log succeeds another whose keys are lost, and commits to the last checkpoint of that one.

    Attributes:
        origin: The other log's origin.
        size: Its last tree size.
        root: The root of that tree, 32 bytes in hexadecimal.
        checkpoint_sha256: SHA-256 of the whole last checkpoint, signatures included.
        reason: Why, such as ``key_lost``.
    """

    origin: Name
    size: Ordinal
    root: Hex32
    checkpoint_sha256: Hex32
    reason: Name


class AccessScope(Struct, frozen=True):
    """Which decisions an access was about, where they were not named one by one.

    Attributes:
        from_ms: Decisions from this time on, POSIX milliseconds.
        to_ms: And before this one.
        agent: Those of this agent.
        server: Those about this server.
        tool: Those about this tool.
        decision: Those in which policy said so.
        session: Those of this session.
    """

    from_ms: Count
    to_ms: Count
    agent: Name | None = None
    server: Name | None = None
    tool: Name | None = None
    decision: Effect | None = None
    session: Pseudonym | None = None


class AccessEvent(Struct, frozen=True, tag_field="type", tag="access"):
    """Somebody read, exported, replayed or changed something of the service.

    Attributes:
        action: What was done, such as ``open_payload``, ``query``, ``replay``, ``export_pack``, ``login``.
        actor: Who.
        actor_role: Under which role.
        target_kind: ``record``, ``session``, ``bundle``, ``pack``, ``log`` or another kind of thing.
        target_id: Its public id, if it has one.
        digest: SHA-256 of what was handed out, for an export.
        result: ``ok`` or a machine-readable refusal.
        items: How many items were handed out.
        purpose: Free text: why.
        scope: What was read, where it is a stretch of history.
    """

    action: Name
    actor: Pseudonym
    actor_role: Name
    target_kind: Name
    result: Name
    target_id: Name | None = None
    digest: Hex32 | None = None
    items: Count = 0
    purpose: Commitment | None = None
    scope: AccessScope | None = None


class ErasureEvent(Struct, frozen=True, tag_field="type", tag="erasure"):
    """Somebody ordered that a subject's payloads be made unreadable; the tombstone that follows says that they are.

    Recorded before a key is destroyed: whatever interrupts an erasure, the log says what was to be destroyed, and it is
    destroyed again from any backup of the keys.

    Attributes:
        subject: Whose payloads.
        key_ids: Ids of the subject's keys that are to be destroyed; none if the subject had none.
        actor: Who ordered it.
        actor_role: Under which role.
        basis: Free text: the request or rule. It outlives the subject's keys, and must not name the subject.
    """

    subject: Pseudonym
    actor: Pseudonym
    actor_role: Name
    basis: Commitment
    key_ids: Annotated[tuple[Hex8, ...], msgspec.Meta(max_length=64)] = ()


class HoldEvent(Struct, frozen=True, tag_field="type", tag="hold"):
    """A step in the life of a legal hold: what it covers is neither erased nor expires.

    Attributes:
        action: placed; release_requested by one person; released by another.
        hold_id: One id for the steps of one hold.
        actor: Who did it.
        actor_role: Under which role.
        subject: Payloads that concern this subject.
        also: Further pseudonyms of that subject, by earlier keys.
        session: Payloads of this session.
        from_ms: Payloads of records from this time on, POSIX milliseconds.
        to_ms: And before this one.
        reason: Free text: the matter.
    """

    action: Annotated[Literal["placed", "release_requested", "released"], msgspec.Meta(extra=PUBLIC)]
    hold_id: Uuid
    actor: Pseudonym
    actor_role: Name
    subject: Pseudonym | None = None
    also: Annotated[tuple[Pseudonym, ...], msgspec.Meta(max_length=64)] = ()
    session: Pseudonym | None = None
    from_ms: Count | None = None
    to_ms: Count | None = None
    reason: Commitment | None = None


class RetentionEvent(Struct, frozen=True, tag_field="type", tag="retention"):
    """A step in how long things are kept.

    Attributes:
        action: policy (it is in force from here on), expired (payloads of one type and day), pruned (the log's front).
        actor: Who did it; for what happens by itself, the service.
        actor_role: Under which role.
        policy: SHA-256 over the policy's canonical JSON.
        classes: The policy, one class a name: ``vault:decision:90d``.
        record_type: Whose payloads expired.
        day: UTC day of their records, such as ``2026-10-05``.
        held: Those that a legal hold had kept beyond their time.
        key_ids: Ids of the keys that are to be destroyed.
        payloads: How many became unreadable.
        below: Entries under this leaf index are no longer served.
    """

    action: Annotated[Literal["policy", "expired", "pruned"], msgspec.Meta(extra=PUBLIC)]
    actor: Pseudonym
    actor_role: Name
    policy: Hex32 | None = None
    classes: Names = ()
    record_type: Name | None = None
    day: Name | None = None
    held: Flag = False
    key_ids: Annotated[tuple[Hex8, ...], msgspec.Meta(max_length=64)] = ()
    payloads: Count = 0
    below: Count | None = None


class OPADecision(Struct, frozen=True, tag_field="type", tag="opa_decision"):
    """One event of the decision log of somebody's OPA: its word, kept as it came; nothing of ours enforced it.

    Attributes:
        kind: taken; conflict (another event of this OPA has that decision id); unreadable (set aside as it is).
        client: Who handed it in.
        fingerprint: Keyed fingerprint of the event's values, by which it is known again.
        event: What the three payloads below leave of the event; the whole event where it is unreadable.
        replay: How far it could be replayed: ``exact``, ``masked`` (OPA withheld part of the input or of the recorded
            answers of non-deterministic builtins), or ``missing_fact`` (a bundle that was never published here decided,
            and no such answers came along, or there is no input).
        fault: Why it is unreadable.
        conflicts_with: Record id of the event that came first under its decision id.
        instance: The OPA's own id (``labels.id``).
        version: The OPA's version.
        opa_decision_id: The OPA's decision id.
        path: What was asked for, if that is a name.
        bundles: Names of the bundles that it had loaded, sorted; what is no name stands in ``event`` alone.
        bundle_revisions: Their revisions, sorted.
        answer: The result: literally ``true``, literally ``false``, any ``other`` value, or ``absent``.
        error: The evaluation failed.
        decided_ms: When it was decided, by the OPA's clock, POSIX milliseconds.
        evaluation_us: Time the evaluation took, in microseconds.
        request_number: Number of the request (``req_id``).
        trace_id: W3C trace id.
        erased: How many values OPA took out of the event.
        masked: How many it put another value for.
        withheld: Of which of the payloads below.
        user: For an input of our own form, the person on whose behalf the agent acts.
        session: For an input of our own form, its session.
        requested_by: The network address of whoever asked.
        input: The input, as received.
        result: The result, as received.
        nd_builtin_cache: Answers of non-deterministic builtins, as received.
    """

    kind: Annotated[Literal["taken", "conflict", "unreadable"], msgspec.Meta(extra=PUBLIC)]
    client: Pseudonym
    fingerprint: Pseudonym
    event: Commitment
    replay: Annotated[Literal["exact", "masked", "missing_fact"], msgspec.Meta(extra=PUBLIC)] | None = None
    fault: Name | None = None
    conflicts_with: Uuid | None = None
    instance: Name | None = None
    version: Name | None = None
    opa_decision_id: Name | None = None
    path: Name | None = None
    bundles: Names = ()
    bundle_revisions: Names = ()
    answer: Annotated[Literal["true", "false", "other", "absent"], msgspec.Meta(extra=PUBLIC)] | None = None
    error: Flag = False
    decided_ms: Count | None = None
    evaluation_us: Count = 0
    request_number: Count | None = None
    trace_id: Hex16 | None = None
    erased: Count = 0
    masked: Count = 0
    withheld: Names = ()
    user: Pseudonym | None = None
    session: Pseudonym | None = None
    requested_by: Pseudonym | None = None
    input: Commitment | None = None
    result: Commitment | None = None
    nd_builtin_cache: Commitment | None = None


class OPALoss(Struct, frozen=True, tag_field="type", tag="opa_loss"):
    """An OPA says that events of its decision log were lost before they could be handed in; counted since its start.

    Attributes:
        client: Who handed it in.
        instance: The OPA's own id.
        rate_limited: Events dropped because there were too many in a second.
        buffer_full: Events dropped because its buffer was full.
        not_encoded: Events that it could not encode.
        nd_caches: Events that it handed in without the recorded answers of non-deterministic builtins, for their size.
        version: The OPA's version.
    """

    client: Pseudonym
    instance: Name
    rate_limited: Count = 0
    buffer_full: Count = 0
    not_encoded: Count = 0
    nd_caches: Count = 0
    version: Name | None = None


class Shadow(Struct, frozen=True, tag_field="type", tag="shadow"):
    """A canary would have decided a call otherwise than the bundle in force did; nothing was done about it.

    Attributes:
        decision_id: Record id of the decision that counted.
        enforced: What it said.
        enforced_revision: The bundle that made it.
        bundle: The canary, and the engine that evaluated it.
        decision: What the canary said of the same request.
        reason: Machine-readable cause.
        differs: In which of the compared fields the two differ.
        rules: Names of the determining rules, sorted.
        failed_condition: Name of the first rule or condition that stood against the call.
        obligations: What the enforcement point would have had to fulfil, sorted.
        drift: Codes of what of the call lies outside the canary's boundaries, sorted.
    """

    decision_id: Uuid
    enforced: Effect
    enforced_revision: Hex32
    bundle: BundleReference
    decision: Effect
    reason: Name
    differs: Names
    rules: Names = ()
    failed_condition: Name | None = None
    obligations: Names = ()
    drift: Names = ()


class ShadowCount(Struct, frozen=True, tag_field="type", tag="shadow_count"):
    """What an enforcer has done with a canary since it last said so.

    Attributes:
        revision: The canary.
        equal: Decisions that it would have made as well.
        different: Those that it would have made otherwise; each has a `Shadow`, but for the unrecorded.
        incomparable: Those of which nobody can tell: a limit struck, an engine failed, or the canary asks for windows
            that were not measured.
        dropped: Those that were not evaluated, for too many waited.
        unrecorded: Different ones for which the spool had no room.
    """

    revision: Hex32
    equal: Count = 0
    different: Count = 0
    incomparable: Count = 0
    dropped: Count = 0
    unrecorded: Count = 0


class Containment(Struct, frozen=True, tag_field="type", tag="containment"):
    """A step in the life of a containment: what it names is stopped at every enforcement point. It permits nothing.

    A block that a kill left behind is released by the same steps; its id is the record id of the decision.

    Attributes:
        action: ordered by one person; release_requested by one person; released by another; expired (by itself);
            reviewed.
        containment_id: One id for the steps of one containment.
        actor: Who did it; for an expiry, the service.
        actor_role: Under which role.
        scope: Of an order: what is stopped.
        agent: Of an order: this agent.
        server: Of an order: this server, or the server of the tool.
        tool: Of an order: this tool.
        session: Of an order: this session.
        until_ms: Of an order: when it ends by itself, POSIX milliseconds.
        verdict: Of a review: whether it was right to order it.
        comment: Free text: why it was ordered, asked to be released, or what a review found.
    """

    action: Annotated[
        Literal["ordered", "release_requested", "released", "expired", "reviewed"], msgspec.Meta(extra=PUBLIC)
    ]
    containment_id: Uuid
    actor: Pseudonym
    actor_role: Name
    scope: Annotated[Literal["all", "agent", "session", "server", "tool"] | None, msgspec.Meta(extra=PUBLIC)] = None
    agent: Name | None = None
    server: Name | None = None
    tool: Name | None = None
    session: Pseudonym | None = None
    until_ms: Count | None = None
    verdict: Annotated[Literal["justified", "unfounded"] | None, msgspec.Meta(extra=PUBLIC)] = None
    comment: Commitment | None = None


Body: TypeAlias = (
    Decision
    | Outcome
    | BundleEvent
    | KeyEvent
    | Heartbeat
    | Dropped
    | SessionEnd
    | Approval
    | Tombstone
    | Succession
    | AccessEvent
    | ErasureEvent
    | HoldEvent
    | RetentionEvent
    | OPADecision
    | OPALoss
    | Shadow
    | ShadowCount
    | ModeEvent
    | Containment
    | InventoryEvent
    | ToolEvent
    | BaselineEvent
    | Drift
    | DiscoveryEvent
)
