"""Settings of who may call, beside API tokens: issuers of access tokens (OAuth 2.1), certificates, what is demanded.

Pure. What a setting means is said here and, for operators, in ``docs/identity.md``.

Source: OAuth 2.1 (draft-ietf-oauth-v2-1); RFC 9068 (JWT access tokens); RFC 9728 (protected resource metadata);
RFC 8707 (resource indicators); RFC 8705 (mutual TLS); SPIFFE ID specification.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from enforcement.config_types import URL, Names, RecordName, Seconds, Settings, refuse_twice

__all__ = [
    "SAN",
    "Algorithm",
    "CertificateSettings",
    "ClaimPath",
    "ClaimSettings",
    "IdentitySettings",
    "IssuerSettings",
    "SecureURL",
    "is_loopback",
]

Algorithm: TypeAlias = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that only the holder of a private key can make. ``none`` and HMAC are not among them."""

_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*")
_DNS: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,2000}")


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine, whatever a resolver says."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _as_secure_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise ValueError("is not an https URL, and not on this machine")
    return value


def _as_key_source(value: str) -> str:
    if not value.startswith("file:"):
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an https URL, and does not start with file:")
        if parts.username or parts.password or parts.fragment:
            raise ValueError("must not carry credentials or a fragment")
        return _as_secure_url(value)
    if value == "file:":
        raise ValueError("names no file")
    return value


def _as_resource(value: str) -> str:
    return value.rstrip("/")


def _as_san(value: str) -> str:
    """Return the form in which a certificate's names are compared: their kind, a colon, the name."""
    value = f"URI:{value}" if value.startswith("spiffe://") else value
    kind, _, name = value.partition(":")
    if kind == "URI" and (_SPIFFE if name.startswith("spiffe:") else _URI).fullmatch(name):
        return value
    if kind == "DNS" and _DNS.fullmatch(name):
        return value
    raise ValueError("is no spiffe://DOMAIN/PATH, URI:… or DNS:host.in.lower.case (no wildcards)")


def _as_path(value: object) -> object:
    return (value,) if isinstance(value, str) else value


SecureURL: TypeAlias = Annotated[URL, AfterValidator(_as_secure_url)]
ClaimPath: TypeAlias = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...],
    BeforeValidator(_as_path),
    Field(min_length=1, max_length=8),
]
_Audience: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
_Scope: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$")]
_Scopes: TypeAlias = Annotated[tuple[_Scope, ...], Field(max_length=32)]
SAN: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_as_san)]


class ClaimSettings(Settings):
    """In which claims of a token stands what. A path of several names leads into nested objects.

    Attributes:
        agent: The agent: ``client_id``, ``azp`` or ``sub``, as the issuer has it.
        user: On whose behalf; none by default. Where it says the same as ``agent``, the client acts for itself.
        roles: A list of names, or names with spaces between them.
        scope: Scopes, as a list or with spaces between them.
    """

    agent: ClaimPath = ("client_id",)
    user: ClaimPath | None = None
    roles: ClaimPath | None = None
    scope: ClaimPath = ("scope",)


class IssuerSettings(Settings):
    """An authorization server whose access tokens count.

    Attributes:
        issuer: Its identifier, compared character by character with ``iss``.
        jwks: Where its keys are: an https URL, or ``file:PATH``.
        ca: File with the certificates that must vouch for the URL's host; the system's by default.
        algorithms: Signatures that are accepted.
        typ: The header ``typ`` that is demanded; null for an issuer that sets none of its own.
        audiences: Values of ``aud`` that are good for every server, beside each server's own URI.
        claims: What stands where.
        agents: Agent by the value of its claim; others are refused. Left out: the value itself is the agent's name.
        role_names: Role by value of the claim; other values are left out. Left out: each value is a role's name.
        user_prefix: Put before each user's name; two issuers that name users must each have one.
        mfa_amr: Values of ``amr`` (RFC 8176) that mean a second factor.
        mfa_acr: Values of ``acr`` that do.
        leeway_seconds: By how much the issuer's clock may differ.
        max_lifetime_seconds: Longest life of a token, from ``iat`` to ``exp``.
        refresh_seconds: Keys are fetched this often.
        unknown_key_seconds: For a key that is not known they are fetched at most this often.
        max_age_seconds: Keys that could not be confirmed for so long verify nothing.
        timeout_seconds: For one fetch.
    """

    issuer: SecureURL
    jwks: Annotated[str, AfterValidator(_as_key_source)]
    ca: Path | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA")
    typ: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = "at+jwt"
    audiences: Annotated[tuple[_Audience, ...], Field(max_length=16)] = ()
    claims: ClaimSettings = ClaimSettings()
    agents: dict[str, RecordName] | None = None
    role_names: dict[str, RecordName] | None = None
    user_prefix: Annotated[str, StringConstraints(max_length=64)] | None = None
    mfa_amr: Annotated[tuple[str, ...], Field(max_length=32)] = ()
    mfa_acr: Annotated[tuple[str, ...], Field(max_length=32)] = ()
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    max_lifetime_seconds: Annotated[int, Field(ge=60, le=30 * 86_400)] = 86_400
    refresh_seconds: Seconds = 600
    unknown_key_seconds: Seconds = 30
    max_age_seconds: Seconds = 86_400
    timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5


class CertificateSettings(Settings):
    """Who a client certificate stands for.

    Attributes:
        san: A name in it, compared exactly: ``spiffe://DOMAIN/PATH``, ``URI:…`` or ``DNS:host``.
        agent: The agent.
        user: On whose behalf it acts.
        roles: Its roles.
        mfa: A second factor was part of issuing it.
    """

    san: SAN
    agent: RecordName
    user: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    roles: Names = ()
    mfa: bool = False


class IdentitySettings(Settings):
    """Who may call, beside the API tokens of ``principals``.

    Attributes:
        resource: The gateway's own base URL, as clients write it. ``RESOURCE/servers/NAME/mcp`` is what a token for the
            server of that name must be meant for.
        issuers: Whose access tokens count.
        required_scopes: Scopes that a token needs for any server.
        server_scopes: Further scopes by server; anybody can read them, and so learns of the server.
        certificates: Who is known by a client certificate.
        require_certificate: Nobody is known without a certificate of ``certificates``; a token comes on top.
        require_bound_tokens: Access tokens must be bound to the client's certificate (RFC 8705).
    """

    resource: Annotated[SecureURL, AfterValidator(_as_resource)] | None = None
    issuers: Annotated[tuple[IssuerSettings, ...], Field(max_length=16)] = ()
    required_scopes: _Scopes = ()
    server_scopes: dict[str, _Scopes] = Field(default_factory=dict)
    certificates: Annotated[tuple[CertificateSettings, ...], Field(max_length=10_000)] = ()
    require_certificate: bool = False
    require_bound_tokens: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        refuse_twice([one.issuer for one in self.issuers], "an issuer is listed twice")
        refuse_twice([one.san for one in self.certificates], "a name stands for two principals")
        if self.issuers and self.resource is None:
            raise ValueError("issuers need resource: what tokens are meant for")
        if self.require_certificate and not self.certificates:
            raise ValueError("require_certificate needs certificates")
        if len(self.issuers) > 1:
            # Two issuers' names are two name spaces: "admin" of the one is not "admin" of the other.
            if any(one.agents is None for one in self.issuers):
                raise ValueError("several issuers need agents each: one must not name another's")
            if sum(one.claims.user is not None for one in self.issuers) > 1 and any(
                one.claims.user is not None and one.user_prefix is None for one in self.issuers
            ):
                raise ValueError("several issuers that name users need user_prefix each")
        return self

    def scopes_for(self, server: str) -> tuple[str, ...]:
        """Return the scopes that an access token needs for a server, in order."""
        return tuple(dict.fromkeys((*self.required_scopes, *self.server_scopes.get(server, ()))))
