"""Key files: making, protecting and reading the keys of an installation.

A key is named by URI, ``file:PATH`` or ``env:NAME``; both hold the same JSON document::

    {"format": "tallystick.key/1", "purpose": "log", "algorithm": "ed25519", "name": "tallystick.example/acme",
     "created_ms": 1763546400000, "simulated": false, "public_key": "…", "secret": {"protection": "none", "seed": "…"}}

With a passphrase the seed stands in a box that Argon2id opens. Log, pack, enforcer, vault, pseudonym and spool keys are
different keys (invariant 10); a key made for a demonstration says ``simulated`` and marks everything made with it.

No claim of zeroisation: Python keeps copies of a seed in memory until the process ends.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nacl.exceptions
import nacl.secret
import nacl.signing
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA65PrivateKey
from nacl.pwhash import argon2id

from ledger.canonical import JSONValue, parse_json
from ledger.commitments import pseudonym_key_id
from ledger.envelopes import ED25519, MLDSA44, MLDSA65, EnvelopeKey
from ledger.errors import ConfigError, ConflictError, MalformedError
from ledger.files import create_durably
from ledger.notes import SignatureType, VerifierKey, decode_base64, encode_base64

__all__ = [
    "ALGORITHMS",
    "KEY_FORMAT",
    "PURPOSES",
    "LocalKey",
    "decode_key",
    "encode_key",
    "generate_key",
    "load_key",
    "read_key_document",
    "save_key",
    "save_key_file",
]

KEY_FORMAT: Final = "tallystick.key/1"
ALGORITHMS: Final = (ED25519, MLDSA44, MLDSA65, "hmac-sha256", "xchacha20-poly1305", "xsalsa20-poly1305")
PURPOSES: Final = ("log", "pack", "enforcer", "vault", "pseudonym", "spool", "witness", "bundle", "tools", "webhook")
_SEED_BYTES: Final = 32
_MAX_KEY_FILE_BYTES: Final = 16_384
_KEY_FILE_MODE: Final = 0o600
_OPS_LIMIT: Final = argon2id.OPSLIMIT_MODERATE
_MEM_LIMIT: Final = argon2id.MEMLIMIT_MODERATE
# Bounds on what a key file may ask of us, so that a planted file cannot exhaust memory.
_MAX_OPS_LIMIT: Final = argon2id.OPSLIMIT_SENSITIVE
_MAX_MEM_LIMIT: Final = argon2id.MEMLIMIT_SENSITIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKey:
    """A private or secret key in this process.

    Attributes:
        purpose: One of `PURPOSES`.
        algorithm: One of `ALGORITHMS`.
        name: Whose: the log's origin, the pack signer's name, an enforcer id.
        seed: 32 secret bytes; for ML-DSA the seed form of FIPS 204.
        created_ms: When it was made, POSIX milliseconds.
        simulated: Made for a demonstration.
    """

    purpose: str
    algorithm: str
    name: str
    seed: bytes
    created_ms: int
    simulated: bool = False

    def __repr__(self) -> str:
        """Name the key without its seed."""
        return f"LocalKey({self.purpose}, {self.algorithm}, {self.name})"

    @property
    def public_key(self) -> bytes | None:
        """Raw public key; None for a symmetric key."""
        if self.algorithm == ED25519:
            return bytes(nacl.signing.SigningKey(self.seed).verify_key)
        if self.algorithm == MLDSA44:
            return MLDSA44PrivateKey.from_seed_bytes(self.seed).public_key().public_bytes_raw()
        if self.algorithm == MLDSA65:
            return MLDSA65PrivateKey.from_seed_bytes(self.seed).public_key().public_bytes_raw()
        return None

    @property
    def key_id(self) -> str:
        """Public id: of the note key for a log key, of the envelope key for a pack key, of the key alone otherwise."""
        if self.public_key is None:
            return pseudonym_key_id(self.seed)
        if self.purpose == "log":
            return self.verifier_key.key_id.hex()
        return EnvelopeKey(self.algorithm, self.public_key).key_id

    @property
    def verifier_key(self) -> VerifierKey:
        """The vkey under which a log key signs notes.

        Raises:
            ConfigError: A symmetric key has none.
        """
        kinds = {ED25519: SignatureType.ED25519, MLDSA44: SignatureType.MLDSA44_COSIGNATURE}
        if self.public_key is None:
            raise ConfigError(f"the {self.purpose} key signs nothing")
        return VerifierKey(self.name, kinds[self.algorithm], self.public_key)

    def signing_key(self) -> nacl.signing.SigningKey:
        """Return the Ed25519 key.

        Raises:
            ConfigError: It is of another algorithm.
        """
        if self.algorithm != ED25519:
            raise ConfigError(f"the {self.purpose} key is {self.algorithm}, not {ED25519}")
        return nacl.signing.SigningKey(self.seed)


def generate_key(purpose: str, algorithm: str, name: str, *, created_ms: int, simulated: bool = False) -> LocalKey:
    """Make a new key of the operating system's randomness.

    Raises:
        ConfigError: No such purpose or algorithm.
    """
    if purpose not in PURPOSES or algorithm not in ALGORITHMS:
        raise ConfigError(f"no key serves {purpose} with {algorithm}")
    return LocalKey(
        purpose=purpose,
        algorithm=algorithm,
        name=name,
        seed=secrets.token_bytes(_SEED_BYTES),
        created_ms=created_ms,
        simulated=simulated,
    )


def _passphrase_bytes(passphrase: str) -> bytes:
    # An environment variable that is not UTF-8 arrives with its odd bytes escaped; they are as good as any.
    return passphrase.encode(errors="surrogateescape")


def _protect(seed: bytes, passphrase: str | None) -> dict[str, object]:
    if passphrase is None:
        return {"protection": "none", "seed": encode_base64(seed)}
    salt = secrets.token_bytes(argon2id.SALTBYTES)
    key = argon2id.kdf(nacl.secret.SecretBox.KEY_SIZE, _passphrase_bytes(passphrase), salt, _OPS_LIMIT, _MEM_LIMIT)
    return {
        "protection": "argon2id-xsalsa20poly1305",
        "salt": encode_base64(salt),
        "ops_limit": _OPS_LIMIT,
        "mem_limit_bytes": _MEM_LIMIT,
        "box": encode_base64(bytes(nacl.secret.SecretBox(key).encrypt(seed))),
    }


def _text(document: dict[str, JSONValue], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise MalformedError(f"a key file has no text member {name}")
    return value


def _number(document: dict[str, JSONValue], name: str, limit: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise MalformedError(f"a key file has no acceptable number {name}")
    return value


def _unprotect(secret: JSONValue, passphrase: str | None) -> bytes:
    if not isinstance(secret, dict):
        raise MalformedError("a key file has no member secret")
    protection = _text(secret, "protection")
    if protection == "none":
        return decode_base64(_text(secret, "seed"))
    if protection != "argon2id-xsalsa20poly1305":
        raise MalformedError(f"a key file is protected by an unknown means: {protection}")
    if passphrase is None:
        raise ConfigError("a key file needs a passphrase: set TALLYSTICK_PASSPHRASE or TALLYSTICK_PASSPHRASE_FILE")
    ops = _number(secret, "ops_limit", _MAX_OPS_LIMIT)
    memory = _number(secret, "mem_limit_bytes", _MAX_MEM_LIMIT)
    try:
        salt, box = decode_base64(_text(secret, "salt")), decode_base64(_text(secret, "box"))
        key = argon2id.kdf(nacl.secret.SecretBox.KEY_SIZE, _passphrase_bytes(passphrase), salt, ops, memory)
        return bytes(nacl.secret.SecretBox(key).decrypt(box))
    except (nacl.exceptions.CryptoError, nacl.exceptions.ValueError) as error:
        raise ConfigError("the passphrase does not open a key file") from error


def encode_key(key: LocalKey, passphrase: str | None = None) -> bytes:
    """Return a key file's bytes."""
    document = {
        "format": KEY_FORMAT,
        "purpose": key.purpose,
        "algorithm": key.algorithm,
        "name": key.name,
        "created_ms": key.created_ms,
        "simulated": key.simulated,
        "public_key": None if key.public_key is None else encode_base64(key.public_key),
        "secret": _protect(key.seed, passphrase),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def decode_key(data: bytes, passphrase: str | None = None) -> LocalKey:
    """Read a key file; the inverse of `encode_key`.

    Raises:
        MalformedError: Not a key file, or its public key does not belong to its seed.
        ConfigError: The passphrase is missing or wrong.
    """
    document = parse_json(data)
    if not isinstance(document, dict) or document.get("format") != KEY_FORMAT:
        raise MalformedError(f"a key file has the format {KEY_FORMAT}")
    key = LocalKey(
        purpose=_text(document, "purpose"),
        algorithm=_text(document, "algorithm"),
        name=_text(document, "name"),
        seed=_unprotect(document.get("secret"), passphrase),
        created_ms=_number(document, "created_ms", 2**53 - 1),
        simulated=document.get("simulated") is not False,
    )
    if key.purpose not in PURPOSES or key.algorithm not in ALGORITHMS or len(key.seed) != _SEED_BYTES:
        raise MalformedError("a key file names an unknown purpose or algorithm, or its seed is not 32 bytes")
    stated = document.get("public_key")
    derived = None if key.public_key is None else encode_base64(key.public_key)
    if stated != derived:
        raise MalformedError("a key file's public key does not belong to its seed")
    return key


def save_key(key: LocalKey, path: Path, passphrase: str | None = None) -> None:
    """Write a new key file that only its owner can read; it is durable and whole when the call returns.

    Raises:
        ConfigError: A file stands there (keys are never overwritten), or it cannot be written.
    """
    save_key_file(encode_key(key, passphrase), path)


def save_key_file(data: bytes, path: Path) -> None:
    """Write the bytes of a new key file; see `save_key`.

    Raises:
        ConfigError: A file stands there (keys are never overwritten), or it cannot be written.
    """
    try:
        if path.exists() or not path.parent.is_dir():
            reason = "the file exists" if path.exists() else "there is no such directory"
            raise ConfigError(f"the key file {path.name} cannot be created: {reason}")
        create_durably(path, data, mode=_KEY_FILE_MODE)
    except OSError as error:
        raise ConfigError(f"the key file {path.name} cannot be created: {error.strerror}") from error
    except ConflictError as error:
        raise ConfigError(f"the key file {path.name} cannot be created: the file exists") from error


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Of the open file, so that what is looked at is what is read.
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the key file {path.name} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"the key file {path.name} can be read by others than its owner; chmod 600 it")
    if len(data) > _MAX_KEY_FILE_BYTES:
        raise MalformedError(f"a key file has at most {_MAX_KEY_FILE_BYTES} bytes")
    return data


def read_key_document(uri: str) -> bytes:
    """Return the bytes of a key file by URI; `decode_key` reads them.

    Args:
        uri: ``file:PATH`` or ``env:NAME``.

    Raises:
        ConfigError: The URI cannot be used, or the file is readable by others.
        MalformedError: The file is longer than a key file may be.
    """
    scheme, _, place = uri.partition(":")
    if scheme == "env":
        text = os.environ.get(place)
        if text is None:
            raise ConfigError(f"the environment has no key {place}")
        return text.encode(errors="surrogateescape")
    if scheme != "file" or not place:
        raise ConfigError(f"a key URI starts with file: or env:, not {scheme}:")
    return _read_key_file(Path(place))


def load_key(uri: str, passphrase: str | None = None) -> LocalKey:
    """Read a key by URI.

    Args:
        uri: ``file:PATH`` or ``env:NAME``.
        passphrase: Opens a protected key file.

    Raises:
        ConfigError: The URI cannot be used, the file is readable by others, or the passphrase is missing or wrong.
        MalformedError: Not a key file.
    """
    return decode_key(read_key_document(uri), passphrase)
