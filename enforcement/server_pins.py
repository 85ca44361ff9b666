"""Whether a server is the one that was meant: its certificate's key or name, held against what is pinned for it.

Pure. That an authority vouches for the certificate and for the host is checked besides (`enforcement.tls_client`): a
pin narrows what is believed, and never widens it.

Source: RFC 7469 section 2.4 (the digest of a key); RFC 5280 sections 4.1.2.7 and 4.2.1.6.
"""

from __future__ import annotations

import hashlib
import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enforcement.config_upstream import PinSettings
from enforcement.tls_peer import names_of

__all__ = ["ServerIdentityError", "check_certificate"]


class ServerIdentityError(ssl.SSLCertVerificationError):
    """A server's certificate is not the one that is pinned. The handshake ends with it, before anything is sent."""


def check_certificate(der: bytes | None, pin: PinSettings) -> None:
    """Hold a server's certificate against its pin.

    Args:
        der: The certificate as the server showed it.
        pin: What is pinned; all of it must be met.

    Raises:
        ServerIdentityError: There is none, it cannot be read, or it is another.
    """
    if der is None:
        raise ServerIdentityError("the server shows no certificate")
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        names = names_of(certificate)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise ServerIdentityError("the server's certificate cannot be read") from error
    if pin.spki_sha256 and hashlib.sha256(key).hexdigest() not in pin.spki_sha256:
        raise ServerIdentityError("the server's key is not one that is pinned")
    if pin.sans and not set(pin.sans) & set(names):
        raise ServerIdentityError("the server's certificate has none of the names that are pinned")
