"""What a client gets of an answer in which something was found: all of it, some of it, or none.

What is elsewhere: finding (`enforcement.looking`), replacing (`enforcement.redaction`), what is configured
(`enforcement.config_inspection`), and the way of an answer (`enforcement.review`).

Two texts are looked through. What the *server sent* is what the record speaks of. What would be *released* may be
another: a list without the tools that may not be called, or a question with another state. What is redacted is redacted
of that one.

What would be redacted and has no place of its own (a bomb is the whole text) is blocked.

INVARIANT 7: where findings would be redacted or blocked, an answer of which some part was not looked at, or some
finding has no place, is not released, unless the operator has said so (``partial: pass``), and never where the policy
asked for it. An inspector that fails, or takes too long, has looked at nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from enforcement.config_inspection import Act, Inspecting, InspectionSettings, inspecting_of
from enforcement.looking import Inspector, Look, look_through, unseen
from enforcement.messages import Kind, Message
from enforcement.offload import off_loop
from enforcement.redaction import redacted
from enforcement.strictness import handling_of
from enforcement.verdicts import Permitted
from ledger.errors import MalformedError
from policies.model import Obligation
from policies.signals import Signals

__all__ = ["BLOCKED", "NOT_INSPECTED", "AnswerInspection", "Inspected"]

_LOG: Final = structlog.get_logger(__name__)

BLOCKED: Final = "result_blocked"
"""Reason of an outcome whose answer the client does not get for what is in it."""

NOT_INSPECTED: Final = "result_not_inspected"
"""Reason of an outcome whose answer the client does not get because nobody knows what is in it."""

_BY_OBLIGATION: Final[dict[str, Act]] = {Obligation.REDACT_RESULT: "redact", Obligation.BLOCK_RESULT: "block"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What becomes of an answer.

    Attributes:
        body: What the client gets; None if it gets none of it.
        signals: What was found in what the server sent.
        reason: Why the client gets none of it.
        redacted: Places in which it gets something else.
    """

    body: bytes | None
    signals: Signals
    reason: str | None = None
    redacted: int = 0


class AnswerInspection:
    """Looks through answers. Owned by the event loop."""

    def __init__(self, inspector: Inspector, settings: InspectionSettings) -> None:
        """Take the parts.

        Args:
            inspector: Finds things.
            settings: What is looked for, and what is done about it.
        """
        self._inspector = inspector
        self._settings = settings

    def inspecting(self, permitted: Permitted) -> Inspecting | None:
        """Return how the answer to a call is inspected; None if it is not."""
        found = inspecting_of(self._settings, permitted.server, permitted.message.method, permitted.message.name)
        if found is None:
            return None
        for obligation, act in _BY_OBLIGATION.items():
            if obligation in permitted.obligations:
                found = found.at_least(act)
        return found

    async def inspected(self, permitted: Permitted, sent: bytes, body: bytes | None) -> Inspected | None:
        """Return what becomes of an answer; None if it is not inspected.

        Args:
            permitted: The call that was answered.
            sent: What the server sent, one JSON-RPC response.
            body: What the client would get; None if it gets none of it anyway.
        """
        inspecting = self.inspecting(permitted)
        if inspecting is None:
            return None
        look = await self.look(inspecting, sent, permitted.decision_id)
        if body is None:
            return Inspected(body=None, signals=look.signals)
        of_body = look if body is sent or body == sent else await self.look(inspecting, body, permitted.decision_id)
        return await self.released(permitted, inspecting, look, of_body, body)

    async def look(self, inspecting: Inspecting, data: bytes, decision_id: str) -> Look:
        """Look through a JSON text, in bounded time."""
        try:
            async with asyncio.timeout(self._settings.seconds):
                return await off_loop(
                    len(data),
                    look_through,
                    self._inspector,
                    data,
                    kinds=inspecting.kinds,
                    max_bytes=inspecting.max_bytes,
                )
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: whatever it was, nothing was looked at
            _LOG.error("answer_not_inspected", decision_id=decision_id, error=type(error).__name__)
            return unseen(self._inspector)

    async def released(
        self, permitted: Permitted, inspecting: Inspecting, of_sent: Look, of_body: Look, body: bytes
    ) -> Inspected:
        """Return what becomes of a text that was looked through.

        Args:
            permitted: The call that it is about.
            inspecting: How it was.
            of_sent: What was found in what the server sent.
            of_body: What was found in what would be released.
            body: What would be released.
        """
        signals = of_sent.signals
        mode, _ = handling_of(permitted.server, permitted.message)
        if mode == "observe":
            return Inspected(body=body, signals=signals)
        blocking = {kind for kind in of_body.kinds if inspecting.acts[kind] == "block"}
        if blocking | {kind for kind in of_body.placeless if inspecting.acts[kind] == "redact"}:
            return Inspected(body=None, signals=signals, reason=BLOCKED)
        if not of_body.whole and inspecting.holds_partial:
            return Inspected(body=None, signals=signals, reason=NOT_INSPECTED)
        going = [one for one in of_body.stretches if inspecting.acts[one.kind] == "redact"]
        # What a client answers a server goes on as it is, or not at all: transports pass on the client's own bytes.
        if not going or _is_clients(permitted.message):
            return Inspected(body=body, signals=signals)
        try:
            made, places = await off_loop(len(body), redacted, body, going)
        except MalformedError:
            return Inspected(body=None, signals=signals, reason=NOT_INSPECTED)
        return Inspected(body=made, signals=signals, redacted=places)


def _is_clients(message: Message) -> bool:
    """Whether it is a client that answers: with a message of its own, or to the server's."""
    return message.kind is Kind.RESPONSE or message.direction == "server"
