"""Certificates and keys from files: read, checked against each other, and read again when they have changed.

What is refused when it is read need not be refused in the middle of a handshake: a key that does not belong to its
certificate, a certificate that is over or not yet valid, a file that is neither.

A key file may be read by its owner alone. Nothing of a key stands in an error, a log or a representation.

Source: RFC 7468 (PEM); RFC 5280 section 4.1.2.5 (validity).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ledger.clock import Clock
from ledger.errors import ConfigError

__all__ = ["Credential", "Material", "Rotating", "expires_ms", "read_authorities", "read_credential", "read_material"]

_MAX_FILE_BYTES: Final = 1 << 20
_MAX_CERTIFICATES: Final = 512
_MS_PER_SECOND: Final = 1000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate with what leads to its root, and its key.

    Attributes:
        chain: The certificate first, then its issuers; the root need not be there.
        key: The private key.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False)

    def chain_pem(self) -> bytes:
        """Return the chain as PEM."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    def key_pem(self) -> bytes:
        """Return the key as PEM, unprotected: for a library that takes no other form."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that one side of a connection is configured with.

    Attributes:
        credential: What it presents, or None.
        authorities: Whom it believes; None leaves that to the system.
        digest: SHA-256 over the bytes of the files: equal for the same content.
    """

    credential: Credential | None
    authorities: tuple[x509.Certificate, ...] | None
    digest: bytes


def expires_ms(certificate: x509.Certificate) -> int:
    """Return when a certificate ends, in POSIX milliseconds."""
    return int(certificate.not_valid_after_utc.timestamp() * _MS_PER_SECOND)


def read_material(certificate: Path | None, key: str | None, authorities: Path | None, clock: Clock) -> Material:
    """Read what one side of a connection is configured with.

    Args:
        certificate: File with the certificate and its issuers, or None.
        key: Where its key is, ``file:PATH`` or ``env:NAME``; None if there is no certificate.
        authorities: File with the certificates of those who are believed, or None.
        clock: Tells whether a certificate is valid now.

    Raises:
        ConfigError: Something cannot be read, is not valid now, or does not belong together.
    """
    digest = hashlib.sha256()
    credential = None
    if certificate is not None:
        if key is None:
            raise ConfigError(f"the certificate {certificate.name} has no key beside it")
        chain_pem, key_pem = _read(certificate), _read_key(key)
        credential = read_credential(chain_pem, key_pem, certificate.name, clock)
        for part in (chain_pem, key_pem):
            digest.update(hashlib.sha256(part).digest())
    believed = None
    if authorities is not None:
        pem = _read(authorities)
        believed = read_authorities(pem, authorities.name)
        digest.update(hashlib.sha256(pem).digest())
    return Material(credential=credential, authorities=believed, digest=digest.digest())


def read_credential(chain_pem: bytes, key_pem: bytes, name: str, clock: Clock) -> Credential:
    """Return a certificate with its key.

    Args:
        chain_pem: The certificate, then its issuers.
        key_pem: The key, without a passphrase.
        name: Of the certificate's file, for errors.
        clock: Tells whether the certificate is valid now.

    Raises:
        ConfigError: They are not what they should be, or do not belong together.
    """
    chain = _certificates(chain_pem, name)
    try:
        key = load_pem_private_key(key_pem, password=None)
    except TypeError as error:
        raise ConfigError(f"the key of {name} has a passphrase; keep it in a file that only its owner may read") from (
            error
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"the key of {name} is no private key in PEM") from error
    if _public_bytes(key.public_key()) != _public_bytes(chain[0].public_key()):
        raise ConfigError(f"the key does not belong to the certificate {name}")
    now_ms = clock.now_ms()
    begins_ms = int(chain[0].not_valid_before_utc.timestamp() * _MS_PER_SECOND)
    if now_ms < begins_ms:
        raise ConfigError(f"the certificate {name} is not valid yet")
    if now_ms > expires_ms(chain[0]):
        raise ConfigError(f"the certificate {name} is over")
    return Credential(chain=chain, key=key)


def read_authorities(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """Return those who are believed.

    Raises:
        ConfigError: The file holds something else than certificates of authorities, or none.
    """
    found = _certificates(pem, name)
    for certificate in found:
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            constraints = None
        if constraints is None or not constraints.ca:
            raise ConfigError(f"{name} holds a certificate that is not an authority's")
    return found


def _certificates(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
        for certificate in found:
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{name} holds no certificate in PEM, or one that cannot be read") from error
    if len(found) > _MAX_CERTIFICATES:
        raise ConfigError(f"{name} holds more than {_MAX_CERTIFICATES} certificates")
    return found


def _public_bytes(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]  # every public key has it


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path.name} has more than {_MAX_FILE_BYTES} bytes")
    return data


def _read_key(uri: str) -> bytes:
    scheme, _, place = uri.partition(":")
    if scheme == "env":
        value = os.environ.get(place, "")
        if not value:
            raise ConfigError(f"there is no key at env:{place}")
        return value.encode()
    path = Path(place)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"the key file {path.name} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"the key file {path.name} can be read by others than its owner; chmod 600 it")
    return _read(path)


class Rotating(Generic[_T]):
    """Something that is made of certificate files, and made anew when their content changes.

    INVARIANT: what was in force stays in force until something whole takes its place: files that are broken, or half
    written, change nothing. `refresh` may run in another thread; ``current`` and ``material`` change together.

    Attributes:
        name: Whose certificate it is, for metrics and logs.
    """

    def __init__(self, name: str, read: Callable[[], Material], make: Callable[[Material], _T]) -> None:
        """Read the files for the first time.

        Args:
            name: Whose certificate it is.
            read: Reads the files.
            make: Makes the thing of what was read.

        Raises:
            ConfigError: They cannot be used.
        """
        self.name = name
        self._read = read
        self._make = make
        material = read()
        self._state = (material, make(material))

    @property
    def current(self) -> _T:
        """What new connections use."""
        return self._state[1]

    @property
    def material(self) -> Material:
        """What it was made of."""
        return self._state[0]

    @property
    def expires_ms(self) -> int | None:
        """When the certificate that is presented ends, in POSIX milliseconds; None if none is."""
        credential = self.material.credential
        return None if credential is None else min(expires_ms(certificate) for certificate in credential.chain)

    def refresh(self) -> bool:
        """Read the files again; return whether something new is in force.

        Raises:
            ConfigError: They cannot be used; what was in force stays.
        """
        material = self._read()
        if material.digest == self.material.digest:
            return False
        self._state = (material, self._make(material))
        return True
