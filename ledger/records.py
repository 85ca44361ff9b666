"""Record types with their schema version, and record ↔ entry bytes.

Pure. A *record* is the typed object; its canonical JSON (RFC 8785) is the *entry* that the log holds; the entry's hash
is the *leaf*. Version 1 of every type below is frozen: test vectors pin its bytes, and later versions stand beside it.

A record is an envelope, the same for every type, around one body. Whoever writes records is an *enforcer*: a gateway
or the service itself. The envelope makes an enforcer's stream countable: `seq` numbers all its records of one
*epoch* from 1 without gaps, `running_count` counts the decisions among them, and an Ed25519 signature binds all of it.
An epoch is as long as the enforcer's memory: when its spool is lost, a new epoch begins.

Each field is declared *public*, *pseudonymous* or *vaulted* (architecture.md, invariant 6). Vaulted fields appear as a
`Commitment`. `field_classes` reads the declarations, and refuses a field that has none.

An entry (line breaks are ours, and the signature is shortened)::

    {"body":{"kind":"start","spool_depth":0,"type":"heartbeat","version":"0.1.0"},"enforcer_id":"gateway-1",
     "environment":"production","epoch":"5f0c…","log_id":"acme","record_id":"0199…","running_count":0,
     "schema_version":1,"seq":1,"signature":"…","tenant":"acme","time_ms":1763546400000}

Fields that hold their default are left out; a canonical entry has exactly one spelling, and `decode_entry` refuses all
others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
import nacl.signing

from ledger.errors import ConfigError, MalformedError
from ledger.merkle import LeafHash, hash_leaf
from ledger.notes import decode_base64, encode_base64
from ledger.signatures import verify_ed25519
from ledger.tiles import MAX_ENTRY_BYTES

__all__ = [
    "SCHEMA_VERSION",
    "AccessEvent",
    "Approval",
    "Base64",
    "Body",
    "BundleEvent",
    "BundleReference",
    "Commitment",
    "Count",
    "Decision",
    "Dropped",
    "Effect",
    "Enforcement",
    "Facts",
    "FieldClass",
    "Flag",
    "Heartbeat",
    "Hex8",
    "Hex16",
    "Hex32",
    "Hour",
    "KeyEvent",
    "LogId",
    "Minute",
    "Mode",
    "Name",
    "Names",
    "Ordinal",
    "Outcome",
    "OutcomeStatus",
    "Pseudonym",
    "Record",
    "SignedCount",
    "Tombstone",
    "Uuid",
    "Weekday",
    "Zone",
    "commitments",
    "decode_entry",
    "encode_record",
    "field_classes",
    "leaf_hash",
    "new_record_id",
    "record_type",
    "sign_record",
    "signing_bytes",
    "verify_record_signature",
]

SCHEMA_VERSION: Final = 1
_SIGNING_LABEL: Final = b"tallystick/record/v1\n"

_PUBLIC: Final = {"field_class": "public"}
_PSEUDONYMOUS: Final = {"field_class": "pseudonymous"}
_VAULTED: Final = {"field_class": "vaulted"}

FieldClass: TypeAlias = Literal["public", "pseudonymous", "vaulted"]

# Patterns end in \Z, for $ would let a trailing line feed pass.
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}\Z", extra=_PUBLIC)]
LogId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z", extra=_PUBLIC)]
Uuid: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", extra=_PUBLIC)
]
Hex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", extra=_PUBLIC)]
Hex16: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z", extra=_PUBLIC)]
Hex8: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z", extra=_PUBLIC)]
Base64: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}\Z", min_length=4, max_length=8192, extra=_PUBLIC)
]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, extra=_PUBLIC)]
Ordinal: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1, extra=_PUBLIC)]
SignedCount: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**53 - 1), le=2**53 - 1, extra=_PUBLIC)]
Flag: TypeAlias = Annotated[bool, msgspec.Meta(extra=_PUBLIC)]
Hour: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=23, extra=_PUBLIC)]
Minute: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=59, extra=_PUBLIC)]
Weekday: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=7, extra=_PUBLIC)]
Zone: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_+/-]{1,64}\Z", extra=_PUBLIC)]
Names: TypeAlias = Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)]
Pseudonym: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z", extra=_PSEUDONYMOUS)]

Effect: TypeAlias = Annotated[Literal["PERMIT", "DENY", "INDETERMINATE", "NOT_APPLICABLE"], msgspec.Meta(extra=_PUBLIC)]
Enforcement: TypeAlias = Annotated[Literal["allow", "deny", "ask", "kill"], msgspec.Meta(extra=_PUBLIC)]
Mode: TypeAlias = Annotated[Literal["enforce", "observe"], msgspec.Meta(extra=_PUBLIC)]
OutcomeStatus: TypeAlias = Annotated[
    Literal["completed", "failed", "cancelled", "not_forwarded", "unknown"], msgspec.Meta(extra=_PUBLIC)
]


class _Struct(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, cache_hash=True
):
    """Common rules: immutable, keyword only, unknown members refused, defaults left out.

    INVARIANT: a default is None, False, 0 or (). msgspec tells a default by identity, so that any other would be
    written out or left out depending on where the value came from: two spellings of one record.
    """


class Commitment(_Struct, frozen=True):
    """A salted commitment to vaulted bytes; see `ledger.commitments`.

    Attributes:
        digest: 32 bytes in hexadecimal.
        size_bytes: Length of the payload.
    """

    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", extra=_VAULTED)]
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, extra=_PUBLIC)]


class BundleReference(_Struct, frozen=True):
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


class Facts(_Struct, frozen=True):
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


class Decision(_Struct, frozen=True, tag_field="type", tag="decision"):
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


class Outcome(_Struct, frozen=True, tag_field="type", tag="outcome"):
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


class BundleEvent(_Struct, frozen=True, tag_field="type", tag="bundle"):
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
    """

    action: Annotated[
        Literal["published", "tested", "reviewed", "activated", "rolled_back", "retired"], msgspec.Meta(extra=_PUBLIC)
    ]
    name: Name
    revision: Hex32
    engine: Name
    actor: Pseudonym
    actor_role: Name
    previous_revision: Hex32 | None = None
    comment: Commitment | None = None


class KeyEvent(_Struct, frozen=True, tag_field="type", tag="key"):
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

    action: Annotated[Literal["created", "retired", "compromised"], msgspec.Meta(extra=_PUBLIC)]
    purpose: Annotated[Literal["log", "pack", "enforcer", "vault", "pseudonym"], msgspec.Meta(extra=_PUBLIC)]
    algorithm: Name
    subject: Name
    key_id: Name
    public_key: Base64 | None = None
    first_size: Count = 0
    last_size: Count | None = None


class Heartbeat(_Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """An enforcer says that it lives, and up to when its stream is known to be complete: the envelope's time.

    Attributes:
        kind: ``start`` opens an epoch or a process, ``stop`` closes it in order.
        version: The enforcer's software version.
        spool_depth: Records not yet acknowledged by the ledger.
        previous_epoch: For the first heartbeat of an epoch, the one before, if known.
        bundle_revision: The bundle in force at the enforcer.
        clock_offset_ms: Measured offset to the ledger's clock, positive if the enforcer is ahead.
    """

    kind: Annotated[Literal["start", "periodic", "stop"], msgspec.Meta(extra=_PUBLIC)]
    version: Name
    spool_depth: Count
    previous_epoch: Hex16 | None = None
    bundle_revision: Hex32 | None = None
    clock_offset_ms: SignedCount | None = None


class Dropped(_Struct, frozen=True, tag_field="type", tag="dropped"):
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


class Approval(_Struct, frozen=True, tag_field="type", tag="approval"):
    """A step in the approval of a held call.

    Attributes:
        approval_id: One id for the steps of one approval.
        decision_id: The held decision.
        action: The step.
        actor: The approver; absent for an expiry.
        binding: Commitment to the canonical arguments, tool and bundle that were shown.
        expires_ms: POSIX milliseconds after which it counts no more.
        comment: Free text of the approver.
    """

    approval_id: Uuid
    decision_id: Uuid
    action: Annotated[
        Literal["requested", "approved", "denied", "expired", "used", "cancelled"], msgspec.Meta(extra=_PUBLIC)
    ]
    binding: Commitment
    expires_ms: Count
    actor: Pseudonym | None = None
    comment: Commitment | None = None


class Tombstone(_Struct, frozen=True, tag_field="type", tag="tombstone"):
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


class AccessEvent(_Struct, frozen=True, tag_field="type", tag="access"):
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


Body: TypeAlias = Decision | Outcome | BundleEvent | KeyEvent | Heartbeat | Dropped | Approval | Tombstone | AccessEvent


class Record(_Struct, frozen=True):
    """The envelope around a body.

    Attributes:
        schema_version: 1.
        record_id: UUID, chosen by the enforcer; for a decision this is the decision id.
        log_id: The log that the record is meant for.
        tenant: Whose it is.
        environment: Deployment, such as ``production``.
        enforcer_id: Who wrote it.
        epoch: 16 bytes in hexadecimal; new whenever the enforcer's spool is lost.
        seq: Number within the epoch, from 1, without gaps.
        running_count: Decisions of the epoch up to and including this record.
        time_ms: The enforcer's clock, POSIX milliseconds.
        body: What is recorded.
        signature: The enforcer's Ed25519 signature over `signing_bytes`, base64.
        simulated: Made with demonstration keys or a simulated clock; no evidence of anything real.
        pseudonym_key_id: Which key made the pseudonyms.
    """

    schema_version: Annotated[Literal[1], msgspec.Meta(extra=_PUBLIC)]
    record_id: Uuid
    log_id: LogId
    tenant: Name
    environment: Name
    enforcer_id: Name
    epoch: Hex16
    seq: Ordinal
    running_count: Count
    time_ms: Count
    body: Body
    signature: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{86}==\Z", extra=_PUBLIC)]
    simulated: Flag = False
    pseudonym_key_id: Hex8 | None = None


_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder(Record)
_NO_SIGNATURE: Final = "A" * 86 + "=="


def encode_record(record: Record) -> bytes:
    """Return a record's entry bytes: its RFC 8785 canonical JSON.

    Member names are ASCII, numbers are integers below 2**53, so that sorted msgspec output is the canonical form; a
    property test holds it equal to `canonical.canonical_bytes`.

    Raises:
        MalformedError: The entry would exceed 65,535 bytes.
    """
    entry = _ENCODER.encode(record)
    if len(entry) > MAX_ENTRY_BYTES:
        raise MalformedError(f"a record has at most {MAX_ENTRY_BYTES} bytes, not {len(entry)}")
    return entry


def decode_entry(entry: bytes) -> Record:
    """Read entry bytes; the inverse of `encode_record`.

    Raises:
        MalformedError: Not a record of a known type and version, or not in its one canonical spelling (another order of
            members, a duplicate, white space, a default written out).
    """
    try:
        record = _DECODER.decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not a record: {error}") from error
    if encode_record(record) != entry:
        raise MalformedError("an entry is not in canonical form")
    return record


def leaf_hash(record: Record) -> LeafHash:
    """Return the leaf hash of a record's entry."""
    return hash_leaf(encode_record(record))


def record_type(record: Record) -> str:
    """Return the record's type, such as ``decision`` or ``outcome``."""
    return str(record.body.__struct_config__.tag)


def new_record_id(time_ms: int, random: bytes) -> str:
    """Return a UUID version 7 made of a time and 10 random bytes.

    Raises:
        MalformedError: Not 10 random bytes, or a time that does not fit 48 bits.

    Source: RFC 9562 section 5.7.
    """
    if len(random) != 10 or not 0 <= time_ms < 1 << 48:  # noqa: PLR2004  # 80 bits of which 74 are used
        raise MalformedError("a record id needs a 48-bit time and 10 random bytes")
    bits = int.from_bytes(random, "big")
    value = time_ms << 80 | 0x7 << 76 | (bits >> 64 & 0xFFF) << 64 | 0b10 << 62 | (bits & (1 << 62) - 1)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def signing_bytes(record: Record) -> bytes:
    """Return what an enforcer signs: a label and the entry with a signature of zero bytes in its place."""
    return _SIGNING_LABEL + _ENCODER.encode(msgspec.structs.replace(record, signature=_NO_SIGNATURE))


def sign_record(record: Record, key: nacl.signing.SigningKey) -> Record:
    """Return the record with its signature made by ``key``; a signature that it had is ignored."""
    signature = key.sign(signing_bytes(record)).signature
    return msgspec.structs.replace(record, signature=encode_base64(signature))


def verify_record_signature(record: Record, public_key: bytes) -> None:
    """Check the enforcer's signature.

    Args:
        record: The record as decoded.
        public_key: The enforcer's Ed25519 key, 32 bytes.

    Raises:
        SignatureInvalidError: The signature is wrong.
        MalformedError: It is not canonical base64.
    """
    verify_ed25519(
        public_key,
        signing_bytes(record),
        decode_base64(record.signature),
        signer=f"the enforcer {record.enforcer_id} under record {record.record_id}",
    )


def commitments(record: Record) -> dict[str, Commitment]:
    """Return the commitments of a record's body by field name; these fields have payloads in the vault."""
    found = {}
    for name in record.body.__struct_fields__:
        value = getattr(record.body, name)
        if isinstance(value, Commitment):
            found[name] = value
    return found


def _walk(kind: msgspec.inspect.Type, path: str, declared: str | None) -> Iterator[tuple[str, str]]:
    if isinstance(kind, msgspec.inspect.Metadata):
        extra = kind.extra or {}
        yield from _walk(kind.type, path, extra.get("field_class", declared))
    elif isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            if not isinstance(option, msgspec.inspect.NoneType):
                yield from _walk(option, path, declared)
    elif isinstance(kind, msgspec.inspect.StructType):
        prefix = f"{path}.{kind.tag}" if kind.tag is not None else path
        for field in kind.fields:
            yield from _walk(field.type, f"{prefix}.{field.encode_name}".lstrip("."), None)
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        yield from _walk(kind.item_type, f"{path}[]", declared)
    elif declared is None:
        raise ConfigError(f"the record field {path} is declared neither public, pseudonymous nor vaulted")
    else:
        yield path, declared


def field_classes(struct: type[msgspec.Struct] = Record) -> dict[str, FieldClass]:
    """Return the declared class of every field, by path such as ``body.decision.user``.

    Raises:
        ConfigError: A field is declared neither public, pseudonymous nor vaulted.
    """
    classes: dict[str, FieldClass] = {}
    for path, declared in _walk(msgspec.inspect.type_info(struct), "", None):
        if declared not in ("public", "pseudonymous", "vaulted"):
            raise ConfigError(f"the record field {path} has the unknown class {declared!r}")
        classes[path] = declared  # type: ignore[assignment]  # checked on the line above
    return classes
