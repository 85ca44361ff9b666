"""Tools' definitions: what the log says of them, what people say, and what gateways follow."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enforcement.tool_changes import difference
from enforcement.tool_definitions import read_definition
from ledger.bodies_tools import ToolEvent
from ledger.catalog import Catalog
from ledger.commitments import SALT_BYTES
from ledger.errors import ConflictError, ErasedError, NotFoundError, VerificationError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record
from ledger.tool_verdicts import ToolVerdicts
from ledger.vault import Vault
from policies.bundle_lives import Actor
from service.book_reading import BookReading
from service.tool_book import ToolBook, ToolLife, ToolStep, Verdict

__all__ = ["Difference", "Tools"]

_FIELD: Final = "definition"


@dataclass(frozen=True, slots=True)
class Difference:
    """Two definitions of a tool.

    Attributes:
        before: The one that stood; None if none did, or nobody has it any more.
        after: The one that was seen last, likewise.
        lines: Their difference, as `enforcement.tool_changes.difference` writes it.
    """

    before: str | None
    after: str | None
    lines: tuple[str, ...]


class Tools:
    """The tools of one log. Reading is safe for any thread."""

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
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            service_id: The service's own enforcer id.
            sink: Records.
            catalog: Finds records.
            reader: Reads them.
            vault: Opens definitions.
            check: Checks that a record is signed by the service; raises if not.
        """
        self._sink = sink
        self._reader = reader
        self._vault = vault
        self._reading = BookReading(
            ToolBook(service_id),
            "tool",
            log_id=log_id,
            service_id=service_id,
            catalog=catalog,
            reader=reader,
            check=check,
        )

    async def all(self) -> list[ToolLife]:
        """Return every tool, those that wait for somebody first.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().all)

    async def get(self, server: str, tool: str) -> ToolLife:
        """Return a tool.

        Raises:
            NotFoundError: No gateway has seen it.
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().get(server, tool))

    async def verdicts(self) -> ToolVerdicts:
        """Return the set that gateways follow.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().verdicts)

    async def difference(self, life: ToolLife) -> Difference:
        """Return what differs between the definition that stood and the one that was seen last.

        Raises:
            VerificationError: A gateway recorded another definition than its digest says.
            LedgerError: A store failed, or the vault holds something else than the leaf commits to.
        """
        return await asyncio.to_thread(self._difference, life)

    def _difference(self, life: ToolLife) -> Difference:
        after = self._definition(life, life.digest)
        before = None if life.standing == life.digest else self._definition(life, life.standing)
        lines = () if after is None else tuple(difference(before or "", after))
        return Difference(before, after, lines)

    def _definition(self, life: ToolLife, digest: str) -> str | None:
        """Return the definition with a digest, if some gateway has left it and it is still there.

        INVARIANT: what people are shown is what they speak of. The digest and the text are a gateway's word, and the
        digest alone is what other gateways go by: a text of another digest is shown to nobody.

        Raises:
            VerificationError: What was left is only of another digest.
            LedgerError: A store failed.
        """
        another = None
        for step in reversed(life.steps):
            if (step.event.digest or "") != digest or step.event.definition is None:
                continue
            text = self._open(step)
            if text is None:  # it was erased; another gateway may have left it as well
                continue
            if not digest or read_definition(text).digest == digest:
                return text
            another = step
        if another is not None:
            raise VerificationError(
                f"the definition of {life.tool} that {another.enforcer} recorded at leaf {another.leaf} is another one "
                "than its digest says"
            )
        return None

    def _open(self, step: ToolStep) -> str | None:
        try:
            return self._vault.open(self._reader.record(step.leaf), _FIELD).payload.decode(errors="replace")
        except (NotFoundError, ErasedError):
            return None

    async def say(
        self, server: str, tool: str, *, digest: str, verdict: Verdict, actor: Actor, comment: str
    ) -> tuple[ToolLife, int]:
        """Record what a person says of the definition that was seen last.

        Args:
            server: Its server.
            tool: Its name, as records have it.
            digest: Of the definition that he has looked at.
            verdict: What he says.
            actor: Who.
            comment: Why, for the vault.

        Returns:
            The tool before that, and the leaf index of the record.

        Raises:
            NotFoundError: No gateway has seen it.
            ConflictError: Another definition was seen by now, or that is what stands already; a word that came too late
                is recorded, and changes nothing.
            VerificationError: He would approve what nobody can have been shown: see `difference`.
            LedgerError: It could not be recorded.
        """
        book = await asyncio.to_thread(self._reading.read)
        life = book.check(server, tool, digest, verdict)
        if verdict == "approved":
            await asyncio.to_thread(self._definition, life, digest)
        committed, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
        openings: tuple[Opening, ...] = (opening,)
        event = ToolEvent(
            action=verdict,
            server=server,
            tool=tool,
            digest=digest,
            previous=life.standing or None,
            actor=actor.pseudonym,
            actor_role=actor.role,
            comment=committed,
        )
        (done,) = await self._sink.append([Draft(body=event, openings=openings)])
        if (await self.get(server, tool)).leaf < done.index:
            raise ConflictError(f"another definition of {tool} was seen meanwhile: look at it again")
        return life, done.index
