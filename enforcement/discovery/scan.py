"""A scan: every port of a scope, at a bounded pace, some at a time.

A host is asked on one port at a time, so that a scan is no burden to it; slow hosts hold up nobody but themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from enforcement.discovery.found import FoundServer
from enforcement.discovery.probing import Limits, Pace, PortResult, Prober
from enforcement.discovery.scope import Endpoint, Scope
from ledger.errors import ConfigError

__all__ = ["MAX_RATE", "Scan", "scan"]

MAX_RATE: Final = 1000.0
_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a scan came to.

    Attributes:
        ports: What became of each port, sorted.
    """

    ports: tuple[PortResult, ...]

    @property
    def servers(self) -> tuple[FoundServer, ...]:
        """What was found, by URL."""
        return tuple(sorted((one for port in self.ports for one in port.servers), key=lambda one: one.url))

    def count(self, state: str) -> int:
        """Return how many ports came to a state."""
        return sum(port.state == state for port in self.ports)

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return sum(port.requests for port in self.ports)


async def scan(scope: Scope, *, rate: float = 50.0, limits: Limits | None = None, per_host: int = 1) -> Scan:
    """Ask every port of a scope for MCP servers.

    Args:
        scope: What may be asked.
        rate: Most connections and requests a second, of all hosts together.
        limits: What one port may take.
        per_host: Ports of one host that are asked at a time.

    Raises:
        ConfigError: A pace that is none.
    """
    if not 0 < rate <= MAX_RATE:
        raise ConfigError(f"a scan asks more than 0 and at most {MAX_RATE:g} times a second")
    hosts: dict[tuple[str, int], list[Endpoint]] = {}
    for number, endpoint in enumerate(scope.endpoints):
        hosts.setdefault((endpoint.host, number % per_host), []).append(endpoint)
    waiting = deque(hosts.values())
    results: list[PortResult] = []
    async with Prober(limits or Limits(), Pace(rate)) as prober:

        async def work() -> None:
            while waiting:
                for endpoint in waiting.popleft():
                    result = await prober.ask(endpoint, scope.paths)
                    results.append(result)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(hosts))):
                group.create_task(work())
    return Scan(ports=tuple(sorted(results, key=lambda one: one.endpoint)))
