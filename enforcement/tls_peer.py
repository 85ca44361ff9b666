"""What a TLS connection says of its other end: facts for records, and the names that a certificate proves.

Pure. A connection without TLS has no such facts at all. Who terminates TLS puts them into the ASGI scope::

    scope["extensions"]["tls"] = {
        "tls_version": 0x0304, "cipher_suite": 0x1301, "client_cert_chain": ["-----BEGIN CERTIFICATE-----…"],
        "server_cert": None, "client_cert_name": "CN=finance", "client_cert_error": None,     # as ASGI has them
        "peer": TLSPeer(…),                                                           # ours besides: the same, read
    }

A certificate is believed if the terminating server verified it: ``client_cert_error`` is then None. A header says
nothing here, whoever set it.

Source: ASGI TLS extension, version 0.2; RFC 5280 section 4.2.1.6; RFC 8446 sections 4.2.7 and B.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

__all__ = ["HYBRID_GROUPS", "UNKNOWN", "TLSPeer", "describe_peer", "extension_of", "names_of", "peer_of"]

HYBRID_GROUPS: Final = frozenset({"X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"})
"""Key agreements that hold as long as either the classical or the post-quantum half of them does."""

UNKNOWN: Final = "unknown"
"""What the server that terminated TLS did not say."""

_MAX_NAMES: Final = 64
_VERSIONS: Final[Mapping[int, str]] = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_CIPHERS: Final[Mapping[int, str]] = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSPeer:
    """The other end of a TLS connection, after its handshake.

    Attributes:
        version: Protocol version, such as ``TLSv1.3``.
        group: Key agreement that was negotiated, such as ``X25519MLKEM768``.
        cipher: Cipher suite that was negotiated.
        sans: Names of the verified client certificate, each with its kind before it, so that a host's name cannot pass
            for a URI: ``URI:spiffe://acme/agent``, ``DNS:agent.example.com``, ``IP:10.0.0.1``, ``email:a@example.com``;
            empty if none was presented.
        certificate_sha256: SHA-256 of its DER bytes, hexadecimal; None if none was presented.
    """

    version: str
    group: str
    cipher: str
    sans: tuple[str, ...] = ()
    certificate_sha256: str | None = None

    @property
    def hybrid(self) -> bool:
        """Whether the key agreement has a post-quantum half."""
        return self.group in HYBRID_GROUPS


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return a certificate's alternative names in their order, each with its kind; other kinds are left out."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    kinds = ((x509.UniformResourceIdentifier, "URI"), (x509.DNSName, "DNS"), (x509.RFC822Name, "email"))
    found: list[str] = []
    for name in names:
        found += [f"{word}:{name.value}" for kind, word in kinds if isinstance(name, kind)]
        if isinstance(name, x509.IPAddress):
            found.append(f"IP:{name.value}")
    return tuple(found[:_MAX_NAMES])


def describe_peer(*, version: str, group: str, cipher: str, certificate: x509.Certificate | None) -> TLSPeer:
    """Return the facts of a connection.

    Args:
        version: Such as ``TLSv1.3``.
        group: Key agreement, such as ``X25519MLKEM768``.
        cipher: Cipher suite by its name.
        certificate: The other end's, verified; None if it has none.

    Raises:
        ValueError: The certificate's names cannot be read.
    """
    if certificate is None:
        return TLSPeer(version=version, group=group, cipher=cipher)
    try:
        sans = names_of(certificate)
    except x509.DuplicateExtension as error:
        raise ValueError("an extension stands twice") from error
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return TLSPeer(version=version, group=group, cipher=cipher, sans=sans, certificate_sha256=digest)


def extension_of(peer: TLSPeer, certificate: x509.Certificate | None) -> dict[str, Any]:
    """Return what a server that terminated TLS says of a connection, as ``scope["extensions"]["tls"]``.

    Args:
        peer: The connection's facts.
        certificate: The client's, verified; None if it has none.
    """
    chain = [] if certificate is None else [certificate.public_bytes(Encoding.PEM).decode("ascii")]
    return {
        "server_cert": None,
        "client_cert_chain": chain,
        "client_cert_name": None if certificate is None else certificate.subject.rfc4514_string(),
        "client_cert_error": None,
        "tls_version": next((number for number, name in _VERSIONS.items() if name == peer.version), None),
        "cipher_suite": next((number for number, name in _CIPHERS.items() if name == peer.cipher), None),
        "peer": peer,
    }


def peer_of(scope: Mapping[str, Any]) -> TLSPeer | None:
    """Return what an ASGI scope says of its connection; None without TLS, or where the server says nothing of it.

    A client certificate that cannot be read, or was not verified, gives no names.
    """
    said = (scope.get("extensions") or {}).get("tls")
    if not isinstance(said, Mapping):
        return None
    peer = said.get("peer")
    if isinstance(peer, TLSPeer):
        return peer
    facts = {
        "version": _VERSIONS.get(_number(said.get("tls_version")), UNKNOWN),
        "group": UNKNOWN,
        "cipher": _CIPHERS.get(_number(said.get("cipher_suite")), UNKNOWN),
    }
    try:
        return describe_peer(**facts, certificate=_verified(said))
    except ValueError:
        return describe_peer(**facts, certificate=None)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _verified(said: Mapping[str, Any]) -> x509.Certificate | None:
    chain = said.get("client_cert_chain")
    if said.get("client_cert_error") is not None or not chain:
        return None
    return x509.load_pem_x509_certificate(str(next(iter(chain))).encode("ascii"))
