"""Tracing for one enforcement point, if its configuration asks for it.

The OpenTelemetry SDK is imported here, when it is asked for, and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as package_version
from typing import Final

from enforcement.config import GatewayConfig
from enforcement.facts import Pseudonyms
from enforcement.judging import Tracing
from enforcement.metrics import Metrics

__all__ = ["tracing_of"]

_SERVICE: Final = "tallystick-gateway"


@asynccontextmanager
async def tracing_of(config: GatewayConfig, pseudonyms: Pseudonyms, metrics: Metrics) -> AsyncIterator[Tracing | None]:
    """Trace calls inside this context; when it ends, what was not sent yet is, if the collector takes it in time.

    Args:
        config: Says whether, and where to.
        pseudonyms: Name sessions.
        metrics: Count what became of spans.

    Raises:
        ConfigError: The headers for the collector are not there, or are none.
    """
    if config.telemetry is None:
        yield None
        return
    from enforcement.call_spans import CallSpans  # only where it is asked for
    from enforcement.telemetry import Telemetry

    resource = {
        "service.name": _SERVICE,
        "service.version": package_version("tallystick"),
        "service.instance.id": config.enforcer_id,
        "deployment.environment.name": config.environment,
    }
    telemetry = Telemetry(config.telemetry, resource, lambda result, spans: metrics.spans.labels(result).inc(spans))
    try:
        yield CallSpans(telemetry.tracer, telemetry.meter, pseudonyms)
    finally:
        await asyncio.to_thread(telemetry.close)
