"""Who sends a request: every transport's one question, asked once for each request.

What counts as proof is described where it is checked: API tokens in `enforcement.identity`. Nothing else that a client
says of itself (``clientInfo``, forwarded headers, its session id) is read here.

INVARIANT 7: what goes wrong on the way to an identity ends without one.
"""

from __future__ import annotations

from typing import Final

import structlog

from enforcement.config import GatewayConfig
from enforcement.identity import Identity, Principals
from enforcement.mcp_headers import RawHeaders, single_header
from enforcement.tls_peer import TLSPeer

__all__ = ["Authenticator"]

_LOG: Final = structlog.get_logger(__name__)


class Authenticator:
    """Knows who may call. Owned by the event loop."""

    def __init__(self, config: GatewayConfig) -> None:
        """Take the principals of a configuration."""
        self._principals = Principals(config.principals)

    async def identify(self, headers: RawHeaders, tls: TLSPeer | None, *, server: str) -> Identity | None:
        """Return who sends a request, or None for a stranger.

        Args:
            headers: The request's header lines.
            tls: What the connection says of its other end; None without TLS.
            server: The server that it is for: a token may be good for one and not for another.
        """
        try:
            return self._principals.identify(single_header(headers, "authorization"))
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: a fault makes nobody known
            _LOG.error("identification_failed", server=server, tls=tls is not None, error=type(error).__name__)
            return None
