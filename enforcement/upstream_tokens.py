"""The gateway's own access tokens for servers: asked for as a client of its own, kept until shortly before they expire.

A client's token has no part in this: what a server sees is what was issued to the gateway (no token passthrough).

* One request at a time for each server; calls that need the token wait for the same answer.
* A token is asked for anew before it expires, while calls go on with the one at hand.
* After a failure, calls fail at once for `_PAUSE_MS`, so that an issuer that is away is not run over.
* A token that the server itself refuses (401) is thrown away; the call that met that is not repeated.

INVARIANT: no token, secret or assertion goes into a record or a log.

Source: RFC 6749 sections 4.4 and 5; RFC 6750; RFC 7523 sections 2.2 and 3; RFC 8707; Model Context Protocol,
"Token Passthrough".
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import jwt
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enforcement.bounded import read_bounded
from enforcement.config import ServerSettings
from enforcement.config_files import authorizations, read_secret
from enforcement.config_upstream import ClientCredentials
from enforcement.issuer_keys import trusting
from ledger.canonical import parse_json
from ledger.clock import Clock, SystemClock
from ledger.errors import ConfigError, LedgerError, MalformedError, UpstreamError
from ledger.tasks import end

__all__ = ["UpstreamTokens", "check_credentials"]

_LOG: Final = structlog.get_logger(__name__)
_OK: Final = 200
_MS_PER_SECOND: Final = 1000
_MAX_ANSWER_BYTES: Final = 64 << 10
_JSON_DEPTH: Final = 8
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}=*")
_PAUSE_MS: Final = 5_000
_ASSERTION_SECONDS: Final = 60
# An issuer that does not say how long its token lives is asked again soon (RFC 6749 section 5.1 leaves it open).
_UNSAID_SECONDS: Final = 60
_MAX_SECONDS: Final = 86_400
_EARLY_SECONDS: Final = 60
_EARLY_PART: Final = 5  # but not before four fifths of its life are over


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    issued_ms: int
    renew_ms: int
    expires_ms: int


def check_credentials(servers: Sequence[ServerSettings]) -> None:
    """Refuse a list of servers for which the gateway has not what it shall present.

    Raises:
        ConfigError: A secret is not there, or cannot be used.
    """
    authorizations(servers)
    UpstreamTokens(SystemClock()).take_up(servers)


class UpstreamTokens:
    """The tokens for all servers that want one; an asynchronous context, owned by the event loop."""

    def __init__(self, clock: Clock) -> None:
        """Begin without servers.

        Args:
            clock: Tells when a token expires.
        """
        self._clock = clock
        self._grants: dict[str, _Grant] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, headers={"Accept": "application/json"}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await end(*(grant.asking for grant in self._grants.values()))
        if self._session is not None:
            await self._session.close()
            self._session = None

    def take_up(self, servers: Sequence[ServerSettings]) -> None:
        """Know these servers from now on, and no others; who is asked as before keeps its token.

        Raises:
            ConfigError: A secret is not there, or cannot be used.
        """
        grants: dict[str, _Grant] = {}
        for server in servers:
            if server.oauth is None:
                continue
            known = self._grants.get(server.name)
            same = known is not None and (known.settings, known.url) == (server.oauth, server.url)
            grants[server.name] = known if known is not None and same else _Grant(server.oauth, server.url, self._clock)
        self._grants = grants

    async def authorization(self, server: ServerSettings) -> str:
        """Return the ``Authorization`` value for a server that wants a token.

        Raises:
            UpstreamError: ``upstream_credentials``: there is no token to be had, or none for this server any more: a
                token for the one that has its name by now is not shown to it.
        """
        grant = self._grants.get(server.name)
        if grant is None or grant.url != server.url:
            raise UpstreamError("upstream_credentials")
        assert self._session is not None  # used inside its context
        return f"Bearer {await grant.token(self._session)}"

    def refused(self, server: ServerSettings) -> None:
        """Throw a server's token away: the server does not take it."""
        grant = self._grants.get(server.name)
        if grant is not None and grant.url == server.url:
            grant.forget()


class _Grant:
    """The token for one server."""

    def __init__(self, settings: ClientCredentials, url: str | None, clock: Clock) -> None:
        self.settings = settings
        self.url = url
        self.asking: asyncio.Task[None] | None = None
        self._clock = clock
        self._secret = read_secret(settings.secret)
        self._ssl = trusting(settings.ca)
        self._token: _Token | None = None
        self._failed_ms: int | None = None
        self._form()  # a key that does not sign is found now

    async def token(self, session: aiohttp.ClientSession) -> str:
        now = self._clock.now_ms()
        token = self._token
        fresh = token is not None and token.issued_ms <= now < token.renew_ms
        if not fresh and self.asking is None and self._may_ask(now):
            self.asking = asyncio.create_task(self._ask(session))
        if token is None or not token.issued_ms <= now < token.expires_ms:
            if self.asking is not None:
                await asyncio.shield(self.asking)
            token = self._token
        if token is None or self._clock.now_ms() >= token.expires_ms:
            raise UpstreamError("upstream_credentials")
        return token.value

    def forget(self) -> None:
        """Forget the token, unless it is so new that another would be refused as well."""
        if self._token is not None and self._clock.now_ms() - self._token.issued_ms >= _PAUSE_MS:
            self._token = None

    def _may_ask(self, now: int) -> bool:
        return self._failed_ms is None or not 0 <= now - self._failed_ms < _PAUSE_MS

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        """Ask for a token; a failure is told in the log, and to those who find none."""
        try:
            self._token = self._read(await self._post(session))
            self._failed_ms = None
        except (LedgerError, aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            self._failed_ms = self._clock.now_ms()
            _LOG.warning("upstream_token_not_issued", url=self.settings.token_url, error=type(error).__name__)
        finally:
            self.asking = None

    async def _post(self, session: aiohttp.ClientSession) -> bytes:
        settings = self.settings
        limit = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        async with session.post(
            settings.token_url,
            data=self._form(),
            headers=self._headers(),
            timeout=limit,
            allow_redirects=False,
            ssl=self._ssl,
        ) as response:
            if response.status != _OK:
                raise UpstreamError(f"the token endpoint answers with status {response.status}")
            return await read_bounded(response.content, _MAX_ANSWER_BYTES)

    def _headers(self) -> Mapping[str, str]:
        settings = self.settings
        if settings.client_secret is None or settings.client_auth == "post":
            return {}
        pair = f"{quote(settings.client_id, safe='')}:{quote(self._secret, safe='')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _form(self) -> dict[str, str]:
        settings = self.settings
        form = {"grant_type": "client_credentials"}
        if settings.scopes:
            form["scope"] = " ".join(settings.scopes)
        resource = None if settings.omit_resource else settings.resource or self.url
        if resource is not None:
            form["resource"] = resource
        if settings.audience is not None:
            form["audience"] = settings.audience
        if settings.private_key is not None:
            form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            form["client_assertion"] = self._assertion()
        elif settings.client_auth == "post":
            form |= {"client_id": settings.client_id, "client_secret": self._secret}
        return form

    def _assertion(self) -> str:
        settings, now = self.settings, self._clock.now_ms() // _MS_PER_SECOND
        claims: dict[str, Any] = {
            "iss": settings.client_id,
            "sub": settings.client_id,
            "aud": settings.assertion_audience or settings.token_url,
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
            "jti": secrets.token_urlsafe(16),
        }
        headers = {} if settings.key_id is None else {"kid": settings.key_id}
        try:
            key: Any = load_pem_private_key(self._secret.encode(), password=None)
            return jwt.encode(claims, key, algorithm=settings.algorithm, headers=headers)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise ConfigError(f"the private key of {settings.client_id} does not sign {settings.algorithm}") from error

    def _read(self, answer: bytes) -> _Token:
        value = parse_json(answer, max_depth=_JSON_DEPTH)
        if not isinstance(value, dict):
            raise MalformedError("the token endpoint answers no object")
        token, kind, seconds = value.get("access_token"), value.get("token_type"), value.get("expires_in")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise MalformedError("the token endpoint answers no token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise MalformedError("the token endpoint answers a token that is no bearer token")
        if seconds is None:
            seconds = _UNSAID_SECONDS
        if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds <= 0:
            raise MalformedError("the token endpoint does not say how long its token lives")
        life = min(seconds, _MAX_SECONDS)
        now = self._clock.now_ms()
        early = min(_EARLY_SECONDS, life / _EARLY_PART)
        return _Token(token, now, now + int((life - early) * _MS_PER_SECOND), now + life * _MS_PER_SECOND)
