"""TLS of the service's own port: from settings to what uvicorn runs, and what readiness says of the certificate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError
from uvicorn.protocols.http.h11_impl import H11Protocol

from enforcement.config_tls import ListenerTLSSettings
from enforcement.metrics import TLSMetrics
from enforcement.tls_transport import tls_protocol_class
from enforcement.tls_watch import CertificateWatch
from enforcement.tls_wiring import make_listener
from ledger.clock import SystemClock
from ledger.errors import ConfigError
from service.health import Check, Metrics
from service.settings import Settings

__all__ = ["ServiceTLS", "certificate_checks", "listener_settings", "open_tls"]

_MAX_HANDSHAKES: Final = 256
_MS_PER_SECOND: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTLS:
    """What uvicorn runs for each connection, and who looks after its certificate.

    Attributes:
        protocol: TLS, with HTTP inside.
        certificates: Takes up a new certificate when its files change; started and stopped with the service.
    """

    protocol: type[asyncio.Protocol]
    certificates: CertificateWatch


def listener_settings(settings: Settings) -> ListenerTLSSettings | None:
    """Return what the settings say of TLS; None if clients arrive in the clear.

    Raises:
        ConfigError: They contradict each other, or something is missing.
    """
    if settings.tls_certificate is None:
        others = {name for name in type(settings).model_fields if name.startswith("tls_")}
        if any(getattr(settings, name) != type(settings).model_fields[name].default for name in others):
            raise ConfigError("TALLYSTICK_TLS_CERTIFICATE: the other settings of TLS mean nothing without it")
        return None
    if not settings.tls_key:
        raise ConfigError("TALLYSTICK_TLS_KEY: the certificate needs its key")
    asked = settings.tls_client_certificates or ("none" if settings.tls_client_ca is None else "require")
    said: dict[str, Any] = {
        "certificate": settings.tls_certificate,
        "key": settings.tls_key,
        "client_ca": settings.tls_client_ca,
        "client_certificates": asked,
        "client_names": tuple(name for part in settings.tls_client_names.split(",") if (name := part.strip())),
        "groups": settings.tls_groups,
        "minimum": settings.tls_minimum,
    }
    try:
        return ListenerTLSSettings(**said)
    except ValidationError as error:
        first = error.errors()[0]
        names = "_".join(str(part) for part in first["loc"][:1]).upper()
        setting = f"TALLYSTICK_TLS_{names}" if names else "TALLYSTICK_TLS_CLIENT_CERTIFICATES"
        raise ConfigError(f"{setting}: {first['msg'].removeprefix('Value error, ')}") from None


def open_tls(settings: Settings, metrics: Metrics) -> ServiceTLS | None:
    """Read certificate and key; None if clients arrive in the clear.

    Args:
        settings: Those of the process.
        metrics: Where connections are counted.

    Raises:
        ConfigError: The settings or the files cannot be used.
    """
    chosen = listener_settings(settings)
    if chosen is None:
        return None
    counted = TLSMetrics(metrics.registry)
    listener = make_listener(chosen, counted, SystemClock(), max_handshakes=_MAX_HANDSHAKES)
    certificates = CertificateWatch(counted)
    certificates.add(listener.contexts)
    return ServiceTLS(protocol=tls_protocol_class(listener, H11Protocol), certificates=certificates)


def certificate_checks(certificates: CertificateWatch | None) -> tuple[Check, ...]:
    """Return what readiness says of certificates: nothing that takes the service out of rotation."""
    if certificates is None:
        return ()
    checks = []
    for use, state in certificates.readiness().items():
        expires_ms, refused = state["expires_ms"], state["refused"]
        assert isinstance(expires_ms, int)  # a listener shows a certificate
        until = datetime.fromtimestamp(expires_ms / _MS_PER_SECOND, UTC).isoformat(timespec="seconds")
        told = f"holds until {until}" + ("" if refused is None else f"; a newer one was refused: {refused}")
        now_ms = SystemClock().now_ms()
        ok = refused is None and now_ms < expires_ms
        checks.append(Check(name=f"certificate_{use}", ok=ok, vital=False, detail=told))
    return tuple(checks)
