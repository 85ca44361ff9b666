"""Record types with their schema version, and record ↔ entry bytes.

Pure. A *record* is the typed object; its canonical JSON (RFC 8785) is the *entry* that the log holds; the entry's hash
is the *leaf*. Version 1 of every type is frozen: test vectors pin its bytes, and later versions stand beside it.

A record is an envelope, the same for every type, around one body. Whoever writes records is an *enforcer*: a gateway
or the service itself. The envelope makes an enforcer's stream countable: `seq` numbers all its records of one
*epoch* from 1 without gaps, `running_count` counts the decisions among them, and an Ed25519 signature binds all of it.
An epoch is as long as the enforcer's memory: when its spool is lost, a new epoch begins.

The bodies and their fields are in `bodies`; each field is declared *public*, *pseudonymous* or *vaulted*.
`field_classes` reads the declarations, and refuses a field that has none.

An entry (line breaks are ours, and the signature is shortened)::

    {"body":{"kind":"start","spool_depth":0,"type":"heartbeat","version":"0.1.0"},"enforcer_id":"gateway-1",
     "environment":"production","epoch":"5f0c…","log_id":"acme","record_id":"0199…","running_count":0,
     "schema_version":1,"seq":1,"signature":"…","tenant":"acme","time_ms":1763546400000}

Fields that hold their default are left out; a canonical entry has exactly one spelling, and `decode_entry` refuses all
others.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Final, Literal, get_args, get_type_hints

import msgspec
import nacl.signing

from ledger.bodies import Body
from ledger.body_fields import (
    PUBLIC,
    Commitment,
    Count,
    FieldClass,
    Flag,
    Hex8,
    Hex16,
    LogId,
    Name,
    Ordinal,
    Struct,
    Uuid,
)
from ledger.errors import ConfigError, MalformedError
from ledger.merkle import LeafHash, hash_leaf
from ledger.notes import decode_base64, encode_base64
from ledger.signatures import verify_ed25519
from ledger.tiles import MAX_ENTRY_BYTES

__all__ = [
    "SCHEMA_VERSION",
    "Record",
    "commitments",
    "decode_entry",
    "derived_record_id",
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


class Record(Struct, frozen=True):
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

    schema_version: Annotated[Literal[1], msgspec.Meta(extra=PUBLIC)]
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
    signature: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{86}==\Z", extra=PUBLIC)]
    simulated: Flag = False
    pseudonym_key_id: Hex8 | None = None


_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder(Record)
_NO_SIGNATURE: Final = "A" * 86 + "=="
_NO_SIGNATURE_BYTES: Final = _NO_SIGNATURE.encode()
_SIGNATURE_MEMBER: Final = b',"signature":"'


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


def derived_record_id(label: bytes, *told: str) -> str:
    """Return a UUID version 8 that follows from what a record is for: the log takes one record of it, of any process.

    Args:
        label: What kind of thing it is for, ended by a newline; none is the beginning of another.
        told: What it is for, without newlines but in the last.

    Source: RFC 9562 section 5.8.
    """
    value = bytearray(hashlib.sha256(label + "\n".join(told).encode()).digest()[:16])
    value[6] = value[6] & 0x0F | 0x80
    value[8] = value[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(value)))


def signing_bytes(record: Record) -> bytes:
    """Return what an enforcer signs: a label and the entry with a signature of zero bytes in its place."""
    return _SIGNING_LABEL + _ENCODER.encode(msgspec.structs.replace(record, signature=_NO_SIGNATURE))


def _signing_bytes_of_entry(entry: bytes) -> bytes:
    """Return the signing bytes of a record by its entry, which `decode_entry` or `encode_record` gave."""
    # The last such member is the envelope's: members are sorted, and of those behind it none holds another object. No
    # string can look like it, for a quotation mark in a string is escaped.
    start = entry.rfind(_SIGNATURE_MEMBER) + len(_SIGNATURE_MEMBER)
    return b"".join((_SIGNING_LABEL, entry[:start], _NO_SIGNATURE_BYTES, entry[start + len(_NO_SIGNATURE) :]))


def sign_record(record: Record, key: nacl.signing.SigningKey) -> Record:
    """Return the record with its signature made by ``key``; a signature that it had is ignored."""
    signature = key.sign(signing_bytes(record)).signature
    return msgspec.structs.replace(record, signature=encode_base64(signature))


def verify_record_signature(record: Record, public_key: bytes, *, entry: bytes | None = None) -> None:
    """Check the enforcer's signature.

    Args:
        record: The record as decoded.
        public_key: The enforcer's Ed25519 key, 32 bytes.
        entry: Its entry bytes, for those who have them: what was signed is then cut out of them and not encoded anew.

    Raises:
        SignatureInvalidError: The signature is wrong.
        MalformedError: It is not canonical base64.
    """
    verify_ed25519(
        public_key,
        signing_bytes(record) if entry is None else _signing_bytes_of_entry(entry),
        decode_base64(record.signature),
        signer=f"the enforcer {record.enforcer_id} under record {record.record_id}",
    )


def commitments(record: Record) -> dict[str, Commitment]:
    """Return the commitments of a record's body by field name; these fields have payloads in the vault."""
    body = record.body
    values = ((name, getattr(body, name)) for name in _committing_fields(type(body)))
    return {name: value for name, value in values if value is not None}


@cache
def _committing_fields(body: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of a type of body that may hold a commitment."""
    hints = get_type_hints(body)
    return tuple(name for name in body.__struct_fields__ if Commitment in (hints[name], *get_args(hints[name])))


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
