"""Trusted time: what an RFC 3161 token over a checkpoint proves, checked offline.

Pure. A token is kept as the authority's whole answer (TimeStampResp, DER), so that other tools read it too::

    openssl ts -verify -in 600.tsr -data 600.checkpoint -CAfile roots.pem

It covers the SHA-256 of the checkpoint's very bytes, signatures and cosignatures included: the signatures existed at
that time, whatever becomes of their keys later. What it does not say: that nothing else was signed before.

Beyond what `rfc3161_client` checks (chain to the given roots, the critical time-stamping purpose, nonce, policy,
digest), the digest must be SHA-256 and the certificate be for time-stamping *alone*, as RFC 3161 section 2.3 says. The
answer must be *granted*; one that was "granted with modifications" is not what was asked for.

Source: RFC 3161; RFC 5652 section 10.2.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import PKIStatus, TimeStampResponse, VerifierBuilder, decode_timestamp_response
from rfc3161_client import VerificationError as TokenError

from ledger.errors import MalformedError, TrustPolicyError, VerificationError

__all__ = ["MAX_TOKEN_BYTES", "TimestampTrust", "TrustedTime", "parse_roots", "verify_timestamp"]

MAX_TOKEN_BYTES: Final = 65_536
_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_CERTIFICATES: Final = 0xA0
_SEQUENCE: Final = 0x30
_LONG_FORM: Final = 0x80
_CHAIN: Final = "certificate verify error"
"""In OpenSSL's words: the signature may be right, whose it is cannot be told from the given roots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampTrust:
    """Whose tokens count.

    Attributes:
        roots: Self-signed certificates to which a chain must lead; never the system's.
        policy: The policy that a token must be made under, dotted, or None for any.
    """

    roots: tuple[x509.Certificate, ...]
    policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedTime:
    """What a token proves. Made by `verify_timestamp` alone.

    Attributes:
        time_ms: When the authority saw the digest, POSIX milliseconds.
        accuracy_ms: How far from the truth that may be, or None if the token does not say.
        policy: The authority's policy, dotted.
        authority: Subject of the certificate that signed.
    """

    time_ms: int
    accuracy_ms: int | None
    policy: str
    authority: str


def parse_roots(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Read root certificates.

    Raises:
        MalformedError: Not PEM certificates.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise MalformedError("not a file of PEM certificates") from error


def _element(data: bytes, offset: int) -> tuple[int, int, int]:
    """Return tag, start of the content and end of the DER element at an offset."""
    try:
        tag, length, start = data[offset], data[offset + 1], offset + 2
    except IndexError as error:
        raise MalformedError("a timestamp is cut short") from error
    if length >= _LONG_FORM:
        octets = length & ~_LONG_FORM
        start, length = start + octets, int.from_bytes(data[start : start + octets], "big")
    if start + length > len(data):
        raise MalformedError("a timestamp is cut short")
    return tag, start, start + length


def _inside(data: bytes, offset: int, *, after: int) -> int:
    """Return where the element stands that follows ``after`` others within the one at an offset."""
    _, position, end = _element(data, offset)
    for _ in range(after):
        _, _, position = _element(data, position)
    if position >= end:
        raise MalformedError("a timestamp holds no token")
    return position


def _with_sorted_certificates(data: bytes) -> bytes:
    """Return an answer with the certificates in its token in the order that DER demands of a set.

    Authorities built on OpenSSL put the signer's first. CMS lets them, the strict parser does not; and no signature
    covers that order.
    """
    token = _inside(data, 0, after=1)
    signed_data = _inside(data, _inside(data, token, after=1), after=0)
    certificates = _inside(data, signed_data, after=3)
    tag, start, end = _element(data, certificates)
    if tag != _CERTIFICATES:
        return data
    found: list[bytes] = []
    position = start
    while position < end:
        _, _, following = _element(data, position)
        found.append(data[position:following])
        position = following
    return data[:start] + b"".join(sorted(found)) + data[end:]


def _decode(token: bytes) -> TimeStampResponse:
    if not 0 < len(token) <= MAX_TOKEN_BYTES:
        raise MalformedError(f"a timestamp has 1 to {MAX_TOKEN_BYTES} bytes")
    tag, _, end = _element(token, 0)
    if tag != _SEQUENCE or end != len(token):
        raise MalformedError("not a timestamp: no single DER sequence")
    try:
        response = decode_timestamp_response(token)
    except ValueError:
        try:
            response = decode_timestamp_response(_with_sorted_certificates(token))
        except ValueError as error:
            raise MalformedError("not a timestamp that can be read") from error
    return response


def _require_granted(response: TimeStampResponse) -> None:
    if response.status == PKIStatus.GRANTED:
        return
    try:
        name = PKIStatus(response.status).name.lower().replace("_", " ")
    except ValueError:
        name = f"status {response.status}"
    raise VerificationError(f"the authority has not granted a timestamp: {name}")


def _signer(response: TimeStampResponse) -> x509.Certificate:
    """Return the certificate that signed; the library has verified it, and that there is one signer."""
    (signer,) = response.signed_data.signer_infos
    certificates = (x509.load_der_x509_certificate(item) for item in response.signed_data.certificates)
    for certificate in certificates:
        if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
            return certificate
    raise VerificationError("the timestamp does not hold the certificate that signed it")


def _require_purpose(certificate: x509.Certificate) -> None:
    # The library has found the purpose among those of the certificate; RFC 3161 section 2.3 wants it alone there.
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    if list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise VerificationError("the certificate of the timestamp is for other purposes as well")


def _check(response: TimeStampResponse, digest: bytes, trust: TimestampTrust, nonce: int | None) -> None:
    policy = None if trust.policy is None else x509.ObjectIdentifier(trust.policy)
    verifier = VerifierBuilder(policy_id=policy, roots=list(trust.roots), nonce=nonce).build()
    try:
        verifier.verify(response, digest)
    except TokenError as error:
        if _CHAIN in str(error):
            raise TrustPolicyError(
                "the timestamp's certificate does not lead to a given root, or was not valid"
            ) from error
        raise VerificationError(f"the timestamp does not hold: {str(error).partition(':')[0]}") from error
    except ValueError as error:
        raise MalformedError("a timestamp holds what is no certificate") from error


def verify_timestamp(
    token: bytes, checkpoint: bytes, trust: TimestampTrust, *, nonce: int | None = None
) -> TrustedTime:
    """Check that an authority saw a checkpoint, and say when.

    Certificates must have been valid at that time; they may have expired since.

    Args:
        token: The authority's whole answer, DER.
        checkpoint: The very bytes that were dated.
        trust: Whose tokens count.
        nonce: The number that was sent with the request; None where it is not known any more.

    Raises:
        MalformedError: Not a token.
        TrustPolicyError: Its certificate does not lead to a given root, or was not valid at that time.
        VerificationError: It is of other bytes, another nonce or policy, wrongly signed, not granted, or signed with a
            certificate that is not for time-stamping alone.
    """
    if not trust.roots:
        raise TrustPolicyError("no root certificate was given to check a timestamp with")
    response = _decode(token)
    _require_granted(response)
    try:
        info = response.tst_info
        if info.message_imprint.hash_algorithm != _SHA256:
            raise VerificationError("the timestamp is over another digest than SHA-256")
    except ValueError as error:
        raise MalformedError("a timestamp holds no token") from error
    _check(response, hashlib.sha256(checkpoint).digest(), trust, nonce)
    certificate = _signer(response)
    _require_purpose(certificate)
    return TrustedTime(
        time_ms=int(info.gen_time.timestamp() * 1000),
        accuracy_ms=_accuracy_ms(info.accuracy),
        policy=info.policy.dotted_string,
        authority=certificate.subject.rfc4514_string(),
    )


def _accuracy_ms(accuracy: object) -> int | None:
    if accuracy is None:
        return None
    parts: Sequence[tuple[str, float]] = (("seconds", 1000), ("millis", 1), ("micros", 0.001))
    return round(sum((getattr(accuracy, name) or 0) * factor for name, factor in parts))
