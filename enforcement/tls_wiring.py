"""From the gateway's settings to its TLS: the listener on its port, the contexts of its ways to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeAlias

from OpenSSL import SSL

from enforcement.config import GatewayConfig, ServerSettings
from enforcement.config_tls import ClientTLSSettings, ListenerTLSSettings
from enforcement.config_upstream import PinSettings
from enforcement.metrics import TLSMetrics
from enforcement.tls_client import ClientContext, ClientRules, client_context
from enforcement.tls_files import Rotating, read_material
from enforcement.tls_listener import Listener, TLSRules, server_context
from enforcement.tls_peer import TLSPeer
from enforcement.tls_watch import CertificateWatch
from ledger.clock import Clock

__all__ = ["ServerContexts", "make_listener", "service_context"]

_Way: TypeAlias = tuple[ClientTLSSettings | None, PinSettings | None]


def make_listener(settings: ListenerTLSSettings, metrics: TLSMetrics, clock: Clock, *, max_handshakes: int) -> Listener:
    """Return what the connections of the gateway's port share.

    Args:
        settings: Its certificate, and whom it lets in.
        metrics: Counts connections, and those that were refused.
        clock: Of this machine, as it is OpenSSL's: not one of a simulation.
        max_handshakes: Most handshakes that may be under way.

    Raises:
        ConfigError: A file cannot be used.
    """
    rules = TLSRules(
        client_certificates=settings.client_certificates,
        names=settings.client_names,
        groups=settings.groups,
        minimum=settings.minimum,
    )
    contexts: Rotating[SSL.Context] = Rotating(
        "listener",
        lambda: read_material(settings.certificate, settings.key, settings.client_ca, clock),
        lambda material: server_context(material, rules),
    )
    return Listener(
        contexts,
        rules,
        handshake_seconds=settings.handshake_seconds,
        max_handshakes=max_handshakes,
        on_accepted=_counting(metrics, "client"),
        on_refused=lambda reason: metrics.refused.labels(reason).inc(),
    )


def service_context(config: GatewayConfig, metrics: TLSMetrics, clock: Clock) -> Rotating[ClientContext] | None:
    """Return what TLS is like on the way to the service; None if it is reached in the clear.

    Raises:
        ConfigError: A file cannot be used.
    """
    if not config.service.url.startswith("https:"):
        return None
    return _rotating("service", "service", config.service.tls, metrics, clock)


class ServerContexts:
    """What TLS is like on the ways to servers; those with the same settings share it. Owned by the event loop."""

    def __init__(self, metrics: TLSMetrics, watch: CertificateWatch, clock: Clock) -> None:
        """Take the parts.

        Args:
            metrics: Counts connections.
            watch: Looks after the certificates that are shown.
            clock: Of this machine.
        """
        self._metrics = metrics
        self._watch = watch
        self._clock = clock
        self._made: dict[_Way, Rotating[ClientContext]] = {}

    def prepare(self, servers: Sequence[ServerSettings]) -> None:
        """Read what the servers of a list need, so far as it is not there.

        Raises:
            ConfigError: A file cannot be used.
        """
        for server in servers:
            if (server.url or "").startswith("https:"):
                self._of(server)

    def keep(self, servers: Sequence[ServerSettings]) -> None:
        """Forget what no server of the list in force needs."""
        needed = {(server.tls, server.pin) for server in servers}
        for settings in self._made.keys() - needed:
            self._watch.forget(self._made.pop(settings))

    def context(self, server: ServerSettings) -> ClientContext:
        """Return the context of a new connection to a server."""
        return self._of(server).current

    def _of(self, server: ServerSettings) -> Rotating[ClientContext]:
        way = (server.tls, server.pin)
        known = self._made.get(way)
        if known is None:
            name = self._free_name(f"server/{server.name}")
            known = _rotating(name, "server", server.tls, self._metrics, self._clock, server.pin)
            self._made[way] = known
            self._watch.add(known)
        return known

    def _free_name(self, name: str) -> str:
        """Return a name that no other way has: one that a server has left may be another's still."""
        taken = {known.name for known in self._made.values()}
        names = (name if number == 1 else f"{name}/{number}" for number in count(1))
        return next(one for one in names if one not in taken)


def _rotating(
    name: str,
    hop: str,
    settings: ClientTLSSettings | None,
    metrics: TLSMetrics,
    clock: Clock,
    pin: PinSettings | None = None,
) -> Rotating[ClientContext]:
    chosen = settings or ClientTLSSettings()
    pinned = pin if pin is not None and pin.of_certificate else None
    rules = ClientRules(groups=chosen.groups, minimum=chosen.minimum, pin=pinned)
    return Rotating(
        name,
        lambda: read_material(chosen.certificate, chosen.key, chosen.ca, clock),
        lambda material: client_context(material, rules, on_connected=_counting(metrics, hop)),
    )


def _counting(metrics: TLSMetrics, hop: str) -> Callable[[TLSPeer], None]:
    return lambda peer: metrics.connections.labels(hop, peer.version, peer.group).inc()
