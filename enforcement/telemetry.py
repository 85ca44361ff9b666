"""Spans and metrics on their way to a collector: OTLP over HTTP, by the OpenTelemetry SDK.

The SDK is imported by nothing else and only where `TelemetrySettings` are set: without them no call pays for it.

What is elsewhere: which spans there are (`enforcement.call_spans`). No provider is made the process's own: a program
that the enforcement point runs inside of may have one.

INVARIANT: no call waits for a collector, and none is lost with it. What is ended waits in a bounded queue that a thread
of its own empties; what finds it full is dropped and counted; the end of the gateway waits for `stop_seconds` and no
longer than one request takes beyond that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider, Tracer
from opentelemetry.util.re import parse_env_headers

from enforcement.config_files import read_secret
from enforcement.config_telemetry import TelemetrySettings
from ledger.errors import ConfigError

__all__ = ["Result", "Telemetry"]

Result: TypeAlias = Literal["sent", "failed", "dropped"]
"""What became of a span."""

_SCOPE: Final = "tallystick"
_MS_PER_SECOND: Final = 1000
_BATCH_SPANS: Final = 512


class _CountedExporter(SpanExporter):
    """Says of every span whether it was sent."""

    def __init__(self, inner: SpanExporter, count: Callable[[Result, int], None]) -> None:
        self._inner = inner
        self._count = count

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            self._count("sent" if result is SpanExportResult.SUCCESS else "failed", len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


class _BoundedProcessor(SpanProcessor):
    """Lets no more spans wait than may; the SDK's own queue would forget the oldest and count nothing."""

    def __init__(
        self, settings: TelemetrySettings, exporter: SpanExporter, count: Callable[[Result, int], None]
    ) -> None:
        self._most = settings.queue_spans
        self._count = count
        self._lock = threading.Lock()
        # Guarded by the lock: spans end on one thread and are sent on another.
        self._waiting = 0
        self._given_up = False
        # What is being sent counts as waiting here, and no more in the SDK's own queue: that one never fills first.
        self._batches: SpanProcessor = BatchSpanProcessor(
            _CountedExporter(exporter, self._done),
            max_queue_size=settings.queue_spans,
            max_export_batch_size=min(_BATCH_SPANS, settings.queue_spans),
        )

    def _done(self, result: Result, spans: int) -> None:
        with self._lock:
            if self._given_up:  # they were counted as dropped; a request that outlasts the end changes nothing
                return
            self._waiting -= spans
        self._count(result, spans)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._batches.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            full = self._waiting >= self._most
            self._waiting += not full
        if full:
            self._count("dropped", 1)
        else:
            self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()
        with self._lock:
            left, self._waiting, self._given_up = self._waiting, 0, True
        self._count("dropped", left)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)


class Telemetry:
    """Sends spans and metrics; between its making and `close` two threads of the SDK run.

    Attributes:
        tracer: Makes spans.
        meter: Makes instruments.
    """

    tracer: Tracer
    meter: Meter

    def __init__(
        self, settings: TelemetrySettings, resource: Mapping[str, str], count: Callable[[Result, int], None]
    ) -> None:
        """Begin to send.

        Args:
            settings: Where to, and how much.
            resource: Attributes of what is observed, in whose place the environment and the settings may put others.
            count: Is told what became of spans, from any thread.

        Raises:
            ConfigError: The headers for the collector are not there, or are none.
        """
        self._settings = settings
        self._count = count
        headers = _headers(settings)
        described = Resource.create({**resource, **OTELResourceDetector().detect().attributes, **settings.resource})
        self._exporters: list[OTLPSpanExporter | OTLPMetricExporter] = []
        self._spans: TracerProvider | None = None
        self._meters: MeterProvider | None = None
        self.tracer = NoOpTracerProvider().get_tracer(_SCOPE)
        self.meter = NoOpMeterProvider().get_meter(_SCOPE)
        if settings.traces:
            self._trace(described, headers)
        if settings.metrics:
            self._measure(described, headers)

    def _trace(self, resource: Resource, headers: dict[str, str] | None) -> None:
        settings = self._settings
        exporter = OTLPSpanExporter(
            endpoint=_signal(settings, "traces"), headers=headers, timeout=settings.timeout_seconds
        )
        self._spans = TracerProvider(sampler=_sampler(settings), resource=resource, shutdown_on_exit=False)
        self._spans.add_span_processor(_BoundedProcessor(settings, exporter, self._count))
        self._exporters.append(exporter)
        self.tracer = self._spans.get_tracer(_SCOPE)

    def _measure(self, resource: Resource, headers: dict[str, str] | None) -> None:
        settings = self._settings
        exporter = OTLPMetricExporter(
            endpoint=_signal(settings, "metrics"), headers=headers, timeout=settings.timeout_seconds
        )
        reader = PeriodicExportingMetricReader(
            exporter, export_interval_millis=settings.metrics_seconds * _MS_PER_SECOND
        )
        self._meters = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
        self._exporters.append(exporter)
        self.meter = self._meters.get_meter(_SCOPE)

    def close(self) -> None:
        """Send what waits, for as long as the settings say, and end the threads. Blocks: call it in a thread."""
        # Without a collector the SDK would try for half a minute; an exporter that is closed gives up at once.
        giving_up = threading.Timer(self._settings.stop_seconds, self._give_up)
        giving_up.daemon = True
        giving_up.start()
        try:
            if self._spans is not None:
                self._spans.shutdown()
            if self._meters is not None:
                self._meters.shutdown(timeout_millis=self._settings.stop_seconds * _MS_PER_SECOND)
        finally:
            giving_up.cancel()

    def _give_up(self) -> None:
        for exporter in self._exporters:
            exporter.shutdown()


def _signal(settings: TelemetrySettings, signal: str) -> str | None:
    return None if settings.endpoint is None else f"{settings.endpoint.rstrip('/')}/v1/{signal}"


def _sampler(settings: TelemetrySettings) -> Sampler | None:
    return None if settings.sample_ratio is None else ParentBased(TraceIdRatioBased(settings.sample_ratio))


def _headers(settings: TelemetrySettings) -> dict[str, str] | None:
    if settings.headers is None:
        return None
    headers = parse_env_headers(read_secret(settings.headers), liberal=True)
    if not headers:
        raise ConfigError("telemetry.headers holds no name=value")
    return dict(headers)
