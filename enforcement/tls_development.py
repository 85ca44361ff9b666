"""A certificate authority for development: it says so in every certificate, and all of them soon end.

For trying mTLS out and for tests. In production, certificates come from an authority whose key is not beside those that
it issued (SPIFFE, ACME, a company's own).

Source: RFC 5280; SPIFFE X.509-SVID (one URI name, no authority).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enforcement.tls_files import Credential

__all__ = ["Algorithm", "Wish", "issue", "make_authority"]

Algorithm: TypeAlias = Literal["p-256", "ml-dsa-65"]
_Key: TypeAlias = ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey

_ORGANIZATION: Final = "Tallystick DEVELOPMENT"
_MS_PER_SECOND: Final = 1000
# Clocks of two machines differ; a certificate that was made this moment must hold on the other.
_EARLIER: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A certificate that is to be issued.

    Attributes:
        name: Its common name; for people, nobody is known by it.
        hosts: DNS names and addresses that a server is reached by.
        uris: Names such as ``spiffe://acme/gateway/gateway-1``.
        server: It may stand for a server.
        client: It may stand for a client.
        days: How long it holds.
    """

    name: str
    hosts: Sequence[str] = ()
    uris: Sequence[str] = ()
    server: bool = False
    client: bool = False
    days: float = 30


def make_authority(name: str, *, algorithm: Algorithm, now_ms: int, days: float) -> Credential:
    """Return a new authority.

    Args:
        name: Its common name.
        algorithm: Of its key.
        now_ms: POSIX milliseconds.
        days: How long it holds.
    """
    key = _new_key(algorithm)
    subject = _subject(name)
    certificate = (
        _begun(subject, subject, key, now_ms, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, _digest(key))
    )
    return Credential(chain=(certificate,), key=key)


def issue(authority: Credential, wish: Wish, *, algorithm: Algorithm, now_ms: int) -> Credential:
    """Return a certificate that an authority issued, with a new key.

    Args:
        authority: Who issues it.
        wish: What it says.
        algorithm: Of its key.
        now_ms: POSIX milliseconds.
    """
    signer = authority.key
    assert isinstance(signer, ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey)  # made here
    key = _new_key(algorithm)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * wish.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * wish.client
    names = [*map(_host, wish.hosts), *map(x509.UniformResourceIdentifier, wish.uris)]
    builder = (
        _begun(_subject(wish.name), authority.chain[0].subject, key, now_ms, wish.days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Credential(chain=(builder.sign(signer, _digest(signer)),), key=key)


def _begun(subject: x509.Name, issuer: x509.Name, key: _Key, now_ms: int, days: float) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_ms / _MS_PER_SECOND, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, _ORGANIZATION), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _new_key(algorithm: Algorithm) -> _Key:
    return mldsa.MLDSA65PrivateKey.generate() if algorithm == "ml-dsa-65" else ec.generate_private_key(ec.SECP256R1())


def _digest(key: _Key) -> hashes.SHA256 | None:
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None  # ML-DSA takes the message itself


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
