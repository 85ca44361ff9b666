"""What a TLS connection says of its other end: facts for policies' records, and the names a certificate proves.

Pure. A connection without TLS has no such facts at all.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TLSPeer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSPeer:
    """The other end of a TLS connection, after its handshake.

    Attributes:
        version: Protocol version, such as ``TLSv1.3``.
        group: Key agreement that was negotiated, such as ``X25519MLKEM768``.
        cipher: Cipher suite that was negotiated.
        sans: Names of the verified client certificate (URIs and DNS names); empty if none was presented.
        certificate_sha256: SHA-256 of its DER bytes, hexadecimal; None if none was presented.
    """

    version: str
    group: str
    cipher: str
    sans: tuple[str, ...] = ()
    certificate_sha256: str | None = None
