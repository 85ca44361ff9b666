"""The gateway as an OAuth 2.1 resource server: access tokens of the configured issuers, and memory of those verified.

Reading and checking one token is `enforcement.access_tokens`' part, the issuers' keys `enforcement.issuer_keys`'.

A token is verified once and then known by its digest, so that a call costs no signature. What it was found to be holds
within its time, on the connection that it is bound to, and as long as the issuer's keys are the same. No token is
looked up at its issuer: one that is revoked there is good here until it expires (``docs/identity.md``, "Revocation").

INVARIANT: no token, and no id of one, goes into a record, a log or a metric, or on to a server.

Source: OAuth 2.1 section 5; Model Context Protocol, "Authorization"; RFC 8707.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

import aiohttp

from enforcement.access_tokens import KnownToken, check_token, parse_unverified_token
from enforcement.config_identity import IdentitySettings
from enforcement.identity import Cause, CredentialError, Identity
from enforcement.issuer_keys import IssuerKeys
from enforcement.resources import resource_of
from enforcement.tls_peer import TLSPeer
from ledger.clock import Clock

__all__ = ["TokenVerifier"]

_MAX_KNOWN: Final = 4096


class TokenVerifier:
    """Knows who presents an access token; an asynchronous context, owned by the event loop."""

    def __init__(self, settings: IdentitySettings, clock: Clock) -> None:
        """Take the issuers.

        Args:
            settings: Issuers, and what a token must be meant for.
            clock: Tells whether a token has expired.

        Raises:
            ConfigError: The file with the certificates that must vouch for an issuer's host cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._issuers = {one.issuer: IssuerKeys(one, clock) for one in settings.issuers}
        self._known: OrderedDict[tuple[bytes, str], tuple[KnownToken, IssuerKeys, int]] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if self._issuers:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, headers={"Accept": "application/json"}
            )
            for keys in self._issuers.values():
                keys.start(self._session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for keys in self._issuers.values():
            await keys.stop()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def identify(self, text: str, tls: TLSPeer | None, *, server: str) -> Identity:
        """Return who presents a token.

        Args:
            text: The token.
            tls: The connection that it came on.
            server: The server that it is for.

        Raises:
            CredentialError: Nobody that is known.
        """
        if not self._issuers:
            raise CredentialError(Cause.UNKNOWN)
        now_ms, name = self._clock.now_ms(), (hashlib.sha256(text.encode()).digest(), server)
        known, keys, generation = self._known.get(name, (None, None, 0))
        if known is None or keys is None or not keys.usable or keys.generation != generation:
            self._known.pop(name, None)
            known, keys = await self._verify(text, server, now_ms)
            self._known[name] = (known, keys, keys.generation)
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return known.check(now_ms, tls)

    async def _verify(self, text: str, server: str, now_ms: int) -> tuple[KnownToken, IssuerKeys]:
        token = parse_unverified_token(text)
        keys = self._issuers.get(token.issuer)
        if keys is None:
            raise CredentialError(Cause.ISSUER)
        if token.algorithm not in keys.settings.algorithms:
            raise CredentialError(Cause.ALGORITHM)
        key = await keys.find(token.kid, token.algorithm)
        if key is None:
            raise CredentialError(Cause.KEY)
        assert self._settings.resource is not None  # issuers have one
        # On the event loop: the largest key takes a fraction of the time that a stranger's record takes to be stored.
        known = check_token(
            token,
            key,
            keys.settings,
            audiences={resource_of(self._settings.resource, server), *keys.settings.audiences},
            now_ms=now_ms,
            require_bound=self._settings.require_bound_tokens,
        )
        return known, keys
