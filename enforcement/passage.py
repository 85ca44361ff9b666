"""The way of a message through the enforcement point, seen to its end whatever the transport does meanwhile.

What is elsewhere: judging and recording (`enforcement.pep`), how messages arrive and go on (each transport).

INVARIANT: a message that was taken up is seen through. Judging and recording run in tasks of their own, so that a
client that goes away, or a transport that is being stopped, cancels the call and never its records.

INVARIANT: once the enforcement point is being stopped, nothing is forwarded any more, whatever was being judged at that
moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

from enforcement.answers import Answer
from enforcement.approvals import Held
from enforcement.pep import EnforcementPoint
from enforcement.refusals import Reply
from enforcement.review import AnswerReview, Reviewed
from enforcement.stream_inspection import StreamInspection
from enforcement.verdicts import Completion, Denied, Inbound, Permitted, Verdict
from ledger.errors import LedgerError

__all__ = ["STOPPING", "Passage"]

_T = TypeVar("_T")
_LOG: Final = structlog.get_logger(__name__)

STOPPING: Final = Denied(Reply(status=503, body=b"", headers=(("Retry-After", "1"),)))
"""The answer to whatever arrives while the enforcement point is being stopped; nothing can be recorded any more."""


class Passage:
    """Takes the messages of all transports to one enforcement point. Owned by the event loop."""

    def __init__(self, pep: EnforcementPoint, review: AnswerReview) -> None:
        """Take what judges and records, and what looks through answers."""
        self._pep = pep
        self._review = review
        self._records: set[asyncio.Task[Any]] = set()  # must not be cancelled
        self._calls: set[asyncio.Task[Any]] = set()  # may be
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether nothing is taken up any more."""
        return self._stopping.is_set()

    async def judge(self, inbound: Inbound) -> Verdict:
        """Judge one message; its decision is durable when this returns.

        If the caller is cancelled meanwhile, or the enforcement point is stopped, a call that was permitted is closed
        as ``not_forwarded``; a caller who was not cancelled gets `STOPPING`.
        """
        if self._stopping.is_set():
            return STOPPING
        judging = self._see_through(self._judge(inbound, leaving := asyncio.Event()))
        try:
            verdict = await asyncio.shield(judging)
        except asyncio.CancelledError:
            leaving.set()
            self._see_through(self._abandon(judging))
            raise
        if isinstance(verdict, Permitted) and self._stopping.is_set():  # while it was judged
            await self._see_through(self._abandon(judging))
            return STOPPING
        return verdict

    async def _judge(self, inbound: Inbound, leaving: asyncio.Event) -> Verdict:
        """Judge a message, and if people must agree, wait until they have; anew under each bundle."""
        while isinstance(verdict := await self._pep.take(inbound), Held):
            assert self._pep.holding is not None  # what holds it
            left = asyncio.create_task(_withdrawn(leaving, verdict))
            try:
                if self._stopping.is_set():
                    verdict.withdraw("gateway_stopped")
                concluded = await self._pep.holding.conclude(self._pep, verdict)
            finally:
                left.cancel()
            if concluded is not None:
                return concluded
        return verdict

    def standing_against(self, permitted: Permitted) -> str | None:
        """Return why a permitted message that had to wait since must not go on after all; None if it may.

        A transport that keeps messages in order asks this as the last thing before such a message goes on.
        """
        try:
            return self._pep.standing_against(permitted)
        except LedgerError as error:  # INVARIANT 7: who cannot be said to be free to call does not call
            _LOG.error("standing_unknown", decision_id=permitted.decision_id, error=type(error).__name__)
            return "internal_error"

    async def review(self, permitted: Permitted, answer: Answer, body: bytes) -> Reviewed:
        """Return what the client gets of an answer; nothing else of it is released.

        What is recorded meanwhile is recorded even if the caller is cancelled.
        """
        return await asyncio.shield(self._see_through(self._review.review(permitted, answer, body)))

    def stream(self, permitted: Permitted) -> StreamInspection[Any]:
        """Return what looks through a server's notifications on the stream that a permitted message has."""
        return self._review.stream(permitted)

    async def complete(self, permitted: Permitted, completion: Completion) -> None:
        """Record what became of a permitted call; it is recorded even if the caller is cancelled meanwhile.

        Raises:
            LedgerError: The outcome is not as durable as it must be; the result must be withheld.
        """
        await asyncio.shield(self._see_through(self._pep.complete(permitted, completion)))

    def forward(self, call: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run a permitted call's way to its server as a task that `stop` cancels; it reports its own outcome."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def stop(self) -> None:
        """Cancel the calls that are under way and wait until their outcomes are recorded."""
        self._stopping.set()
        if self._pep.holding is not None:
            self._pep.holding.withdraw_all("gateway_stopped")
        for call in self._calls:
            call.cancel()
        while self._calls or self._records:
            await asyncio.gather(*self._calls, *self._records, return_exceptions=True)

    async def _abandon(self, judging: asyncio.Task[Verdict]) -> None:
        """Close a call that the end of gateway or transport kept from going on after it was judged."""
        verdict = await judging
        if isinstance(verdict, Permitted):
            try:
                await self._pep.complete(verdict, Completion(status="not_forwarded", reason="gateway_stopped"))
            except LedgerError as error:  # nothing is released that would have to be withheld
                _LOG.error("outcome_not_durable", decision_id=verdict.decision_id, error=type(error).__name__)

    def _see_through(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(coroutine)
        self._records.add(task)
        task.add_done_callback(self._records.discard)
        return task


async def _withdrawn(leaving: asyncio.Event, held: Held) -> None:
    """End the wait for a held call when its client's own task is cancelled."""
    await leaving.wait()
    held.withdraw("client_disconnected")
