"""What a client gets of a server's answer: the answer, less what it may not have.

What is elsewhere: reading answers (`enforcement.answers`), how they travel (`enforcement.exchange`), their outcome
(`enforcement.pep`). Every transport has its answers reviewed here before it reports their outcome, and releases what
comes back and nothing else.

INVARIANT: what is recorded of an answer is what the server sent; what is released is what the review returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from enforcement.answer_inspection import AnswerInspection
from enforcement.answers import Answer, digests_of
from enforcement.listings import ListingFailedError, Listings
from enforcement.metrics import Metrics
from enforcement.offload import off_loop
from enforcement.pins import ToolPins
from enforcement.rounds import RoundReview
from enforcement.server_names import is_another
from enforcement.stream_inspection import StreamInspection
from enforcement.tool_lists import ToolLists
from enforcement.verdicts import Permitted
from ledger.errors import LedgerError, MalformedError
from policies.signals import Signals

__all__ = ["AnswerReview", "Reviewed"]

_LOG: Final = structlog.get_logger(__name__)
_LIST_OF_TOOLS: Final = "tools/list"
_ANOTHER_SERVER: Final = "server_identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """What becomes of an answer.

    Attributes:
        body: What the client gets; None if it gets none of it.
        reason: What the outcome gives for it.
        failed: It gets none of the answer; the body, if there is one, says why.
        hidden: How many entries of a list it does not get, or on an observed server would not.
        signals: What inspection found in what the server sent; None if it was not inspected.
        redacted: Places in which it gets something else than the server sent.
    """

    body: bytes | None
    reason: str | None = None
    failed: bool = False
    hidden: int = 0
    signals: Signals | None = None
    redacted: int = 0


class AnswerReview:
    """Looks through answers. Owned by the event loop."""

    def __init__(
        self,
        listings: Listings,
        rounds: RoundReview,
        learn_tools: Callable[[Permitted, Mapping[str, str]], None],
        metrics: Metrics,
        note_tools: Callable[[str, bytes], None] = lambda *_: None,
        pins: ToolPins | None = None,
        inspection: AnswerInspection | None = None,
    ) -> None:
        """Take the parts.

        Args:
            listings: Filters lists.
            rounds: Has what a server asks judged.
            learn_tools: Is told the digests of a server's tools when they are listed, whoever may see them.
            metrics: Counts.
            note_tools: Is told a server's name and its list of tools, whoever may see them.
            pins: Says which definitions of tools stand; without it all do.
            inspection: Looks through answers; None if nobody does.
        """
        self._pins = pins
        self._inspection = inspection
        self._listings = listings
        self._rounds = rounds
        self._learn_tools = learn_tools
        self._metrics = metrics
        self._note_tools = note_tools
        self._lists = ToolLists()

    async def review(self, permitted: Permitted, answer: Answer, body: bytes) -> Reviewed:
        """Return what a client gets of an answer. Not to be cancelled: what a server asks is judged and recorded.

        Args:
            permitted: The call that was answered.
            answer: The answer as read.
            body: Its bytes, a JSON-RPC response.
        """
        return await self._inspected(permitted, body, await self._reviewed(permitted, answer, body))

    def stream(self, permitted: Permitted) -> StreamInspection[Any]:
        """Return what looks through the notifications of the stream that a message has."""
        return StreamInspection(self._inspection, permitted)

    async def _inspected(self, permitted: Permitted, sent: bytes, reviewed: Reviewed) -> Reviewed:
        """Return what a client gets once the answer is looked through as well; it is the last thing that is done."""
        if self._inspection is None:
            return reviewed
        found = await self._inspection.inspected(permitted, sent, None if reviewed.failed else reviewed.body)
        if found is None:
            return reviewed
        self._metrics.count_findings(permitted.server.name, "answer", found.signals)
        reviewed = replace(reviewed, signals=found.signals)
        if found.reason is not None:
            return replace(reviewed, body=None, reason=found.reason, failed=True)
        return reviewed if reviewed.failed else replace(reviewed, body=found.body, redacted=found.redacted)

    async def _reviewed(self, permitted: Permitted, answer: Answer, body: bytes) -> Reviewed:
        if answer.result is None:
            return Reviewed(body=body)
        pin, other = permitted.server.pin, False
        if pin is not None and pin.server_name is not None:
            other = await off_loop(len(answer.result), is_another, pin, permitted.message.method, answer.result)
            if other and pin.other_name == "refuse":
                return Reviewed(body=None, reason=_ANOTHER_SERVER, failed=True)
        reviewed = await self._review_result(permitted, answer, answer.result, body)
        return replace(reviewed, reason=reviewed.reason or _ANOTHER_SERVER) if other else reviewed

    async def _review_result(self, permitted: Permitted, answer: Answer, result: bytes, body: bytes) -> Reviewed:
        if answer.input_required and permitted.message.era == "stateless":
            asking = await self._rounds.review(permitted, body)
            return Reviewed(body=asking.body, reason=asking.reason, failed=asking.failed)
        if permitted.message.method == _LIST_OF_TOOLS:
            self._learn_tools(permitted, await self._digests(permitted.server.name, result))
            self._note_tools(permitted.server.name, result)
            if self._pins is not None and (fault := await self._pin(self._pins, permitted, result)) is not None:
                return Reviewed(body=None, reason=fault, failed=True)
        try:
            listed = await self._listings.listed(permitted, body)
        except ListingFailedError as error:
            return Reviewed(body=None, reason=str(error), failed=True)
        if listed is None:
            return Reviewed(body=body)
        if listed.hidden:
            self._metrics.hidden.labels(permitted.server.name).inc(listed.hidden)
        return Reviewed(body=listed.body, hidden=listed.hidden)

    async def _pin(self, pins: ToolPins, permitted: Permitted, result: bytes) -> str | None:
        """Hold what is listed against what stands; return why the list must not be shown, or None if it may."""
        try:
            await pins.learn(permitted.server.name, result, continues=permitted.message.continues)
        except LedgerError as error:
            _LOG.error("tools_not_pinned", server=permitted.server.name, error=type(error).__name__)
            return "tools_not_pinned"
        return None

    async def _digests(self, server: str, result: bytes) -> Mapping[str, str]:
        """Return the digests of what is listed; of a server with pins they are known, and made once."""
        if self._pins is not None and server in self._pins.pinned_servers:
            with suppress(MalformedError):  # nothing is learned of it; and nothing of it is shown, see `_pin`
                return digests_of(await self._pins.read(server, result))
            return {}
        return await self._lists.digests(result)
