"""Certificates in use: taken up anew when their files change, and told of before they end.

Files are compared by content, every few seconds: whoever renews certificates need not tell anybody. A pair that cannot
be used is refused and reported, and the old one goes on. New connections use the new certificate, old ones stay as they
are.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from enforcement.metrics import TLSMetrics
from enforcement.tls_files import Rotating
from ledger.errors import ConfigError
from ledger.tasks import Repeating

__all__ = ["CertificateWatch"]

_LOG: Final = structlog.get_logger(__name__)
_LOOK_SECONDS: Final = 10.0
_MS_PER_SECOND: Final = 1000


class CertificateWatch:
    """Looks after all certificates of one process. Owned by the event loop."""

    def __init__(self, metrics: TLSMetrics, *, interval_seconds: float = _LOOK_SECONDS) -> None:
        """Take what is told.

        Args:
            metrics: Shows when certificates end, and whether the newest could be used.
            interval_seconds: How often files are compared.
        """
        self._metrics = metrics
        self._interval = interval_seconds
        self._watched: list[Rotating[Any]] = []
        self._refused: dict[str, str] = {}
        self._work = Repeating(
            "certificates", self._turn, first_seconds=interval_seconds, retry_seconds=interval_seconds
        )

    def add(self, rotating: Rotating[Any]) -> None:
        """Look after one more; another of the same name is forgotten."""
        self._watched = [*(other for other in self._watched if other.name != rotating.name), rotating]
        self._refused.pop(rotating.name, None)
        self._tell(rotating)

    def forget(self, rotating: Rotating[Any]) -> None:
        """Look after it no more."""
        self._watched = [other for other in self._watched if other is not rotating]
        if all(other.name != rotating.name for other in self._watched):
            self._refused.pop(rotating.name, None)
            self._metrics.forget_certificate(rotating.name)

    def start(self) -> None:
        """Begin."""
        self._work.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._work.stop()

    async def look(self) -> None:
        """Take up what has changed."""
        for rotating in self._watched:
            try:
                renewed = await asyncio.to_thread(rotating.refresh)
            except ConfigError as error:
                self._report(rotating, str(error))
                continue
            self._refused.pop(rotating.name, None)
            self._tell(rotating)
            if renewed:
                _LOG.info("certificate_renewed", use=rotating.name, expires_ms=rotating.expires_ms)

    def readiness(self) -> dict[str, dict[str, object]]:
        """Return, for each use, when its certificate ends and why a newer one was refused, if one was."""
        return {
            rotating.name: {"expires_ms": rotating.expires_ms, "refused": self._refused.get(rotating.name)}
            for rotating in self._watched
        }

    async def _turn(self) -> float:
        await self.look()
        return self._interval

    def _report(self, rotating: Rotating[Any], detail: str) -> None:
        if self._refused.get(rotating.name) != detail:  # said once, not at every look
            _LOG.error("certificate_refused", use=rotating.name, detail=detail)
        self._refused[rotating.name] = detail
        self._tell(rotating)

    def _tell(self, rotating: Rotating[Any]) -> None:
        self._metrics.certificate_refused.labels(rotating.name).set(rotating.name in self._refused)
        if rotating.expires_ms is not None:
            self._metrics.certificate_expires.labels(rotating.name).set(rotating.expires_ms / _MS_PER_SECOND)
