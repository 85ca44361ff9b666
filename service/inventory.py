"""The inventory of one log: what there is, whose it is, who uses it; what people say of tags; views that are pinned.

It follows from the log: what lists and definitions say from the inventory records, what was used from the decisions.
Both are read once, and from then on only what is new.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from ledger.bodies import Decision
from ledger.bodies_inventory import InventoryEvent
from ledger.canonical import canonical_bytes, sha256
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.errors import NotFoundError, VerificationError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record
from ledger.usage import UsageCatalog
from policies.bundle_lives import Actor
from service.book_reading import BookReading
from service.inventory_book import InventoryBook
from service.inventory_usage import UsageCounts, UseKey
from service.inventory_view import InventoryView, assemble

__all__ = ["MAX_PINNED", "Inventory", "Pinned"]

MAX_PINNED: Final = 5_000
"""Uses that a pinned view may name: the first and the last leaf of each are read before it is pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A view that became a record.

    Attributes:
        digest: SHA-256 over the snapshot's canonical JSON, hexadecimal.
        leaf_index: Where the record stands.
        snapshot: What was pinned.
    """

    digest: str
    leaf_index: int
    snapshot: object


class Inventory:
    """The inventory of one log. Reading is safe for any thread."""

    def __init__(
        self,
        log_id: str,
        service_id: str,
        *,
        size: Callable[[], int],
        usage: UsageCatalog,
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
        sink: RecordSink,
        clock: Clock,
        simulated: bool,
    ) -> None:
        """Read nothing yet.

        Args:
            log_id: Which log.
            service_id: The service's own name among the enforcers.
            size: Says how many leaves the log has.
            usage: Counts calls.
            catalog: Finds inventory records.
            reader: Reads them.
            check: Checks that a record is signed by the service; raises if not.
            sink: Records what people say.
            clock: The service's.
            simulated: The log's times lie anywhere: then it is as late as its latest call.
        """
        self._size = size
        self._reader = reader
        self._sink = sink
        self._clock = clock
        self._simulated = simulated
        self._counts = UsageCounts(log_id, usage)
        self._reading = BookReading(
            InventoryBook(service_id),
            "inventory",
            log_id=log_id,
            service_id=service_id,
            catalog=catalog,
            reader=reader,
            check=check,
        )

    async def look(self) -> InventoryView:
        """Return the inventory as it is now.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(self._look)

    def _look(self) -> InventoryView:
        counted = self._counts.look(self._size())
        now_ms = counted.newest_ms if self._simulated else self._clock.now_ms()
        return self._reading.seen(lambda book: assemble(book, counted, now_ms))

    async def speak(
        self, server: str, tool: str, tags: Sequence[str], verdict: str, actor: Actor, comment: str | None
    ) -> int:
        """Record what a person says of a tool's tags, and return the leaf index.

        Args:
            server: Of which server.
            tool: Of which tool.
            tags: Of which tags.
            verdict: ``confirmed`` or ``rejected``.
            actor: Who says so.
            comment: Why, for the vault.

        Raises:
            NotFoundError: There is no such tool.
            LedgerError: It could not be recorded.
        """
        view = await self.look()
        line = next((line for line in view.tools if (line.server, line.tool) == (server, tool)), None)
        if line is None:
            raise NotFoundError(f"the inventory has no tool {server}/{tool}")
        event = InventoryEvent(
            action="confirmed" if verdict == "confirmed" else "rejected",
            server=server,
            tool=tool,
            tags=tuple(sorted(set(tags))),
            definition=line.definition,
            actor=actor.pseudonym,
            actor_role=actor.role,
        )
        return await self._record(event, comment)

    async def pin(
        self,
        snapshot: object,
        *,
        view: Literal["inventory", "privileges"],
        agent: str | None,
        size: int,
        items: int,
        uses: Sequence[tuple[UseKey, Sequence[int]]],
        actor: Actor,
        comment: str | None,
    ) -> Pinned:
        """Make a record of what somebody sees.

        Args:
            snapshot: What he sees, of plain values.
            view: What it is.
            agent: Of privileges: whose.
            size: The leaves below this index were counted.
            items: How many lines it has.
            uses: The uses that it tells of, with the leaves that it names for each.
            actor: Who pins it.
            comment: Why, for the vault.

        Raises:
            VerificationError: The log does not bear out what the rows say, or there is too much to look at.
            LedgerError: It could not be recorded.
        """
        await asyncio.to_thread(self._require, uses)
        digest = sha256(canonical_bytes(snapshot)).hex()
        event = InventoryEvent(
            action="pinned",
            view=view,
            agent=agent,
            digest=digest,
            size=size,
            items=items,
            actor=actor.pseudonym,
            actor_role=actor.role,
        )
        leaf = await self._record(event, comment)
        return Pinned(digest=digest, leaf_index=leaf, snapshot=snapshot)

    def _require(self, uses: Sequence[tuple[UseKey, Sequence[int]]]) -> None:
        """Hold what the rows say against the leaves that they name (invariant 3)."""
        if len(uses) > MAX_PINNED:
            raise VerificationError(f"a view that is pinned tells of at most {MAX_PINNED} uses; this has {len(uses)}")
        for (agent, server, tool), leaves in uses:
            for leaf in leaves:
                body = self._reader.record(leaf).body
                if not isinstance(body, Decision) or (body.agent, body.server, body.tool) != (agent, server, tool):
                    raise VerificationError(f"leaf {leaf} is no call of {server}/{tool} by {agent}: audit the log")

    async def _record(self, event: InventoryEvent, comment: str | None) -> int:
        openings: tuple[Opening, ...] = ()
        if comment is not None:
            commitment, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
            event, openings = msgspec.structs.replace(event, comment=commitment), (opening,)
        (done,) = await self._sink.append([Draft(body=event, openings=openings)])
        return done.index
