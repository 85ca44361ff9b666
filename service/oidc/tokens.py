"""ID tokens and logout tokens: whether they are to be believed, and what they say.

Pure. Where the provider's keys come from is `service.oidc.provider`'s part. An ID token's claims::

    {"iss":"https://login.example","sub":"248289761001","aud":"tallystick","nonce":"n-0S6_WzA2Mj","exp":1311281970,
     "iat":1311280970,"acr":"urn:example:silver","amr":["pwd","otp"],"sid":"08a5019c","at_hash":"77QmUPtjPfzWtF2AnpK9RQ"}

INVARIANT: what a token's header says of keys is never used, and no symmetric algorithm counts, whatever it says.
Nothing of a token stands in an error.

Source: OpenID Connect Core 1.0 sections 2, 3.1.3.7 and 3.1.3.8; Back-Channel Logout 1.0 section 2.6; RFC 8725.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

import jwt

from enforcement.access_tokens import UnverifiedToken, parse_unverified_token
from enforcement.identity import CredentialError
from enforcement.jwks import VerificationKey
from ledger.canonical import JSONValue, parse_json
from service.oidc.settings import ALGORITHMS, OIDCSettings
from service.problems import UnauthenticatedError

__all__ = ["Claims", "Ended", "check_id_token", "check_logout_token", "read_header"]

Claims = Mapping[str, JSONValue]
"""What a verified token says."""

_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_ID_TYPES: Final = (None, "jwt", "id+jwt")
_LOGOUT_TYPES: Final = (None, "jwt", "logout+jwt")
_LEEWAY_SECONDS: Final = 60
_MAX_AGE_SECONDS: Final = 600
_JSON_DEPTH: Final = 8
_JWS: Final = jwt.PyJWS()
_HASHES: Final = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Whose login a provider says has ended.

    Attributes:
        subject: Which person's; None if only a session is named.
        provider_session: Which session; None for all of the person's.
    """

    subject: str | None
    provider_session: str | None


def read_header(text: str) -> UnverifiedToken:
    """Return which key a token names; nothing of it is believed for that.

    Raises:
        UnauthenticatedError: It is no signed token, or asks for what does not count.
    """
    try:
        token = parse_unverified_token(text)
    except CredentialError as error:
        raise UnauthenticatedError("the provider's token cannot be read") from error
    if token.algorithm not in ALGORITHMS:
        raise UnauthenticatedError("the provider's token is not signed with a key that could be checked")
    return token


def _verified(
    token: UnverifiedToken,
    key: VerificationKey | None,
    provider: OIDCSettings,
    types: tuple[str | None, ...],
    now: float,
) -> Claims:
    """Return the claims of a token of this provider, for this client, of this time."""
    if key is None or token.algorithm not in key.algorithms or token.typ not in types:
        raise UnauthenticatedError("the provider's token is not signed with a key of the provider")
    try:
        payload: bytes = _JWS.decode(token.text, key.key, algorithms=[token.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise UnauthenticatedError("the provider's token does not bear its signature") from error
    claims = cast("dict[str, JSONValue]", parse_json(payload, max_depth=_JSON_DEPTH))  # read once before
    if claims.get("iss") != provider.issuer:
        raise UnauthenticatedError("the token is of another provider")
    _check_audience(claims, provider.client_id)
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if now >= expires + _LEEWAY_SECONDS or now - issued > _MAX_AGE_SECONDS + _LEEWAY_SECONDS:
        raise UnauthenticatedError("the provider's token has expired")
    begins = _seconds(claims, "nbf") if "nbf" in claims else issued
    if max(issued, begins) > now + _LEEWAY_SECONDS:
        raise UnauthenticatedError("the provider's token is of the future")
    return claims


def _check_audience(claims: Claims, client_id: str) -> None:
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    party = claims.get("azp")
    # No other client is trusted: who shares a token with us must have had it made for us (azp).
    alone = named == [client_id]
    if not isinstance(named, list) or client_id not in named or not (alone or party == client_id):
        raise UnauthenticatedError("the provider's token is meant for somebody else")
    if "azp" in claims and party != client_id:
        raise UnauthenticatedError("the provider's token was made for another client")


def _seconds(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value < 0:
        raise UnauthenticatedError(f"the provider's token has no {name}")
    return float(value)


def check_id_token(
    token: UnverifiedToken,
    key: VerificationKey | None,
    provider: OIDCSettings,
    *,
    nonce: str,
    access_token: str | None,
    now_ms: int,
) -> Claims:
    """Verify an ID token that the token endpoint has just handed out.

    Args:
        token: What it says of itself.
        key: The provider's key of that name; None if it has none.
        provider: Who must have issued it, and for whom.
        nonce: What was sent with the request that it answers.
        access_token: What came beside it, if anything did.
        now_ms: POSIX milliseconds.

    Returns:
        Its claims.

    Raises:
        UnauthenticatedError: It is not to be believed, or not for this login.
    """
    claims = _verified(token, key, provider, _ID_TYPES, now_ms / 1000)
    said = claims.get("nonce")
    if not nonce or not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise UnauthenticatedError("the provider's token is of another login")
    if "events" in claims:
        raise UnauthenticatedError("the provider's token is no ID token")
    if "at_hash" in claims and claims["at_hash"] != _half(access_token or "", token.algorithm):
        raise UnauthenticatedError("the provider's token is of another access token")
    return claims


def _half(value: str, algorithm: str) -> str:
    """Return the left half of a digest; OpenID Connect Core section 3.1.3.6."""
    digest = _HASHES.get(algorithm[-3:], hashlib.sha512)(value.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def check_logout_token(
    token: UnverifiedToken, key: VerificationKey | None, provider: OIDCSettings, *, now_ms: int
) -> Ended:
    """Verify that a provider says a login has ended.

    Raises:
        UnauthenticatedError: It does not.
    """
    claims = _verified(token, key, provider, _LOGOUT_TYPES, now_ms / 1000)
    events = claims.get("events")
    if "nonce" in claims or not isinstance(events, dict) or not isinstance(events.get(_LOGOUT_EVENT), dict):
        raise UnauthenticatedError("the provider's token is no logout token")
    subject, session = claims.get("sub"), claims.get("sid")
    if not all(one is None or (isinstance(one, str) and one) for one in (subject, session)):
        raise UnauthenticatedError("the logout token names nobody")
    if subject is None and session is None:
        raise UnauthenticatedError("the logout token names nobody")
    return Ended(subject=cast("str | None", subject), provider_session=cast("str | None", session))
