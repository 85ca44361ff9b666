"""Failed logins, counted in bounded memory.

A token has 256 random bits, so that guessing is hopeless; the throttle keeps whoever tries anyway from filling the log,
for each failed login is a record. Two bounds: attempts for each address, whichever logs they name, and records for all
addresses together, in each log.

An address is what the socket says. An IPv6 client owns a whole /64, so that counts as one.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_LIMITS", "LoginThrottle", "ThrottleLimits", "network_of"]

_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleLimits:
    """How much failing is let pass.

    Attributes:
        window_seconds: Failures are counted over this time.
        failures: Failed logins of one address in a window; after them it waits for the window's end.
        records: Failed logins of all addresses that are recorded in a window.
        addresses: Addresses that are remembered at once; the one heard of longest ago is forgotten first.
    """

    window_seconds: int = 300
    failures: int = 10
    records: int = 60
    addresses: int = 4096


DEFAULT_LIMITS: Final = ThrottleLimits()


def network_of(address: str) -> str:
    """Return what an address is counted under: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, _IPV6_PREFIX), strict=False))


@dataclass(slots=True)
class _Window:
    start_ms: int
    count: int = 0


class LoginThrottle:
    """Counts failures. One event loop owns it; times are arguments, POSIX milliseconds."""

    def __init__(self, limits: ThrottleLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._window_ms = limits.window_seconds * 1000
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._recorded: dict[str, _Window] = {}

    def wait_seconds(self, address: str, now_ms: int) -> int:
        """Return how long an address has to wait before it may try again; 0 if it need not."""
        window = self._windows.get(network_of(address))
        if window is None or window.count < self._limits.failures:
            return 0
        left_ms = window.start_ms + self._window_ms - now_ms
        return max(0, -(-left_ms // 1000))

    def failed(self, address: str, now_ms: int, *, log_id: str = "") -> bool:
        """Count a failed login; returns whether it is still to be recorded.

        Args:
            address: Where it came from.
            now_ms: When.
            log_id: In which log; only logs that there are, for each is remembered.
        """
        key = network_of(address)
        window = self._current(self._windows.pop(key, None), now_ms)
        window.count += 1
        self._windows[key] = window
        while len(self._windows) > self._limits.addresses:
            self._windows.popitem(last=False)
        recorded = self._recorded[log_id] = self._current(self._recorded.get(log_id), now_ms)
        recorded.count += 1
        return recorded.count <= self._limits.records

    def _current(self, window: _Window | None, now_ms: int) -> _Window:
        if window is None or now_ms >= window.start_ms + self._window_ms:
            return _Window(now_ms)
        return window
