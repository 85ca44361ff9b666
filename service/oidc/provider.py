"""An OpenID provider as this service meets it: its metadata, its keys, and the exchange of a code for an ID token.

The metadata is fetched when somebody first logs in, and again after a while; its keys are
`enforcement.issuer_keys`' part.

INVARIANT: what the provider says of itself counts only if it says it as the issuer that the settings name, and every
address that we send something to is https, or on this machine. No redirect is followed; answers are bounded.

Source: OpenID Connect Discovery 1.0; Core 1.0 section 3.1; RFC 7636 (PKCE); RFC 9700; RFC 9207.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import structlog

from enforcement.bounded import read_bounded
from enforcement.config_identity import IssuerSettings, is_loopback
from enforcement.issuer_keys import IssuerKeys, trusting
from ledger.canonical import JSONValue, parse_json
from ledger.clock import Clock
from ledger.errors import LedgerError, MalformedError, UpstreamError
from service.oidc.settings import ALGORITHMS, OIDCSettings
from service.oidc.tokens import Claims, Ended, check_id_token, check_logout_token, read_header
from service.problems import UnauthenticatedError

__all__ = ["OpenIDProvider", "challenge_of"]

_LOG: Final = structlog.get_logger(__name__)
_MAX_BYTES: Final = 256 << 10
_JSON_DEPTH: Final = 8
_SECONDS: Final = 10.0
_FRESH_MS: Final = 600_000
_OK: Final = 200
_MAX_URL_CHARS: Final = 2048


def challenge_of(verifier: str) -> str:
    """Return the challenge for a verifier; RFC 7636 section 4.2, method S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    authorization: str
    token: str
    jwks: str
    end_session: str | None
    post: bool
    names_itself: bool
    fetched_ms: int


class OpenIDProvider:
    """The provider of one log; owned by the event loop, between `start` and `stop`.

    Attributes:
        settings: What is demanded of it.
    """

    def __init__(self, settings: OIDCSettings, clock: Clock) -> None:
        """Fetch nothing yet.

        Raises:
            ConfigError: The certificates that must vouch for its host cannot be used.
        """
        self.settings = settings
        self._clock = clock
        self._ssl = trusting(settings.ca)
        self._session: aiohttp.ClientSession | None = None
        self._metadata: _Metadata | None = None
        self._keys: IssuerKeys | None = None
        self._looking = asyncio.Lock()

    async def start(self) -> None:
        """Be ready to ask."""
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, headers={"Accept": "application/json"}
        )

    async def stop(self) -> None:
        """End what is under way."""
        if self._keys is not None:
            await self._keys.stop()
            self._keys = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- where a login goes

    async def login_url(self, *, state: str, nonce: str, verifier: str) -> str:
        """Return where a browser has to go to log in.

        Raises:
            UpstreamError: The provider does not answer, or not as it should.
        """
        metadata = await self._known()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect_uri,
            "scope": self.settings.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        return _with_query(metadata.authorization, query)

    async def logout_url(self, back: str) -> str | None:
        """Return where somebody logs out of the provider itself, to come back afterwards; None if it has no such place.

        Args:
            back: To which path of ours.

        Raises:
            UpstreamError: The provider does not answer, or not as it should.
        """
        metadata = await self._known()
        if metadata.end_session is None:
            return None
        # Where we come back to from a login, so that both have to be registered under one address.
        ours = self.settings.redirect_uri.removesuffix("/login/callback") + back
        return _with_query(
            metadata.end_session, {"client_id": self.settings.client_id, "post_logout_redirect_uri": ours}
        )

    # --- what comes back

    async def redeem(self, code: str, *, nonce: str, verifier: str, issuer: str | None) -> Claims:
        """Return what the provider says of whoever it sent back with a code.

        Args:
            code: The code.
            nonce: What was sent with the request.
            verifier: Of the challenge that was.
            issuer: ``iss`` beside the code (RFC 9207), if there was one.

        Raises:
            UnauthenticatedError: The provider does not know the code, or its token is not to be believed.
            UpstreamError: The provider does not answer, or not as it should.
        """
        metadata = await self._known()
        if issuer != self.settings.issuer and (issuer is not None or metadata.names_itself):
            raise UnauthenticatedError("the answer is of another provider than was asked")
        answer = await self._exchange(metadata, code, verifier)
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str):
            raise UnauthenticatedError("the provider handed out no ID token")
        token = read_header(id_token)
        assert self._keys is not None  # known with the metadata
        key = await self._keys.find(token.kid, token.algorithm)
        return check_id_token(
            token,
            key,
            self.settings,
            nonce=nonce,
            access_token=access_token if isinstance(access_token, str) else None,
            now_ms=self._clock.now_ms(),
        )

    async def ended(self, logout_token: str) -> Ended:
        """Return whose login the provider says has ended.

        Raises:
            UnauthenticatedError: The token is not to be believed.
            UpstreamError: The provider's keys cannot be had.
        """
        await self._known()
        token = read_header(logout_token)
        assert self._keys is not None  # known with the metadata
        key = await self._keys.find(token.kid, token.algorithm)
        return check_logout_token(token, key, self.settings, now_ms=self._clock.now_ms())

    async def _exchange(self, metadata: _Metadata, code: str, verifier: str) -> Mapping[str, JSONValue]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        if not self.settings.client_secret:
            form["client_id"] = self.settings.client_id
        elif metadata.post:
            form |= {"client_id": self.settings.client_id, "client_secret": self.settings.client_secret}
        else:
            pair = f"{quote(self.settings.client_id, safe='')}:{quote(self.settings.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        status, answer = await self._ask("POST", metadata.token, data=form, headers=headers)
        if status != _OK:
            # 400 invalid_grant above all: a code that was used, has expired, or was never one.
            raise UnauthenticatedError("the provider does not accept the code")
        return answer

    # --- what is known of it

    async def _known(self) -> _Metadata:
        async with self._looking:
            known, now_ms = self._metadata, self._clock.now_ms()
            if known is not None and self._keys is not None and 0 <= now_ms - known.fetched_ms < _FRESH_MS:
                return known
            try:
                found = await self._fetch()
            except LedgerError:
                if known is None or self._keys is None:
                    raise
                _LOG.warning("provider_metadata_not_fetched", issuer=self.settings.issuer)
                return known
            if self._keys is None or known is None or known.jwks != found.jwks:
                await self._follow(found.jwks)
            self._metadata = found
            return found

    async def _follow(self, jwks: str) -> None:
        if self._keys is not None:
            await self._keys.stop()
        assert self._session is not None  # started
        settings = IssuerSettings(issuer=self.settings.issuer, jwks=jwks, ca=self.settings.ca, algorithms=ALGORITHMS)
        self._keys = IssuerKeys(settings, self._clock)
        self._keys.start(self._session)

    async def _fetch(self) -> _Metadata:
        issuer = self.settings.issuer
        status, said = await self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if status != _OK:
            raise UpstreamError(f"the OpenID provider answers with status {status}")
        # Discovery section 4.3: or another provider could speak for this one.
        if said.get("issuer") != issuer:
            raise UpstreamError("the OpenID provider calls itself otherwise than TALLYSTICK_OIDC_ISSUER")
        end_session, methods = said.get("end_session_endpoint"), said.get("token_endpoint_auth_methods_supported")
        return _Metadata(
            authorization=_address(said.get("authorization_endpoint")),
            token=_address(said.get("token_endpoint")),
            jwks=_address(said.get("jwks_uri")),
            end_session=None if end_session is None else _address(end_session),
            post=isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods,
            names_itself=said.get("authorization_response_iss_parameter_supported") is True,
            fetched_ms=self._clock.now_ms(),
        )

    async def _ask(self, method: str, url: str, **options: Any) -> tuple[int, Mapping[str, JSONValue]]:  # noqa: ANN401
        if self._session is None:
            raise UpstreamError("the OpenID provider is not asked any more")
        limit = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with self._session.request(
                method, url, timeout=limit, allow_redirects=False, ssl=self._ssl, **options
            ) as response:
                body = await read_bounded(response.content, _MAX_BYTES)
                status = response.status
        except (aiohttp.ClientError, OSError, ValueError, MalformedError) as error:  # TimeoutError is an OSError
            raise UpstreamError("the OpenID provider does not answer") from error
        if status != _OK:
            return status, {}
        try:
            value = parse_json(body, max_depth=_JSON_DEPTH)
        except MalformedError as error:
            raise UpstreamError("the OpenID provider answers what cannot be read") from error
        if not isinstance(value, dict):
            raise UpstreamError("the OpenID provider answers what cannot be read")
        return status, value


def _address(value: JSONValue) -> str:
    parts = urlsplit(value) if isinstance(value, str) and len(value) <= _MAX_URL_CHARS else None
    if parts is None or not parts.hostname or parts.username or parts.fragment or not str(value).isprintable():
        raise UpstreamError("the OpenID provider names no address where one is needed")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise UpstreamError("the OpenID provider names an address that is not https")
    return str(value)


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"
