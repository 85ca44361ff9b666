"""What a scan may ask: hosts, ports and paths, as they were given and nothing else.

Pure. A scope is bounded before anything is sent, so that a slip of the hand is no scan of half the internet.

INVARIANT: whatever a server answers, no host and no port is asked that does not stand in the scope.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import ConfigError

__all__ = ["DEFAULT_PATHS", "DEFAULT_PORTS", "MAX_ENDPOINTS", "MAX_PATHS", "Endpoint", "Scope", "parse_scope"]

MAX_ENDPOINTS: Final = 65_536
"""Most pairs of host and port of one scan."""
MAX_PATHS: Final = 64
DEFAULT_PATHS: Final = ("/mcp", "/", "/sse", "/api/mcp", "/v1/mcp", "/mcp/sse", "/mcp/v1")
DEFAULT_PORTS: Final = "80,443,3000-3003,5000,6274,6277,8000-8010,8080,8081,8443,8765,8888,9000"
_MAX_PORT: Final = 65_535
_MAX_PATH: Final = 512
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A host, as a name or an address, and a port of it."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What may be asked.

    Attributes:
        endpoints: Hosts and ports, each once, in the order given.
        paths: Under which paths a server is looked for.
    """

    endpoints: tuple[Endpoint, ...]
    paths: tuple[str, ...]


def parse_scope(targets: Iterable[str], *, ports: str = DEFAULT_PORTS, paths: Iterable[str] = DEFAULT_PATHS) -> Scope:
    """Read what was given.

    Args:
        targets: Names, addresses, networks (``10.0.0.0/28``); a name or address may bring a port of its own.
        ports: Ports and ranges, separated by commas, for targets without one.
        paths: Absolute paths.

    Raises:
        ConfigError: Something given is none of these, or it is too much.
    """
    numbers = _ports(ports)
    found: dict[Endpoint, None] = {}
    for target in targets:
        for endpoint in _endpoints(target.strip(), numbers):
            found[endpoint] = None
            if len(found) > MAX_ENDPOINTS:
                raise ConfigError(f"a scan asks at most {MAX_ENDPOINTS} pairs of host and port: give less")
    wanted = tuple(dict.fromkeys(paths))
    if not wanted or len(wanted) > MAX_PATHS:
        raise ConfigError(f"a scan has 1 to {MAX_PATHS} paths")
    for path in wanted:
        if len(path) > _MAX_PATH or _PATH.fullmatch(path) is None:
            raise ConfigError("a path begins with a slash and has neither query, fragment nor spaces")
    return Scope(endpoints=tuple(found), paths=wanted)


def _ports(text: str) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for part in text.split(","):
        spelt = _PORTS.fullmatch(part.strip())
        first, last = (int(spelt[1]), int(spelt[2] or spelt[1])) if spelt else (0, 0)
        if not 1 <= first <= last <= _MAX_PORT:
            raise ConfigError("ports are numbers from 1 to 65535 and ranges of them, separated by commas")
        found.update(dict.fromkeys(range(first, last + 1)))
    return tuple(found)


def _endpoints(target: str, ports: tuple[int, ...]) -> Iterator[Endpoint]:
    if "/" in target:
        yield from _network(target, ports)
        return
    host, own = _split(target)
    for port in ports if own is None else (own,):
        yield Endpoint(host, port)


def _network(target: str, ports: tuple[int, ...]) -> Iterator[Endpoint]:
    try:
        network = ipaddress.ip_network(target)
    except ValueError as error:
        raise ConfigError(f"a network is written as 10.0.0.0/28, with no bit of a host set: {error}") from error
    if network.num_addresses * len(ports) > 2 * MAX_ENDPOINTS:
        raise ConfigError(f"a scan asks at most {MAX_ENDPOINTS} pairs of host and port: give less")
    for address in network.hosts():
        for port in ports:
            yield Endpoint(str(address), port)


def _split(target: str) -> tuple[str, int | None]:
    """Return host and, if it stands there, port."""
    host, port = target, ""
    if target.startswith("["):
        host, closed, rest = target[1:].partition("]")
        port = rest.removeprefix(":")
        if not closed or (rest and not port):
            raise ConfigError("an IPv6 address with a port is written as [2001:db8::1]:8000")
    elif target.count(":") == 1:
        host, _, port = target.partition(":")
        if not port:
            raise ConfigError("behind the colon of a target stands its port")
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        if _NAME.fullmatch(host) is None:
            raise ConfigError("a target is a name, an address or a network, and no URL") from None
        host = host.lower()
    if not port:
        return host, None
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= _MAX_PORT:
        raise ConfigError("a port is a number from 1 to 65535")
    return host, int(port)
