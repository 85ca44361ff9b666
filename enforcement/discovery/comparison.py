"""What was found held against what is registered: which servers are in nobody's list.

Pure. A server is registered if the list names its place, whatever the place is called: ``localhost`` and ``127.0.0.1``
are one host, and so are a port that is said and the scheme's own. A client that calls a gateway, or starts a server
behind ``tallystick wrap`` under a name of the list, calls no shadow server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final, Literal
from urllib.parse import urlsplit

from enforcement.client_configs import ClientServer
from enforcement.discovery.found import FoundServer
from ledger.errors import ConfigError

__all__ = ["Known", "Sighting", "compare_configured", "compare_found", "same_place"]

_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
Source = Literal["network", "client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is registered.

    Attributes:
        servers: Names and, where they have one, URLs.
        gateways: URLs of gateways; everything under one is in its hands.
    """

    servers: Sequence[tuple[str, str | None]] = ()
    gateways: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A server that was seen, on the network or in a client's configuration.

    Attributes:
        source: Where.
        transport: streamable_http, sse, stdio, or unknown.
        place: Its URL, or the program that a client starts, without arguments.
        name: What it calls itself, or what the client calls it; a stranger's text.
        registered: Its name in the list; None for a shadow server.
        by_gateway: A gateway stands there, or before it.
        bypass: A client goes to it directly, past the gateways that were named.
        certainty: ``confirmed`` or ``likely``; what is configured is confirmed.
        needs_token: It asked for a token.
        eras: Which handshakes it answered.
        revisions: What it named.
        version: Of itself.
        client: Which client has it configured.
        file: In which file.
        disabled: The client does not use it now.
    """

    source: Source
    transport: str
    place: str
    name: str
    registered: str | None
    by_gateway: bool
    bypass: bool = False
    certainty: str = "confirmed"
    needs_token: bool = False
    eras: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ()
    version: str = ""
    client: str | None = None
    file: str | None = None
    disabled: bool = False

    @property
    def is_shadow(self) -> bool:
        """Whether nobody has registered it."""
        return self.registered is None and not self.by_gateway

    @property
    def standing(self) -> Literal["registered", "gateway", "bypass", "shadow"]:
        """How it stands, in one word."""
        if self.bypass:
            return "bypass"
        if self.registered is not None:
            return "registered"
        return "gateway" if self.by_gateway else "shadow"


def same_place(one: str, other: str) -> bool:
    """Whether two URLs are of one server."""
    try:
        return _place(one) == _place(other)
    except ValueError:
        return False


def _place(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host = "localhost" if host in _LOOPBACK else host
    return parts.scheme, host, parts.port or _PORTS.get(parts.scheme), _path(parts.path)


def _path(path: str) -> str:
    """Return a path as clients ask for it, with no segment that leads up again (WHATWG URL, section 4.4)."""
    kept: list[str] = []
    for segment in path.split("/"):
        spelt = segment.lower().replace("%2e", ".")
        if spelt == "..":
            kept = kept[: max(1, len(kept) - 1)]
        elif spelt != ".":
            kept.append(segment)
    return "/".join(kept).rstrip("/")


def _registered(url: str, known: Known) -> str | None:
    return next((name for name, place in known.servers if place is not None and same_place(place, url)), None)


def _under_gateway(url: str, known: Known) -> bool:
    try:
        scheme, host, port, path = _place(url)
        for gateway in known.gateways:
            *origin, base = _place(gateway)
            if origin == [scheme, host, port] and (path == base or path.startswith(f"{base}/")):
                return True
    except ValueError as error:
        raise ConfigError("a gateway is given by its URL") from error
    return False


def compare_found(found: Iterable[FoundServer], known: Known) -> list[Sighting]:
    """Hold what the network showed against what is registered.

    Raises:
        ConfigError: A gateway's URL is none.
    """
    return [
        Sighting(
            source="network",
            transport=one.transport,
            place=one.url,
            name=one.name,
            registered=_registered(one.url, known),
            by_gateway=_under_gateway(one.url, known),
            certainty=one.certainty,
            needs_token=one.needs_token,
            eras=one.eras,
            revisions=one.revisions,
            version=one.version,
        )
        for one in found
    ]


def compare_configured(configured: Iterable[tuple[str, str, ClientServer]], known: Known) -> list[Sighting]:
    """Hold what clients have configured against what is registered.

    Args:
        configured: Clients, files and servers.
        known: What is registered.

    Raises:
        ConfigError: A gateway's URL is none.
    """
    sightings: list[Sighting] = []
    for client, file, server in configured:
        if server.fault is not None:
            continue
        if server.url is not None:
            registered, by_gateway = _registered(server.url, known), _under_gateway(server.url, known)
            place, transport = server.url, "unknown"
        else:
            registered, by_gateway = _wrapped(server.command, known)
            place, transport = server.command[0], "stdio"
        sightings.append(
            Sighting(
                source="client",
                transport=transport,
                place=place,
                name=server.name,
                registered=registered,
                by_gateway=by_gateway,
                # That a server is registered makes it no better if a client passes the gateway by.
                bypass=bool(known.gateways) and registered is not None and not by_gateway,
                client=client,
                file=file,
                disabled=server.disabled,
            )
        )
    return sightings


def _wrapped(command: Sequence[str], known: Known) -> tuple[str | None, bool]:
    """Return under which registered name a command runs behind a gateway of ours, and whether it does."""
    program = PureWindowsPath(PurePosixPath(command[0]).name).stem.lower() if command else ""
    own = command[: command.index("--")] if "--" in command else command
    if program != "tallystick" or "wrap" not in own:
        return None, False
    for at, word in enumerate(own):
        name = word.removeprefix("--server=") if word.startswith("--server=") else None
        if word == "--server" and at + 1 < len(own):
            name = own[at + 1]
        if name is not None and any(name == listed for listed, _ in known.servers):
            return name, True
    return None, False
