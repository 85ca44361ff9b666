"""JSON Web Tokens as access tokens: what one says before it is believed, whether it is to be believed, who it names.

Pure. Which keys an issuer has is `enforcement.issuer_keys`' part. A token (line breaks are ours)::

    eyJhbGciOiJFUzI1NiIsImtpZCI6IjEiLCJ0eXAiOiJhdCtqd3QifQ.      {"alg":"ES256","kid":"1","typ":"at+jwt"}
    eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJodHR…    {"iss":"https://login.example","aud":"https://gw.ex…
    MEUCIQ…                                                     signature over both parts and the dot between them

INVARIANT: what a token's header says of keys (``jku``, ``jwk``, ``x5u``, ``x5c``) is never used, and of algorithms only
as far as the key that is known for its ``kid`` allows.

A claim that is no name is refused, never mangled into one. Nothing of a token stands in an error.

Source: RFC 7519; RFC 7515; RFC 8725; RFC 9068; RFC 8705 section 3.1; RFC 8707; RFC 8176.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

import jwt
import msgspec

from enforcement.config_identity import ClaimPath, IssuerSettings
from enforcement.identity import Cause, CredentialError, Identity
from enforcement.jwks import VerificationKey
from enforcement.tls_peer import TLSPeer
from ledger import body_fields
from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError
from ledger.notes import decode_base64

__all__ = ["MAX_TOKEN_CHARS", "KnownToken", "UnverifiedToken", "check_token", "parse_unverified_token"]

MAX_TOKEN_CHARS: Final = 8192
"""Longest token that is looked into."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_JSON_DEPTH: Final = 8
_MAX_SECONDS: Final = 1 << 40
_MAX_USER_CHARS: Final = 256
_MAX_ROLES: Final = 32
_MAX_SCOPES: Final = 256
_MAX_AUDIENCES: Final = 32
_MAX_KID_CHARS: Final = 256
_JWS: Final = jwt.PyJWS()
_AUTHN: Final = "oauth"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """What a token says before anybody has looked at its signature: enough to find the key, and good for nothing else.

    Attributes:
        text: The token; not shown in a representation.
        algorithm: ``alg``.
        kid: ``kid``.
        typ: ``typ``, in lower case and without ``application/``.
        issuer: ``iss``.
    """

    text: str
    algorithm: str
    kid: str | None
    typ: str | None
    issuer: str

    def __repr__(self) -> str:
        """Name the token without its text."""
        return f"UnverifiedToken({self.algorithm})"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownToken:
    """A token that was verified; it is good within its time, and on the connection that it is bound to.

    Attributes:
        identity: Who presents it.
        not_before: POSIX seconds, the leeway included.
        expires: POSIX seconds, the leeway included.
        certificate: SHA-256 of the certificate that it is bound to, hexadecimal; None if it is bound to none.
    """

    identity: Identity
    not_before: float
    expires: float
    certificate: str | None

    def check(self, now_ms: int, tls: TLSPeer | None) -> Identity:
        """Return who presents the token now, on this connection.

        Args:
            now_ms: POSIX milliseconds.
            tls: The connection.

        Raises:
            CredentialError: It has expired, is not good yet, or belongs to another connection.
        """
        now = now_ms / 1000
        if now >= self.expires:
            raise CredentialError(Cause.EXPIRED)
        if now < self.not_before:
            raise CredentialError(Cause.NOT_YET)
        if self.certificate is not None:
            presented = None if tls is None else tls.certificate_sha256
            if presented is None or not hmac.compare_digest(presented, self.certificate):
                raise CredentialError(Cause.NOT_BOUND_HERE)
        return self.identity


def parse_unverified_token(text: str) -> UnverifiedToken:
    """Read which key would verify a token. Nothing of it may be believed for that.

    Raises:
        CredentialError: Not a signed token, or one that asks for what is not supported.
    """
    if len(text) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(text):
        raise CredentialError(Cause.MALFORMED)
    first, second, _ = text.split(".")
    header, claims = _object(first), _object(second)
    algorithm, kid, typ, issuer = header.get("alg"), header.get("kid"), header.get("typ"), claims.get("iss")
    if "crit" in header or "b64" in header or "zip" in header:
        raise CredentialError(Cause.UNSUPPORTED)
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        raise CredentialError(Cause.MALFORMED)
    if not (kid is None or (isinstance(kid, str) and len(kid) <= _MAX_KID_CHARS)):
        raise CredentialError(Cause.MALFORMED)
    if not (typ is None or isinstance(typ, str)):
        raise CredentialError(Cause.MALFORMED)
    kind = None if typ is None else typ.lower().removeprefix("application/")
    return UnverifiedToken(text=text, algorithm=algorithm, kid=kid, typ=kind, issuer=issuer)


def _object(segment: str) -> dict[str, JSONValue]:
    try:
        value = parse_json(_bytes(segment), max_depth=_JSON_DEPTH)
    except MalformedError as error:
        raise CredentialError(Cause.MALFORMED) from error
    if not isinstance(value, dict):
        raise CredentialError(Cause.MALFORMED)
    return value


def _bytes(segment: str) -> bytes:
    """Undo base64url without padding; only the one canonical spelling is read.

    Raises:
        MalformedError: It is not that.
    """
    padded = segment.replace("-", "+").replace("_", "/") + "=" * (-len(segment) % 4)
    return decode_base64(padded)


def check_token(
    token: UnverifiedToken,
    key: VerificationKey,
    issuer: IssuerSettings,
    *,
    audiences: Collection[str],
    now_ms: int,
    require_bound: bool = False,
) -> KnownToken:
    """Verify a token.

    Args:
        token: What it says.
        key: The issuer's key of the token's ``kid``.
        issuer: Who must have issued it.
        audiences: Of these ``aud`` must name one.
        now_ms: POSIX milliseconds.
        require_bound: It must be bound to a certificate.

    Returns:
        The token; who presents it is said by `KnownToken.check`.

    Raises:
        CredentialError: It is not to be believed, or not meant for this server, or names nobody.
    """
    if token.algorithm not in issuer.algorithms or token.algorithm not in key.algorithms:
        raise CredentialError(Cause.ALGORITHM)
    if issuer.typ is not None and token.typ != issuer.typ.lower().removeprefix("application/"):
        raise CredentialError(Cause.TYPE)
    try:
        payload: bytes = _JWS.decode(token.text, key.key, algorithms=[token.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise CredentialError(Cause.SIGNATURE) from error
    claims = cast("dict[str, JSONValue]", parse_json(payload, max_depth=_JSON_DEPTH))  # read once before
    if claims.get("iss") != issuer.issuer:
        raise CredentialError(Cause.ISSUER)
    _check_audience(claims.get("aud"), audiences)
    not_before, expires = _times(claims, issuer, now_ms / 1000)
    return KnownToken(
        identity=_identity(claims, issuer),
        not_before=not_before,
        expires=expires,
        certificate=_certificate(claims, required=require_bound),
    )


def _check_audience(claim: JSONValue, audiences: Collection[str]) -> None:
    named = [claim] if isinstance(claim, str) else claim
    if not isinstance(named, list) or len(named) > _MAX_AUDIENCES:
        raise CredentialError(Cause.AUDIENCE)
    if not any(isinstance(one, str) and one in audiences for one in named):
        raise CredentialError(Cause.AUDIENCE)


def _times(claims: Mapping[str, JSONValue], issuer: IssuerSettings, now: float) -> tuple[float, float]:
    expires = _seconds(claims, "exp")
    issued, begins = _seconds(claims, "iat"), _seconds(claims, "nbf")
    if expires is None:
        raise CredentialError(Cause.MALFORMED)
    leeway = issuer.leeway_seconds
    if expires - (now if issued is None else issued) > issuer.max_lifetime_seconds + leeway:
        raise CredentialError(Cause.LIFETIME)
    not_before = max(issued or 0, begins or 0) - leeway
    if now >= expires + leeway:
        raise CredentialError(Cause.EXPIRED)
    if now < not_before:
        raise CredentialError(Cause.NOT_YET)
    return not_before, expires + leeway


def _seconds(claims: Mapping[str, JSONValue], name: str) -> float | None:
    value = claims.get(name)
    if name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= _MAX_SECONDS:
        raise CredentialError(Cause.MALFORMED)
    return float(value)


def _certificate(claims: Mapping[str, JSONValue], *, required: bool) -> str | None:
    """Return the digest of the certificate that a token is bound to, hexadecimal.

    A token that is bound to something else (a DPoP key, for one) is refused: nobody here checks that, and to let it
    pass would make a bearer token of it.
    """
    if "cnf" not in claims:
        if required:
            raise CredentialError(Cause.NOT_BOUND)
        return None
    bound = claims["cnf"]
    thumbprint = bound.get("x5t#S256") if isinstance(bound, dict) and len(bound) == 1 else None
    if not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        raise CredentialError(Cause.UNSUPPORTED)
    try:
        return _bytes(thumbprint).hex()
    except MalformedError as error:
        raise CredentialError(Cause.UNSUPPORTED) from error


# --- who it names


def _identity(claims: Mapping[str, JSONValue], issuer: IssuerSettings) -> Identity:
    said = _at(claims, issuer.claims.agent)
    if not isinstance(said, str):
        raise CredentialError(Cause.NAME)
    agent = _name(said) if issuer.agents is None else issuer.agents.get(said)
    if agent is None:
        raise CredentialError(Cause.AGENT)
    user = _user(claims, issuer, said)
    return Identity(
        # A token lives for minutes, a session for longer: the next token of the same caller is the same credential.
        credential=hashlib.sha256(msgspec.json.encode([_AUTHN, issuer.issuer, said, user])).hexdigest(),
        agent=agent,
        user=user,
        roles=_roles(claims, issuer),
        mfa=_second_factor(claims, issuer),
        authn=_AUTHN,
        scopes=frozenset(_words(_at(claims, issuer.claims.scope), _MAX_SCOPES)),
    )


def _at(claims: Mapping[str, JSONValue], path: ClaimPath) -> JSONValue:
    value: JSONValue = dict(claims)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _name(text: str) -> str:
    try:
        return msgspec.convert(text, body_fields.Name)
    except msgspec.ValidationError:
        raise CredentialError(Cause.NAME) from None


def _user(claims: Mapping[str, JSONValue], issuer: IssuerSettings, client: str) -> str | None:
    path = issuer.claims.user
    said = None if path is None else _at(claims, path)
    if said is None or said == client:  # the client acts for itself (RFC 9068 section 2.2)
        return None
    if not isinstance(said, str) or not said.isprintable() or said != said.strip():
        raise CredentialError(Cause.NAME)
    user = (issuer.user_prefix or "") + said
    if not 0 < len(user) <= _MAX_USER_CHARS or not said:
        raise CredentialError(Cause.NAME)
    return user


def _roles(claims: Mapping[str, JSONValue], issuer: IssuerSettings) -> tuple[str, ...]:
    path, names = issuer.claims.roles, issuer.role_names
    said = [] if path is None else _words(_at(claims, path), _MAX_SCOPES)
    roles = {_name(one) for one in said} if names is None else {names[one] for one in said if one in names}
    if len(roles) > _MAX_ROLES:
        raise CredentialError(Cause.NAME)
    return tuple(sorted(roles))


def _second_factor(claims: Mapping[str, JSONValue], issuer: IssuerSettings) -> bool:
    methods = claims.get("amr")
    used = methods if isinstance(methods, list) else []
    return any(one in issuer.mfa_amr for one in used) or claims.get("acr") in issuer.mfa_acr


def _words(value: JSONValue, at_most: int) -> list[str]:
    """Return the words of a claim that is a list of them, or one text with spaces between them."""
    words = value.split(" ") if isinstance(value, str) else [] if value is None else value
    if not isinstance(words, list) or len(words) > at_most:
        raise CredentialError(Cause.NAME)
    texts = [one for one in words if isinstance(one, str)]
    if len(texts) != len(words):
        raise CredentialError(Cause.NAME)
    return [one for one in texts if one]
