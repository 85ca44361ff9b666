"""Strict windows: what a call takes of a cap that all gateways share, given out by the service.

A call that belongs to a strict window asks the service before its policy is asked: one request, which takes what the
call would add and says what there is with it. Sights (``seen``) are asked for by every call, since whoever has seen
something is to be told from who has not.

INVARIANT 7: while the service does not answer, a strict window counts as reached. Its value is the greatest there is,
and ``unavailable`` in the request names it.

INVARIANT: what a call takes is given back if, and only if, it is not let through, or never goes on. A question whose
answer was lost may have taken something all the same, so that it is given back as well; and what a call that is let
through takes is said again, if nobody knows whether it was heard. Both wait in the state file, in the transaction of
the record that tells of it, until the service has heard them. A gateway that dies between the question and the decision
leaves taken what it took: a cap can then be reached too early, and never too late.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from enforcement.fleet_store import FleetStore, Part, encode_parts
from enforcement.metrics import Metrics
from enforcement.ports import Unavailable
from enforcement.state import Change
from policies.model import DecisionRequest, WindowValue
from policies.window_history import History
from policies.windows import Call, WindowSet

__all__ = ["Asked", "StrictWindows"]

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Say:
    """Have the service hear what a decision takes, or that it takes nothing (None)."""

    decision_id: str
    parts: tuple[Part, ...] | None

    def apply(self, connection: sqlite3.Connection) -> None:
        said = None if self.parts is None else encode_parts(self.parts)
        connection.execute("INSERT INTO fleet_outbox (decision_id, parts) VALUES (?, ?)", (self.decision_id, said))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call has asked of strict windows.

    Attributes:
        names: The windows.
        amounts: What the call adds to each; 0 where it does not belong.
        parts: What was asked of the service for each.
        sums: Its answers; None if there was none.
    """

    names: tuple[str, ...]
    amounts: tuple[int, ...]
    parts: tuple[Part, ...]
    sums: tuple[int, ...] | None = None

    def changes(self, decision_id: str, *, permitted: bool) -> list[Change]:
        """Return what has the service hear how the call was decided, where that is not what it knows already."""
        if not permitted:
            return [_Say(decision_id, None)] if any(part.amount != "0" for part in self.parts) else []
        # What makes room was not asked for: it does so once it is certain.
        unheard = [
            msgspec.structs.replace(part, amount=str(amount))
            for part, amount in zip(self.parts, self.amounts, strict=True)
            if amount < 0 or (amount and self.sums is None)
        ]
        return [_Say(decision_id, tuple(unheard))] if unheard else []

    def facts(self, windows: WindowSet) -> dict[str, WindowValue]:
        """Return the value of each window for the call."""
        if self.sums is None:
            return {name: windows.reached(name) for name in self.names}
        told = zip(self.names, self.amounts, self.sums, strict=True)
        return {name: windows.written(name, _value(windows, name, amount, total)) for name, amount, total in told}

    def stated(self, request: DecisionRequest) -> DecisionRequest:
        """Return the request with the names of those that count as reached, if there are any."""
        if self.sums is not None:
            return request
        state = msgspec.structs.replace(request.state, unavailable=self.names)
        return msgspec.structs.replace(request, state=state)


def _value(windows: WindowSet, name: str, amount: int, total: int) -> int:
    """Return what a window says, given the total with what the call takes."""
    if not windows.windows[name].includes_present:
        return total - max(0, amount)
    return total + min(0, amount)


class StrictWindows:
    """Asks for strict windows; owned by the event loop."""

    def __init__(self, store: FleetStore | None, metrics: Metrics | None = None, *, seconds: float = 1.0) -> None:
        """Take the parts.

        Args:
            store: Gives them out; None if there is nobody to ask, so that all of them count as reached.
            metrics: Counts, if anybody does.
            seconds: How long a call waits for an answer.
        """
        self._store = store
        self._metrics = metrics
        self._seconds = seconds

    def questions(self, history: History, call: Call) -> Asked | None:
        """Return what a call has to ask, not yet answered; None if it has nothing to."""
        windows = call.windows.windows
        names = tuple(
            name
            for name, window in windows.items()
            if window.strict and (name in call.amounts or window.measure == "seen")
        )
        if not names:
            return None
        amounts = tuple(call.amounts.get(name, 0) for name in names)
        return Asked(names, amounts, tuple(_part(history, call, *pair) for pair in zip(names, amounts, strict=True)))

    async def ask(self, decision_id: str, asked: Asked) -> Asked:
        """Return the questions with their answers, if the service has given any."""
        sums = await self._reserve(decision_id, asked.parts)
        result = "taken" if sums is not None else "unavailable"
        if self._metrics is not None:
            self._metrics.reservations.labels(result).inc()
        return Asked(asked.names, asked.amounts, asked.parts, None if sums is None else tuple(sums))

    async def _reserve(self, decision_id: str, parts: Sequence[Part]) -> Sequence[int] | None:
        if self._store is None:
            return None
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._store.reserve(decision_id, parts)
        except TimeoutError:
            answer = Unavailable("timeout")
        if isinstance(answer, Unavailable):
            _LOG.warning("strict_windows_unavailable", decision_id=decision_id, reason=answer.reason)
            return None
        return answer


def _part(history: History, call: Call, name: str, amount: int) -> Part:
    share, first = history.place_of(call, name, amount)
    return Part(
        digest=share.digest,
        subject=share.subject,
        slot=share.slot,
        first=first,
        amount=str(max(0, amount)),
        forget_ms=share.forget_ms or 0,
    )
