"""How the gateways of a log stand, for Prometheus: numbers only, by no gateway's name.

What the states and warnings mean is `service.fleet`'s part, and who they are about is told by ``GET /v1/fleet``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from ledger.bodies import Heartbeat
from ledger.errors import LedgerError
from service.fleet import Fleet, State, Trouble

__all__ = ["FleetMetrics"]

_LOG: Final = structlog.get_logger(__name__)
_MS_PER_SECOND: Final = 1000
_UNKNOWN: Final = float("nan")


class FleetMetrics:
    """Gauges of one log's gateways, that are enrolled and not retired."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all of them."""
        self._looking = threading.Lock()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tallystick_fleet_{name}", text, labels, registry=registry)

        self._gateways = gauge("gateways", "Gateways by how they stand", "state")
        self._warnings = gauge("warnings", "Gateways with something to look at, by what it is", "warning")
        self._records = gauge("spool_records", "Records that waited in gateways at their last heartbeats")
        self._bytes = gauge("spool_bytes", "Bytes that waited in gateways at their last heartbeats")
        self._oldest = gauge("spool_oldest_seconds", "For how long the oldest of them had waited")
        self._set_aside = gauge("set_aside_records", "Records that gateways keep because the ledger refused them")
        self._observed = gauge("observed", "Servers and tools, over all gateways, whose decisions are not enforced")
        self._clock = gauge("clock_offset_seconds", "Largest offset of a gateway's clock, either way")

    def refresh(self, look: Callable[[], Fleet]) -> None:
        """Bring the gauges up to date; NaN where nobody can say how the gateways stand.

        Anybody may ask for metrics, and a look asks the database: there is one at a time, and who asks meanwhile is
        told what was so before.

        Args:
            look: Returns the gateways as they stand now.
        """
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._refresh(look)
        finally:
            self._looking.release()

    def _refresh(self, look: Callable[[], Fleet]) -> None:
        try:
            fleet = look()
        except LedgerError as error:
            _LOG.warning("fleet_not_measured", error=type(error).__name__)
            self._forget()
            return
        self._show(fleet)

    def _forget(self) -> None:
        for state in State:
            self._gateways.labels(state.value).set(_UNKNOWN)
        for warning in Trouble:
            self._warnings.labels(warning.value).set(_UNKNOWN)
        said = (self._records, self._bytes, self._oldest, self._set_aside, self._observed, self._clock)
        for gauge in said:
            gauge.set(_UNKNOWN)

    def _show(self, fleet: Fleet) -> None:
        states = Counter(member.state for member in fleet.members)
        for state in State:
            self._gateways.labels(state.value).set(states[state])
        warnings = Counter(warning for member in fleet.members for warning in member.warnings)
        for warning in Trouble:
            self._warnings.labels(warning.value).set(warnings[warning])
        said: list[Heartbeat] = [member.beat.body for member in fleet.members if member.beat is not None]
        self._records.set(sum(body.spool_depth for body in said))
        self._bytes.set(sum(body.spool_bytes for body in said))
        self._oldest.set(max((body.oldest_ms or 0 for body in said), default=0) / _MS_PER_SECOND)
        self._set_aside.set(sum(body.set_aside for body in said))
        self._observed.set(sum(body.observed for body in said))
        self._clock.set(max((abs(body.clock_offset_ms or 0) for body in said), default=0) / _MS_PER_SECOND)
