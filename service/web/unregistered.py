"""The part of the inventory's page that tells of servers that scans found and nobody registered.

Pure. Where one is stands in the vault; the page says how it was found, and which command shows the rest to a person.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from service.discoveries import Looked
from service.discovery_book import DiscoveredServer
from service.web.wording import moment, number, quantity

__all__ = ["SHOWN", "Unregistered", "UnregisteredLine", "unregistered_part"]

SHOWN: Final = 50
"""Servers that the page shows; the command line and the API list all of them."""

_STANDINGS: Final = {
    "shadow": "in no list",
    "bypass": "a client goes past the gateways",
    "registered": "in the scanner's list, in no gateway's",
}
_TRANSPORTS: Final = {
    "streamable_http": "streamable HTTP",
    "sse": "HTTP with SSE",
    "stdio": "started by a client",
    "unknown": "HTTP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnregisteredLine:
    """A server that scans found.

    Attributes:
        discovery_id: Its id, for the command line.
        standing: Why it is here, in words.
        transport: How it is spoken to, in words.
        client: Which client has it configured; empty if the network showed it.
        server: Its name in the scanner's list; empty without one.
        sightings: How often it was seen.
        first: When first.
        last: When last, and where that stands in the log.
    """

    discovery_id: str
    standing: str
    transport: str
    client: str
    server: str
    sightings: str
    first: str
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregistered:
    """All of them.

    Attributes:
        count: How many are open.
        lines: The latest of these.
        basis: What that was told from, in a sentence.
    """

    count: int
    lines: Sequence[UnregisteredLine]
    basis: str


def _line(server: DiscoveredServer) -> UnregisteredLine:
    event = server.latest.event
    return UnregisteredLine(
        discovery_id=server.discovery_id,
        standing=_STANDINGS.get(event.standing or "", ""),
        transport=_TRANSPORTS.get(event.transport or "", ""),
        client=event.client or "",
        server=event.server or "",
        sightings=number(server.sightings),
        first=moment(server.first_ms),
        last=f"{moment(server.latest.time_ms)}, leaf {number(server.latest.leaf)}",
    )


def unregistered_part(looked: Looked, registered: Collection[str]) -> Unregistered:
    """Return what the page tells.

    Args:
        looked: What scans found.
        registered: Servers that some gateway's list has now.
    """
    found = [server for server in looked.servers if server.state(registered) == "open"]
    if looked.scans:
        last = looked.scans[0]
        asked = f"{quantity(last.event.ports, 'port')} and {quantity(last.event.files, 'configuration')} of clients"
        basis = f"The last scan was handed in {moment(last.time_ms)} UTC: {asked}. What no scan was given is not known."
    else:
        basis = "No scan was handed in: nothing is known of servers that are in no list."
    return Unregistered(count=len(found), lines=tuple(_line(server) for server in found[:SHOWN]), basis=basis)
