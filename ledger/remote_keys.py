"""Log keys that never leave their keeper: the key file names the keeper's key and pins its public half.

Pure but for `load_signing_key`, which reads a file. A key file whose secret is kept by AWS KMS::

    {"format": "tallystick.key/1", "purpose": "log", "algorithm": "ml-dsa-44", "name": "tallystick.example/acme",
     "created_ms": 1763546400000, "simulated": false, "public_key": "…",
     "secret": {"protection": "awskms", "key": "awskms:alias/tallystick-log?region=eu-central-1"}}

The file holds no secret. The public key in it is what counts: an alias that is pointed at another key signs nothing
that is believed. Trust policy and fingerprints are made from it, without asking the keeper. Signing is `signers`' part.

Source: RFC 3986 for the URI's form; AWS Key Management Service API reference, "KeyId".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from ledger.canonical import JSONValue, parse_json
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError, MalformedError
from ledger.keys import KEY_FORMAT, LocalKey, decode_key, read_key_document
from ledger.notes import SignatureType, VerifierKey, decode_base64, encode_base64

__all__ = [
    "KMSAddress",
    "RemoteKey",
    "SigningKey",
    "decode_signing_key",
    "encode_remote_key",
    "load_signing_key",
    "parse_kms_uri",
]

_PROTECTION: Final = "awskms"
_KEY_ID: Final = re.compile(r"[A-Za-z0-9:/_-]{1,2048}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_/-]{1,255}")
_KINDS: Final = {ED25519: SignatureType.ED25519, MLDSA44: SignatureType.MLDSA44_COSIGNATURE}
_PUBLIC_KEY_BYTES: Final = {ED25519: 32, MLDSA44: 1312}
_MAX_TIME_MS: Final = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KMSAddress:
    """Where a key of AWS KMS is.

    Attributes:
        key: Key id, key ARN, alias name or alias ARN.
        region: AWS region, or None for that of the environment.
        endpoint: Another endpoint than AWS's own, or None.
    """

    key: str
    region: str | None = None
    endpoint: str | None = None


def parse_kms_uri(uri: str) -> KMSAddress:
    """Read ``awskms:KEY[?region=…&endpoint=…]``; an ARN names its region itself.

    Raises:
        ConfigError: Not such a URI.
    """
    scheme, _, rest = uri.partition(":")
    key, _, query = rest.partition("?")
    if scheme != _PROTECTION or _KEY_ID.fullmatch(key) is None:
        raise ConfigError("a key of AWS KMS is named awskms:KEY, with KEY a key id, an ARN or alias/NAME")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise ConfigError("behind the ? of an awskms: URI stand region=… and endpoint=…") from error
    options = dict(pairs)
    region, endpoint = options.get("region"), options.get("endpoint")
    if len(options) != len(pairs) or not options.keys() <= {"region", "endpoint"}:
        raise ConfigError("behind the ? of an awskms: URI stand region=… and endpoint=…, each once")
    if region is not None and _REGION.fullmatch(region) is None:
        raise ConfigError("the region of an awskms: URI is no region")
    if endpoint is not None and _ENDPOINT.fullmatch(endpoint) is None:
        raise ConfigError("the endpoint of an awskms: URI is no http:// or https:// address")
    return KMSAddress(key=key, region=region or _region_of(key), endpoint=endpoint)


def _region_of(key: str) -> str | None:
    parts = key.split(":")
    return parts[3] if parts[0] == "arn" and len(parts) > 3 and parts[3] else None  # noqa: PLR2004  # arn:aws:kms:REGION


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteKey:
    """A log key whose private half is kept elsewhere.

    Attributes:
        algorithm: ``ed25519`` or ``ml-dsa-44``.
        name: The log's origin.
        public_key: Raw bytes; only signatures that it verifies count.
        uri: Where the private half is.
        created_ms: When the key file was made, POSIX milliseconds.
        simulated: Made for a demonstration.
    """

    algorithm: str
    name: str
    public_key: bytes
    uri: str
    created_ms: int
    simulated: bool = False

    @property
    def purpose(self) -> str:
        """``log``: no other key is kept elsewhere."""
        return "log"

    @property
    def verifier_key(self) -> VerifierKey:
        """The vkey under which it signs notes."""
        return VerifierKey(self.name, _KINDS[self.algorithm], self.public_key)

    @property
    def key_id(self) -> str:
        """Public id, as of every log key that of the note key."""
        return self.verifier_key.key_id.hex()


SigningKey: TypeAlias = LocalKey | RemoteKey
"""A key that signs, in this process or elsewhere."""


def encode_remote_key(key: RemoteKey) -> bytes:
    """Return a key file's bytes."""
    document = {
        "format": KEY_FORMAT,
        "purpose": key.purpose,
        "algorithm": key.algorithm,
        "name": key.name,
        "created_ms": key.created_ms,
        "simulated": key.simulated,
        "public_key": encode_base64(key.public_key),
        "secret": {"protection": _PROTECTION, "key": key.uri},
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _is_remote(document: JSONValue) -> bool:
    secret = document.get("secret") if isinstance(document, dict) else None
    return isinstance(secret, dict) and secret.get("protection") == _PROTECTION


def _decode_remote(document: JSONValue) -> RemoteKey:
    assert isinstance(document, dict)
    secret = document["secret"]
    assert isinstance(secret, dict)
    algorithm, name, encoded, uri = (
        document.get("algorithm"),
        document.get("name"),
        document.get("public_key"),
        secret.get("key"),
    )
    created_ms = document.get("created_ms")
    if not (isinstance(algorithm, str) and isinstance(name, str) and isinstance(encoded, str) and isinstance(uri, str)):
        raise MalformedError("a key file that names a key of AWS KMS has algorithm, name, public_key and secret.key")
    if not isinstance(created_ms, int) or isinstance(created_ms, bool) or not 0 <= created_ms <= _MAX_TIME_MS:
        raise MalformedError("a key file has no acceptable number created_ms")
    # Everything else is used in this process: a subject key cannot be wrapped, nor a record signed, by a call away.
    if document.get("format") != KEY_FORMAT or document.get("purpose") != "log" or algorithm not in _KINDS:
        raise MalformedError(f"AWS KMS keeps log keys alone, with {ED25519} or {MLDSA44}")
    public_key = decode_base64(encoded)
    if len(public_key) != _PUBLIC_KEY_BYTES[algorithm]:
        raise MalformedError(f"a public key of {algorithm} has {_PUBLIC_KEY_BYTES[algorithm]} bytes")
    parse_kms_uri(uri)
    return RemoteKey(
        algorithm=algorithm,
        name=name,
        public_key=public_key,
        uri=uri,
        created_ms=created_ms,
        simulated=document.get("simulated") is not False,
    )


def decode_signing_key(data: bytes, passphrase: str | None = None) -> SigningKey:
    """Read a key file, whether its secret is in it or elsewhere.

    Raises:
        MalformedError: Not a key file, or one that names a key elsewhere for a purpose that needs it here.
        ConfigError: The passphrase is missing or wrong, or the place of the key cannot be read.
    """
    document = parse_json(data)
    return _decode_remote(document) if _is_remote(document) else decode_key(data, passphrase)


def load_signing_key(uri: str, passphrase: str | None = None) -> SigningKey:
    """Read a key by the URI of its key file; see `ledger.keys.load_key`.

    Raises:
        ConfigError: The URI cannot be used, the file is readable by others, or the passphrase is missing or wrong.
        MalformedError: Not a key file.
    """
    return decode_signing_key(read_key_document(uri), passphrase)
