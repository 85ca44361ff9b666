"""What the gateway counts, for Prometheus, in a registry of its own.

Labels are names of the configuration and words of this code; nothing that a caller can choose becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from policies.signals import Signals, finding_kinds

__all__ = ["Metrics", "TLSMetrics"]

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class TLSMetrics:
    """What is counted of TLS, and shown of certificates, in somebody's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all of it."""
        self.connections = Counter(
            "tallystick_tls_connections",
            "Connections whose TLS handshake succeeded, by key agreement",
            ["hop", "version", "group"],
            registry=registry,
        )
        self.refused = Counter(
            "tallystick_tls_refused",
            "Connections of clients that ended with their TLS handshake, by cause",
            ["reason"],
            registry=registry,
        )
        self.certificate_expires = Gauge(
            "tallystick_certificate_expires_timestamp_seconds",
            "When a certificate ends, POSIX time",
            ["use"],
            registry=registry,
        )
        self.certificate_refused = Gauge(
            "tallystick_certificate_refused",
            "1 if the newest files of a certificate could not be used, and older ones go on",
            ["use"],
            registry=registry,
        )

    def forget_certificate(self, use: str) -> None:
        """Show nothing more of a certificate that is no longer used."""
        for gauge in (self.certificate_expires, self.certificate_refused):
            gauge.remove_by_labels({"use": use})


class Metrics:
    """The gateway's counters and gauges."""

    def __init__(self) -> None:
        """Make a registry; two gateways in one process have two."""
        self.registry = CollectorRegistry()
        self.decisions = Counter(
            "tallystick_decisions",
            "Decisions recorded",
            ["server", "decision", "enforcement", "mode"],
            registry=self.registry,
        )
        self.denials = Counter(
            "tallystick_denials",
            "Messages that went no further, by cause",
            ["server", "reason"],
            registry=self.registry,
        )
        self.refused_credentials = Counter(
            "tallystick_refused_credentials",
            "Requests whose credentials made nobody known, by cause",
            ["cause"],
            registry=self.registry,
        )
        self.drift = Counter(
            "tallystick_drift",
            "Decisions on calls outside their tool's description, by kind",
            ["server", "kind"],
            registry=self.registry,
        )
        self.behaviour = Counter(
            "tallystick_behaviour_flags",
            "Departures of agents from what they usually do, by detector",
            ["detector"],
            registry=self.registry,
        )
        self.unprofiled = Counter(
            "tallystick_unprofiled_calls",
            "Calls of agents of which no profile is kept, because there are too many",
            registry=self.registry,
        )
        self.unrecorded = Counter(
            "tallystick_unrecorded_denials", "Denials that could not be recorded", registry=self.registry
        )
        self.outcomes = Counter(
            "tallystick_outcomes", "Outcomes recorded", ["server", "status"], registry=self.registry
        )
        self.hidden = Counter(
            "tallystick_hidden_entries",
            "Entries of lists that a caller was not shown, or on an observed server would not have been",
            ["server"],
            registry=self.registry,
        )
        self.findings = Counter(
            "tallystick_findings",
            "What inspection found, by kind; once for a message or answer",
            ["server", "where", "kind"],
            registry=self.registry,
        )
        self.partial_inspections = Counter(
            "tallystick_partial_inspections",
            "Messages and answers that were not looked through to their end",
            ["server", "where"],
            registry=self.registry,
        )
        self.shadows = Counter(
            "tallystick_shadow_decisions",
            "Decisions held against the canary, by what came of it",
            ["result"],
            registry=self.registry,
        )
        self.reservations = Counter(
            "tallystick_window_reservations",
            "Questions to the service for strict windows, by what came of it",
            ["result"],
            registry=self.registry,
        )
        self.spans = Counter(
            "tallystick_telemetry_spans",
            "Spans for the collector, by what came of them",
            ["result"],
            registry=self.registry,
        )
        self.decision_seconds = Histogram(
            "tallystick_decision_seconds",
            "From a message's arrival to its durable decision",
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.upstream_seconds = Histogram(
            "tallystick_upstream_seconds",
            "From forwarding to the end of the answer",
            ["server"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.tls = TLSMetrics(self.registry)
        self.in_flight = Gauge("tallystick_calls_in_flight", "Calls under way", registry=self.registry)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when somebody asks."""
        Gauge(f"tallystick_{name}", text, registry=self.registry).set_function(read)

    def count_findings(self, server: str, where: str, signals: Signals) -> None:
        """Count what inspection found in one message or answer.

        Args:
            server: The server.
            where: ``message`` or ``answer``.
            signals: What was found.
        """
        for kind in finding_kinds(signals.findings):
            self.findings.labels(server, where, kind).inc()
        if signals.inspected == "partial":
            self.partial_inspections.labels(server, where).inc()

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)
