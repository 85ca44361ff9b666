"""A collector that takes OTLP over HTTP, as OpenTelemetry's own message types read it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Collector", "Received", "collecting"]


def _values(attributes: list[KeyValue]) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


@dataclass(frozen=True, slots=True)
class Received:
    """One span as it arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    attributes: dict[str, object]
    failed: bool

    @classmethod
    def of(cls, span: Span) -> Received:
        return cls(
            span.name,
            Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            [link.trace_id.hex() for link in span.links],
            _values(list(span.attributes)),
            span.status.code == 2,
        )


@dataclass
class Collector:
    """What arrived; what it answers with if it is to answer with something else than thanks."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    resources: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    status: int = 200
    held: asyncio.Event | None = None

    async def take_spans(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await self._read(request))
        if self.status == 200:
            for resource in message.resource_spans:
                self.resources.append(_values(list(resource.resource.attributes)))
                self.spans += [Received.of(span) for scope in resource.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    async def take_metrics(self, request: web.Request) -> web.Response:
        message = ExportMetricsServiceRequest.FromString(await self._read(request))
        if self.status == 200:
            for resource in message.resource_metrics:
                self.metrics += [metric for scope in resource.scope_metrics for metric in scope.metrics]
        return web.Response(status=self.status)

    async def _read(self, request: web.Request) -> bytes:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.held is not None:
            await self.held.wait()
        body = await request.read()
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.bodies.append(body)
        return body

    def of(self, kind: str, name: str | None = None) -> list[Received]:
        """Return the spans of a kind."""
        return [span for span in self.spans if span.kind == kind and name in (None, span.name)]

    def points(self, metric: str) -> list[dict[str, object]]:
        """Return the attributes of all points of a histogram."""
        return [
            _values(list(point.attributes))
            for one in self.metrics
            if one.name == metric
            for point in one.histogram.data_points
        ]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Listen on 127.0.0.1."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take_spans)
    app.router.add_post("/v1/metrics", collector.take_metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
