"""What records say of discovery: who looked where for MCP servers, what was found, and what a person makes of it.

Pure. What the records of a log come to is `service.discovery_book`'s part.

INVARIANT 6: an address, a program that a client starts, the file that says so, and what a server calls itself are in
the vault; place and file are known again by pseudonyms. What is public says how it was found and how it stands.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ledger.body_fields import PUBLIC, Commitment, Count, Flag, Hex32, Name, Names, Pseudonym, Struct, Uuid

__all__ = ["DiscoveryEvent"]


class DiscoveryEvent(Struct, frozen=True, tag_field="type", tag="discovery"):
    """A scan for MCP servers, a server that one found, or a person's word on such a server.

    Attributes:
        action: scanned: somebody looked, and handed in what came of it; found: a server that no scan had found before,
            or that stands otherwise than before; seen: one that stands as it did; dismissed or reopened by a person.
        actor: Who handed the scan in, or spoke.
        actor_role: Under which role.
        scan_id: Of a scan and what it found: record id of the scan.
        discovery_id: Of a server: record id of its first sighting.
        standing: Of a sighting: ``registered`` in the list that the scanner was given, ``gateway``: one stands there,
            ``bypass``: a client goes past the gateways, ``shadow``: in no list.
        source: Whether the network showed it or a client's configuration.
        transport: How it is spoken to.
        place: Pseudonym of where it is: its URL, or the program and the name under which a client starts it.
        holder: Pseudonym of the file that configures it.
        client: Which client that file is of.
        server: Its name in the scanner's list.
        eras: Which handshakes it answered, sorted.
        revisions: Protocol revisions that it named, sorted.
        certainty: ``confirmed`` by a handshake, or ``likely`` by what it says it protects.
        needs_token: It asked for a token.
        disabled: The client does not use it now.
        details: Where it is and what it calls itself, canonical JSON.
        started_ms: Of a scan: its beginning by the scanner's clock, POSIX milliseconds.
        ended_ms: Its end.
        version: Of the scanner.
        laboratory: Digest of the code that asked the network; recall and precision are published of each.
        given: Where it was told to look and what it was told is registered, and what it could not read, canonical JSON.
        hosts: How many hosts it was given.
        ports: How many of their ports.
        closed: Those of them that were closed.
        asked: Those that answered and were asked to the end.
        unfinished: Those that took too long.
        requests: How many requests it sent.
        files: How many configurations of clients it read.
        unread: How many of these it could not read.
        sightings: How many servers it found.
        unregistered: How many of them are in no list, or are gone to past the gateways.
        comment: Free text of a person: why.
    """

    action: Annotated[Literal["scanned", "found", "seen", "dismissed", "reopened"], msgspec.Meta(extra=PUBLIC)]
    actor: Pseudonym
    actor_role: Name
    scan_id: Uuid | None = None
    discovery_id: Uuid | None = None
    standing: Annotated[Literal["registered", "gateway", "bypass", "shadow"] | None, msgspec.Meta(extra=PUBLIC)] = None
    source: Annotated[Literal["network", "client"] | None, msgspec.Meta(extra=PUBLIC)] = None
    transport: Annotated[Literal["streamable_http", "sse", "stdio", "unknown"] | None, msgspec.Meta(extra=PUBLIC)] = (
        None
    )
    place: Pseudonym | None = None
    holder: Pseudonym | None = None
    client: Name | None = None
    server: Name | None = None
    eras: Names = ()
    revisions: Names = ()
    certainty: Annotated[Literal["confirmed", "likely"] | None, msgspec.Meta(extra=PUBLIC)] = None
    needs_token: Flag = False
    disabled: Flag = False
    details: Commitment | None = None
    started_ms: Count = 0
    ended_ms: Count = 0
    version: Name | None = None
    laboratory: Hex32 | None = None
    given: Commitment | None = None
    hosts: Count = 0
    ports: Count = 0
    closed: Count = 0
    asked: Count = 0
    unfinished: Count = 0
    requests: Count = 0
    files: Count = 0
    unread: Count = 0
    sightings: Count = 0
    unregistered: Count = 0
    comment: Commitment | None = None
