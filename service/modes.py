"""Changes of what is enforced: proposed, approved, listed, by the log's own records."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final

import msgspec

from ledger.bodies import ModeEvent
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, new_record_id
from policies.bundle_lives import Actor
from service.book_reading import BookReading
from service.mode_book import ModeBook, ModeLife

__all__ = ["Modes"]

_ID_BYTES: Final = 10


class Modes:
    """The changes of one log. Reading is safe for any thread."""

    def __init__(
        self,
        log_id: str,
        service_id: str,
        *,
        sink: RecordSink,
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
        clock: Clock,
    ) -> None:
        """Find records by the catalogue and read them from the log; those of the service's must be signed by it."""
        self._sink = sink
        self._clock = clock
        self._reading = BookReading(
            ModeBook(service_id),
            "mode",
            log_id=log_id,
            service_id=service_id,
            catalog=catalog,
            reader=reader,
            check=check,
        )

    async def all(self) -> list[ModeLife]:
        """Return every change, newest first.

        Raises:
            LedgerError: A store failed.
        """
        return (await asyncio.to_thread(self._reading.read)).all

    async def page(
        self, *, before: int | None, limit: int, wanted: Callable[[ModeLife], bool] = lambda _: True
    ) -> tuple[list[ModeLife], int | None]:
        """Return a page of the changes, newest first, and where the next one begins, or None.

        Args:
            before: Only changes whose first leaf is below this one; None for the newest.
            limit: How many at most.
            wanted: Which.

        Raises:
            LedgerError: A store failed.
        """
        found = (life for life in await self.all() if (before is None or life.first_leaf < before) and wanted(life))
        # One more than is shown: whether there is a next page is known, and not guessed from a full one.
        page = list(islice(found, limit + 1))
        return page[:limit], page[limit - 1].first_leaf if len(page) > limit else None

    async def approved(self, enforcer: str) -> list[ModeLife]:
        """Return what an enforcer may take up now.

        Raises:
            LedgerError: A store failed.
        """
        now_ms = self._clock.now_ms()
        return [life for life in await self.all() if life.may_be_taken_up(enforcer, now_ms)]

    async def propose(
        self, server: str, tool: str | None, *, enforcer: str | None, valid_ms: int, actor: Actor, reason: str
    ) -> tuple[str, int]:
        """Record a proposal to observe what is enforced.

        Args:
            server: Which server.
            tool: Which of its tools; None for the server itself.
            enforcer: The only enforcer that it is for; None for all.
            valid_ms: It lapses after so many milliseconds.
            actor: Who proposes it.
            reason: Why, for the vault.

        Returns:
            Its id, and the leaf index of its record.

        Raises:
            LedgerError: It could not be recorded.
        """
        now_ms = self._clock.now_ms()
        event = ModeEvent(
            change_id=new_record_id(now_ms, secrets.token_bytes(_ID_BYTES)),
            action="proposed",
            server=server,
            tool=tool,
            mode="observe",
            enforcer=enforcer,
            expires_ms=now_ms + valid_ms,
            actor=actor.pseudonym,
            actor_role=actor.role,
        )
        return event.change_id, await self._record(event, reason)

    async def review(
        self, change_id: str, verdict: str, actor: Actor, reason: str | None, *, also: Collection[str] = ()
    ) -> tuple[str, int]:
        """Record what somebody says of a change.

        Args:
            change_id: Which.
            verdict: ``approved`` or ``rejected``.
            actor: Who says so.
            reason: Why, for the vault.
            also: What else that person is called; see `service.people`.

        Returns:
            What was recorded (``approved``, ``rejected`` or ``reviewed``), and its leaf index.

        Raises:
            NotFoundError: There is no such change.
            ConflictError: Nothing is to be said of it, or it is for somebody else to say.
            LedgerError: It could not be recorded.
        """
        book = await asyncio.to_thread(self._reading.read)
        action = book.next_step(change_id, verdict, actor.pseudonym, actor.key_id, self._clock.now_ms(), also)
        life = book.get(change_id)
        said = ModeEvent(
            change_id=change_id,
            action=action,
            server=life.server,
            tool=life.tool,
            mode="observe" if life.mode == "observe" else "enforce",
            actor=actor.pseudonym,
            actor_role=actor.role,
        )
        return action, await self._record(said, reason)

    async def _record(self, event: ModeEvent, reason: str | None) -> int:
        openings: tuple[Opening, ...] = ()
        if reason is not None:
            commitment, opening = commit("reason", secrets.token_bytes(SALT_BYTES), reason.encode())
            event, openings = msgspec.structs.replace(event, reason=commitment), (opening,)
        (done,) = await self._sink.append([Draft(body=event, openings=openings)])
        return done.index
