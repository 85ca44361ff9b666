"""Who is calling: what an identity is, and how an API token or a client certificate becomes one.

Pure. Only credentials speak: what a client says of itself in the message (``clientInfo``) or in forwarded headers
grants nothing. Access tokens are read in `enforcement.access_tokens`.

Source: RFC 6750 section 2.1; RFC 5280 section 4.2.1.6.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from enforcement.config import PrincipalSettings
from enforcement.config_identity import CertificateSettings
from enforcement.mcp_headers import RawHeaders
from enforcement.tls_peer import TLSPeer

__all__ = ["Cause", "Certificates", "CredentialError", "Identity", "Principals", "bearer_token", "certified"]

# RFC 6750: the scheme's name is matched without regard to case (RFC 9110 section 11.1), the token is b64token.
_BEARER: Final = re.compile(r"(?i:bearer) +(?P<token>[A-Za-z0-9._~+/-]+=*)")
_AUTHORIZATION: Final = b"authorization"


class Cause(StrEnum):
    """Why a credential does not count. For metrics; a client hears no more than that it does not."""

    AMBIGUOUS = "ambiguous"
    SCHEME = "scheme"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    ISSUER = "issuer"
    ALGORITHM = "algorithm"
    KEY = "key"
    TYPE = "type"
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    LIFETIME = "lifetime"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    NOT_BOUND = "not_bound"
    NOT_BOUND_HERE = "not_bound_here"
    NAME = "name"
    AGENT = "agent"
    NO_CERTIFICATE = "no_certificate"
    CERTIFICATE = "certificate"
    INTERNAL = "internal"


class CredentialError(Exception):
    """A credential that was presented, or demanded, does not make its bearer known."""

    def __init__(self, cause: Cause) -> None:
        """Take the cause."""
        super().__init__(cause.value)
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller who proved who it is.

    Attributes:
        credential: Keyed to what it proved it with, hexadecimal: the SHA-256 of an API token, of an issuer with client
            and user, or of a certificate's name. With agent and user it makes a session.
        agent: The agent.
        user: On whose behalf, or None.
        roles: Its roles.
        mfa: A second factor was part of it.
        authn: How it proved who it is: ``api_token``, ``oauth``, ``mtls``, or with both ``api_token+mtls``,
            ``oauth+mtls``.
        scopes: What its access token is good for; None for a credential that knows no scopes.
    """

    credential: str
    agent: str
    user: str | None
    roles: tuple[str, ...]
    mfa: bool
    authn: str = "api_token"
    scopes: frozenset[str] | None = None


def bearer_token(headers: RawHeaders) -> str | None:
    """Return the bearer token of a request, or None if it has no ``Authorization`` header at all.

    Raises:
        CredentialError: Two such headers, or one of another kind: what is presented must count, or nothing does.
    """
    values = [value for name, value in headers if name.lower().replace(b"_", b"-") == _AUTHORIZATION]
    if not values:
        return None
    if len(values) > 1:
        raise CredentialError(Cause.AMBIGUOUS)
    match = _BEARER.fullmatch(values[0].decode("latin-1").strip(" \t"))
    if match is None:
        raise CredentialError(Cause.SCHEME)
    return match["token"]


class Principals:
    """The callers that the configuration knows by an API token."""

    def __init__(self, principals: Sequence[PrincipalSettings]) -> None:
        """Take the principals by the digest of their token."""
        self._by_digest: dict[str, tuple[Identity, int | None]] = {}
        for settings in principals:
            identity = Identity(
                credential=settings.token_sha256,
                agent=settings.agent,
                user=settings.user,
                roles=tuple(sorted(set(settings.roles))),
                mfa=settings.mfa,
            )
            self._by_digest[settings.token_sha256] = (identity, _milliseconds(settings.not_after))

    def identify(self, token: str, now_ms: int) -> Identity | None:
        """Return whose token this is, or None.

        The look-up is by digest, so that its timing says nothing about a token that is nearly right.

        Raises:
            CredentialError: It has expired.
        """
        identity, not_after = self._by_digest.get(hashlib.sha256(token.encode()).hexdigest(), (None, None))
        if not_after is not None and now_ms >= not_after:
            raise CredentialError(Cause.EXPIRED)
        return identity


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


class Certificates:
    """The callers that the configuration knows by a name in their certificate."""

    def __init__(self, certificates: Sequence[CertificateSettings]) -> None:
        """Take the principals by that name."""
        self._by_name = {
            settings.san: Identity(
                # The name, not the certificate: one that was renewed goes on with its session.
                credential=hashlib.sha256(f"mtls\0{settings.san}".encode()).hexdigest(),
                agent=settings.agent,
                user=settings.user,
                roles=tuple(sorted(set(settings.roles))),
                mfa=settings.mfa,
                authn="mtls",
            )
            for settings in certificates
        }

    def identify(self, tls: TLSPeer | None) -> Identity | None:
        """Return whom a connection's verified certificate names; None if it names no principal.

        Raises:
            CredentialError: It names several: which of them is calling nobody can say.
        """
        if tls is None or not self._by_name:
            return None
        found = [self._by_name[name] for name in dict.fromkeys(tls.sans) if name in self._by_name]
        if len(found) > 1:
            raise CredentialError(Cause.AMBIGUOUS)
        return found[0] if found else None


def certified(identity: Identity, certificate: Identity | None) -> Identity:
    """Return whom a token and a certificate name together; the token says in which roles.

    Args:
        identity: Whom the token names.
        certificate: Whom the certificate names; None if there is none, or if it names no principal.

    Raises:
        CredentialError: Not the same agent, or not the same user.
    """
    if certificate is None:
        return identity
    users = {one for one in (identity.user, certificate.user) if one is not None}
    if identity.agent != certificate.agent or len(users) > 1:
        raise CredentialError(Cause.CERTIFICATE)
    return replace(identity, user=next(iter(users), None), authn=f"{identity.authn}+mtls")
