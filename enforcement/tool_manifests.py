"""Signed manifests of tools: which definitions of a server's tools somebody answers for.

What is signed is an in-toto statement whose subjects are the tools, each with the digest of its definition
(`enforcement.tool_definitions`), in a DSSE envelope (`ledger.envelopes`) with one signature by Ed25519 and one by
ML-DSA-65::

    {"_type": "https://in-toto.io/Statement/v1", "predicate": {"server": "crm"},
     "predicateType": "urn:tallystick:tools:v1", "subject": [{"digest": {"sha256": "<digest>"}, "name": "refund"}]}

INVARIANT: a manifest is believed if all trusted keys have signed it, and nobody else; that these are of both algorithms
is checked as well. It is about one server, and about all of its tools: what it does not name is not listed.

Source: in-toto Statement v1; Secure Systems Lab, DSSE protocol v1.0.0; FIPS 204 (ML-DSA-65).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from enforcement.answers import MAX_TOOLS
from enforcement.config import ServerSettings
from enforcement.tool_definitions import Definition
from ledger.canonical import canonical_bytes
from ledger.envelopes import ED25519, MLDSA65, EnvelopeKey, EnvelopeSigner, parse_envelope, seal_envelope
from ledger.errors import ConfigError, LedgerError, MalformedError, TrustPolicyError, VerificationError
from policies.trusted_keys import read_trusted_keys

__all__ = ["make_manifest", "manifest_of", "read_manifest", "sign_manifest", "verify_manifest"]

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_PREDICATE_TYPE: Final = "urn:tallystick:tools:v1"
_MAX_BYTES: Final = 4 << 20


class _Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
    digest: _Digest


class _Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(max_length=MAX_TOOLS)]
    predicateType: Literal["urn:tallystick:tools:v1"]  # noqa: N815  # in-toto's name
    predicate: _Server


def make_manifest(server: str, tools: Sequence[Definition]) -> bytes:
    """Return the statement about a server's tools, to be signed.

    Raises:
        MalformedError: A tool has no name, two definitions, or one without canonical form; or there are too many.
    """
    digests: dict[str, str] = {}
    for tool in tools:
        if tool.name is None or tool.digest is None:
            raise MalformedError("a tool has no name, or its definition no canonical form")
        if tool.claims_another_hash:
            raise MalformedError(f"the tool {tool.name} declares a content hash that is not its own")
        if digests.setdefault(tool.name, tool.digest) != tool.digest:
            raise MalformedError(f"the tool {tool.name} is listed with two definitions")
    if len(digests) > MAX_TOOLS:
        raise MalformedError(f"a manifest names at most {MAX_TOOLS} tools")
    return _encode(server, digests)


def read_manifest(data: bytes) -> tuple[str, dict[str, str]]:
    """Read a statement; return the server, and tool → digest. Whether anybody signed it is not looked at.

    Raises:
        MalformedError: It is none in its canonical form, or names a tool twice.
    """
    try:
        statement = msgspec.json.decode(data, type=_Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError("not a manifest of tools") from error
    digests = {one.name: one.digest.sha256 for one in statement.subject}
    if _encode(statement.predicate.server, digests) != data:
        raise MalformedError("a manifest of tools is not in its one form, or names a tool twice")
    return statement.predicate.server, digests


def sign_manifest(statement: bytes, signers: Sequence[EnvelopeSigner]) -> bytes:
    """Return an envelope over a statement.

    Raises:
        MalformedError: It is no manifest, or there is no signer.
    """
    read_manifest(statement)
    return seal_envelope(_PAYLOAD_TYPE, statement, signers)


def verify_manifest(data: bytes, server: str | None, keys: Sequence[EnvelopeKey]) -> tuple[str, dict[str, str]]:
    """Check that all of ``keys``, and nobody else, have signed a manifest; return its server, and tool → digest.

    Args:
        data: The envelope.
        server: The server that it must be about; None for any.
        keys: Trusted keys, of both algorithms.

    Raises:
        MalformedError: Not an envelope, or no manifest in it.
        TrustPolicyError: A key has not signed, a stranger has, or the keys are not of both algorithms.
        SignatureInvalidError: A signature is wrong.
        VerificationError: It is about another server.
    """
    if len(data) > _MAX_BYTES:
        raise MalformedError(f"a manifest of tools has at most {_MAX_BYTES} bytes")
    algorithms = {key.algorithm for key in keys}
    if not {ED25519, MLDSA65} <= algorithms:
        raise TrustPolicyError("a manifest of tools is signed by ed25519 and ml-dsa-65: trust a key of each")
    envelope = parse_envelope(data)
    envelope.verify(keys)
    if envelope.payload_type != _PAYLOAD_TYPE:
        raise VerificationError("what is signed is no manifest of tools")
    about, digests = read_manifest(envelope.payload)
    if server is not None and about != server:
        raise VerificationError(f"the manifest is about the server {about}")
    return about, digests


def manifest_of(server: ServerSettings) -> Mapping[str, str]:
    """Return what the manifest of a server names: tool → digest; nothing if it has none.

    Raises:
        ConfigError: It cannot be read, or is not signed by everybody who must have.
    """
    path, trusted = server.pins.manifest, server.pins.trusted_keys
    if path is None or trusted is None:
        return {}
    try:
        return verify_manifest(_read(path), server.name, read_trusted_keys(trusted))[1]
    except ConfigError:
        raise
    except LedgerError as error:
        raise ConfigError(f"servers: pins.manifest of {server.name}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the manifest of tools {path.name} cannot be read: {error.strerror}") from error


def _encode(server: str, digests: Mapping[str, str]) -> bytes:
    subjects = [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)]
    return canonical_bytes(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": _PREDICATE_TYPE,
            "predicate": {"server": server},
        }
    )
