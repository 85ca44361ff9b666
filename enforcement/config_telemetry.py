"""Settings of spans and metrics for a collector. Pure; see `enforcement.telemetry`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, StringConstraints

from enforcement.config_types import URL, Seconds, SecretURI, Settings

__all__ = ["TelemetrySettings"]

_Attribute: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]
_Value: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TelemetrySettings(Settings):
    """OpenTelemetry over OTLP/HTTP. What is left out is what the standard ``OTEL_*`` variables say.

    Attributes:
        endpoint: The collector's base URL, to which ``/v1/traces`` and ``/v1/metrics`` are added.
        headers: Where the headers are that the collector asks for: ``name=value``, several with commas between.
        sample_ratio: Part of the traces that begin here which is kept, 0 to 1; of others their beginning decides.
        resource: Attributes of the resource, beside the service's name, version, instance and environment.
        traces: Whether spans are sent.
        metrics: Whether metrics are sent.
        queue_spans: Most spans that wait for the collector; those beyond are dropped, and counted.
        metrics_seconds: How often metrics are sent.
        timeout_seconds: For one request to the collector, tried again included.
        stop_seconds: How long the end of the gateway waits for what has not been sent.
    """

    endpoint: URL | None = None
    headers: SecretURI | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    resource: dict[_Attribute, _Value] = Field(default_factory=dict, max_length=32)
    traces: bool = True
    metrics: bool = True
    queue_spans: Annotated[int, Field(ge=64, le=1_000_000)] = 8192
    metrics_seconds: Seconds = 60
    timeout_seconds: Seconds = 10
    stop_seconds: Seconds = 2
