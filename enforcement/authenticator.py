"""Who sends a request: the one question of every transport that takes requests from the network, asked once for each.

What counts as proof is described where it is checked: API tokens and certificates in `enforcement.identity`, access
tokens in `enforcement.oauth`. Nothing else that a client says of itself (``clientInfo``, forwarded headers, its session
id, a token in the query) is read.

INVARIANT: whatever credential is presented must count. A token that does not is not made good by a certificate that
does, nor the other way round, and the two must name the same agent.

INVARIANT 7: what goes wrong on the way to an identity ends without one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import structlog

from enforcement.config import GatewayConfig
from enforcement.identity import Cause, Certificates, CredentialError, Identity, Principals, bearer_token, certified
from enforcement.mcp_headers import RawHeaders
from enforcement.metrics import Metrics
from enforcement.oauth import TokenVerifier
from enforcement.tls_peer import TLSPeer
from ledger.clock import Clock

__all__ = ["Authenticator"]

_LOG: Final = structlog.get_logger(__name__)


class Authenticator:
    """Knows who may call; an asynchronous context, owned by the event loop."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        """Take the principals of a configuration.

        Args:
            config: Principals, issuers, certificates.
            clock: Tells what has expired.
            metrics: Counts what was refused, by cause.

        Raises:
            ConfigError: A file that must vouch for an issuer's host cannot be used.
        """
        self._clock = clock
        self._metrics = metrics
        self._require_certificate = config.identity.require_certificate
        self._principals = Principals(config.principals)
        self._certificates = Certificates(config.identity.certificates)
        self._tokens = TokenVerifier(config.identity, clock)

    async def __aenter__(self) -> Self:
        await self._tokens.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._tokens.__aexit__(kind, error, traceback)

    async def identify(self, headers: RawHeaders, tls: TLSPeer | None, *, server: str) -> Identity | None:
        """Return who sends a request, or None for a stranger.

        Args:
            headers: The request's header lines.
            tls: What the connection says of its other end; None without TLS.
            server: The server that it is for: a token may be good for one and not for another.
        """
        try:
            return await self._identify(headers, tls, server)
        except CredentialError as error:
            self._metrics.refused_credentials.labels(error.cause.value).inc()
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: a fault makes nobody known
            _LOG.error("identification_failed", error=type(error).__name__)
            self._metrics.refused_credentials.labels(Cause.INTERNAL.value).inc()
        return None

    async def _identify(self, headers: RawHeaders, tls: TLSPeer | None, server: str) -> Identity | None:
        certificate = self._certificates.identify(tls)
        token = bearer_token(headers)
        if certificate is None and self._require_certificate:
            raise CredentialError(Cause.NO_CERTIFICATE)
        if token is None:
            return certificate
        identity = self._principals.identify(token, self._clock.now_ms())
        if identity is None:
            identity = await self._tokens.identify(token, tls, server=server)
        return certified(identity, certificate)
