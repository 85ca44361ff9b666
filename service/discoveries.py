"""What scans hand in, and what people say of it: recorded, and told from the log.

A scanner sends what it found in the open; what of that stands in a leaf, and what is sealed, is decided here
(`ledger.bodies_discovery`). A scan and all that it found are one batch: whoever finds the scan finds all of it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from ledger.bodies_discovery import DiscoveryEvent
from ledger.canonical import canonical_bytes
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.errors import ErasedError, NotFoundError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, new_record_id
from ledger.vault import Vault
from policies.bundle_lives import Actor
from service.book_reading import BookReading
from service.discovery_book import DiscoveredServer, DiscoveryBook, DiscoveryKey, Scanned
from service.keyset import KeySet

__all__ = ["Discoveries", "HandedIn", "Looked", "ScanReport", "SeenServer"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}")
_OTHER: Final = re.compile(r"[^A-Za-z0-9_.:/@+-]+")
_MAX_NAMES: Final = 16
_PLACE: Final = "server_place"
_HOLDER: Final = "client_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenServer:
    """A server as a scanner saw it; see `enforcement.discovery.comparison.Sighting`.

    Attributes:
        standing: How it stands by the list that the scanner was given.
        source: Whether the network showed it or a client's configuration.
        transport: How it is spoken to.
        place: Its URL, or the program that a client starts.
        name: What it calls itself, or is called; a stranger's text.
        version: The same.
        server: Its name in the list.
        certainty: How sure that is.
        needs_token: It asked for a token.
        eras: Which handshakes it answered.
        revisions: Which revisions it named; a stranger's text.
        client: Which client has it configured.
        file: In which file.
        disabled: The client does not use it now.
    """

    standing: Literal["registered", "gateway", "bypass", "shadow"]
    source: Literal["network", "client"]
    transport: Literal["streamable_http", "sse", "stdio", "unknown"]
    place: str
    name: str = ""
    version: str = ""
    server: str | None = None
    certainty: Literal["confirmed", "likely"] = "confirmed"
    needs_token: bool = False
    eras: Sequence[str] = ()
    revisions: Sequence[str] = ()
    client: str | None = None
    file: str | None = None
    disabled: bool = False

    @property
    def known_by(self) -> str:
        """By what its place is known again; a program says nothing without what it is started as."""
        return f"{self.place}\n{self.name}" if self.transport == "stdio" else self.place

    @property
    def details(self) -> bytes:
        """What of it is sealed, canonical JSON."""
        told = {
            "place": self.place,
            "name": self.name,
            "version": self.version,
            "revisions": list(self.revisions),
            "file": self.file,
        }
        return canonical_bytes({name: value for name, value in told.items() if value})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """A scan and what it found.

    Attributes:
        started_ms: Its beginning, by the scanner's clock.
        ended_ms: Its end.
        version: Of the scanner.
        laboratory: Digest of the code that asked.
        given: Where it was told to look, and what it could not read; plain values.
        counts: How many hosts, ports, and so on; members of `DiscoveryEvent`.
        servers: What it found.
    """

    started_ms: int
    ended_ms: int
    version: str
    laboratory: str
    given: dict[str, Any]
    counts: dict[str, int]
    servers: Sequence[SeenServer]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedIn:
    """What became of a scan that was handed in.

    Attributes:
        scan_id: Its record's id.
        leaf_index: Where that stands.
        found: Servers that were new, or stood otherwise.
        unregistered: Ids of those it found that are in no list, or are gone to past the gateways.
    """

    scan_id: str
    leaf_index: int
    found: int
    unregistered: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the log says of discovery now.

    Attributes:
        scans: The latest scans, the newest first.
        servers: Every server that was found, the latest first.
    """

    scans: tuple[Scanned, ...] = field(default=())
    servers: tuple[DiscoveredServer, ...] = field(default=())


def _names(texts: Collection[str]) -> tuple[str, ...]:
    """Return those texts of a stranger that are names; the others are in the vault."""
    return tuple(sorted({text for text in texts if _NAME.fullmatch(text)}))[:_MAX_NAMES]


def _key(event: DiscoveryEvent) -> DiscoveryKey:
    return (event.place or "", event.client, event.holder)


class Discoveries:
    """The discoveries of one log. Reading is safe for any thread."""

    def __init__(
        self,
        log_id: str,
        service_id: str,
        *,
        sink: RecordSink,
        catalog: Catalog,
        reader: EntryReader,
        vault: Vault,
        check: Callable[[int, Record], None],
        keys: Callable[[], KeySet],
        clock: Clock,
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            service_id: The service's own enforcer id.
            sink: Records.
            catalog: Finds records.
            reader: Reads them.
            vault: Opens what is sealed.
            check: Checks that a record is signed by the service; raises if not.
            keys: The keys that make pseudonyms, as they are now.
            clock: For the ids of records.
        """
        self._sink = sink
        self._reader = reader
        self._vault = vault
        self._keys = keys
        self._clock = clock
        self._turn = asyncio.Lock()  # so that of two scans at once the later knows what the earlier found
        self._reading = BookReading(
            DiscoveryBook(service_id),
            "discovery",
            log_id=log_id,
            service_id=service_id,
            catalog=catalog,
            reader=reader,
            check=check,
        )

    async def look(self) -> Looked:
        """Return the latest scans and every server that was found.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(self._look)

    def _look(self) -> Looked:
        book = self._reading.read()
        return Looked(scans=book.scans, servers=book.servers)

    async def get(self, discovery_id: str) -> DiscoveredServer:
        """Return a server that was found.

        Raises:
            NotFoundError: There is none of that id.
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().get(discovery_id))

    async def details(self, server: DiscoveredServer) -> dict[str, Any] | None:
        """Return what is sealed of a server's latest sighting; None if nobody can read it any more.

        Raises:
            LedgerError: A store failed, or the vault holds something else than the leaf commits to.
        """
        return await asyncio.to_thread(self._details, server)

    def _details(self, server: DiscoveredServer) -> dict[str, Any] | None:
        try:
            opened = self._vault.open(self._reader.record(server.latest.leaf), "details").payload
        except (NotFoundError, ErasedError):
            return None
        told: dict[str, Any] = msgspec.json.decode(opened)
        return told

    async def hand_in(self, report: ScanReport, actor: Actor) -> HandedIn:
        """Record a scan with everything that it found.

        Args:
            report: What the scanner says.
            actor: Whose scanner.

        Raises:
            LedgerError: It could not be recorded; then nothing of it was.
        """
        async with self._turn:
            return await self._hand_in(report, actor)

    async def _hand_in(self, report: ScanReport, actor: Actor) -> HandedIn:
        book = await asyncio.to_thread(self._reading.read)
        scan_id = self._new_id()
        drafts = [self._scan(report, scan_id, actor)]
        events: list[DiscoveryEvent] = []
        fresh: dict[DiscoveryKey, str] = {}
        for server in report.servers:
            event, opening = self._sighting(book, server, scan_id, actor)
            record_id = self._new_id()
            known = event.discovery_id or fresh.get(_key(event))
            if event.discovery_id is None:
                # The same one twice in a scan is one server, and found once.
                event = msgspec.structs.replace(
                    event, discovery_id=known or record_id, action="found" if known is None else "seen"
                )
                fresh.setdefault(_key(event), record_id)
            events.append(event)
            drafts.append(Draft(body=event, openings=(opening,), record_id=record_id))
        done = await self._sink.append(drafts)
        unregistered = (one.discovery_id for one in events if one.standing in ("shadow", "bypass"))
        return HandedIn(
            scan_id=scan_id,
            leaf_index=done[0].index,
            found=sum(one.action == "found" for one in events),
            unregistered=tuple(dict.fromkeys(one for one in unregistered if one is not None)),
        )

    def _new_id(self) -> str:
        return new_record_id(self._clock.now_ms(), secrets.token_bytes(10))

    def _scan(self, report: ScanReport, scan_id: str, actor: Actor) -> Draft:
        given, opening = commit("given", secrets.token_bytes(SALT_BYTES), canonical_bytes(report.given))
        event = DiscoveryEvent(
            action="scanned",
            actor=actor.pseudonym,
            actor_role=actor.role,
            scan_id=scan_id,
            started_ms=report.started_ms,
            ended_ms=report.ended_ms,
            version=report.version,
            laboratory=report.laboratory,
            given=given,
            sightings=len(report.servers),
            unregistered=sum(one.standing in ("shadow", "bypass") for one in report.servers),
        )
        event = msgspec.structs.replace(event, **report.counts)
        return Draft(body=event, openings=(opening,), record_id=scan_id)

    def _sighting(
        self, book: DiscoveryBook, server: SeenServer, scan_id: str, actor: Actor
    ) -> tuple[DiscoveryEvent, Opening]:
        """Return what is recorded of a server that was seen; without an id if nobody had seen it before."""
        keys = self._keys()
        client = None if server.client is None else _OTHER.sub("-", server.client).strip("-.:/@+")[:64] or "other"
        places = keys.pseudonyms(_PLACE, server.known_by)
        holders = [None] * len(places) if server.file is None else keys.pseudonyms(_HOLDER, server.file)
        # By every key that made pseudonyms: a server that was found before a rotation is the same one after it.
        called: list[DiscoveryKey] = [(place, client, holder) for place, holder in zip(places, holders, strict=True)]
        details, opening = commit("details", secrets.token_bytes(SALT_BYTES), server.details)
        known = book.known(called)
        event = DiscoveryEvent(
            action="found",
            actor=actor.pseudonym,
            actor_role=actor.role,
            scan_id=scan_id,
            discovery_id=None if known is None else known.discovery_id,
            standing=server.standing,
            source=server.source,
            transport=server.transport,
            place=places[0],
            holder=holders[0],
            client=client,
            server=server.server,
            eras=_names(server.eras),
            revisions=_names(server.revisions),
            certainty=server.certainty,
            needs_token=server.needs_token,
            disabled=server.disabled,
            details=details,
        )
        if not book.is_new(called, event):
            event = msgspec.structs.replace(event, action="seen")
        return event, opening

    async def say(
        self,
        discovery_id: str,
        action: Literal["dismissed", "reopened"],
        registered: Collection[str],
        actor: Actor,
        comment: str,
    ) -> int:
        """Record what a person says of a server; return the leaf index.

        Args:
            discovery_id: Which.
            action: That it is in order, or is not after all.
            registered: Servers that some gateway's list has now.
            actor: Who.
            comment: Why, for the vault.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It stands so already, or it is registered and nothing need be said.
            LedgerError: It could not be recorded.
        """
        (await asyncio.to_thread(self._reading.read)).speakable(discovery_id, action, registered)
        committed, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
        openings: tuple[Opening, ...] = (opening,)
        event = DiscoveryEvent(
            action=action,
            actor=actor.pseudonym,
            actor_role=actor.role,
            discovery_id=discovery_id,
            comment=committed,
        )
        (done,) = await self._sink.append([Draft(body=event, openings=openings)])
        return done.index
