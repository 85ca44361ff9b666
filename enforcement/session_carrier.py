"""What carriers within a session have in common: what they are given, and that each reports once what became of it."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from enforcement.client_side import ClientSide
from enforcement.conversation import Conversation
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.verdicts import Completion, Inbound, Permitted
from enforcement.way import Way

__all__ = ["SessionCarrier"]

_US_PER_SECOND: Final = 1_000_000


class SessionCarrier:
    """Carries one message of a session; see `enforcement.carriers.Carrier`. Used once."""

    def __init__(
        self, permitted: Permitted, inbound: Inbound, client: ClientSide, *, way: Way, conversation: Conversation
    ) -> None:
        """Take the parts.

        Args:
            permitted: The message as it was decided; for an answer, the server's request.
            inbound: The message as received.
            client: The way back.
            way: To records, servers and sessions.
            conversation: The session.
        """
        self._permitted = permitted
        self._inbound = inbound
        self._client = client
        self._way = way
        self._conversation = conversation
        self._started = perf_counter()
        self._reported = False

    def client_gone(self) -> None:
        """Do nothing: whoever sent it has said all that it had to, or it does not survive that."""

    async def close(self, reason: str) -> None:
        """Record it as cancelled if it was cancelled before it recorded anything."""
        await self._report(Completion(status="cancelled", reason=reason, latency_us=self._latency_us()))

    async def _report(self, completion: Completion) -> bool:
        """Record what became of it, once; tell whether that is durable now."""
        if self._reported:
            return False
        self._reported = True
        return await self._way.complete(self._permitted, completion)

    def _latency_us(self) -> int:
        return int((perf_counter() - self._started) * _US_PER_SECOND)

    def _refused(self, status: int | None, reason: str, text: str) -> Reply:
        """Return what a client gets if the server did not do its part; a server may decline (4xx) in its own name."""
        shown = status if status is not None and 400 <= status < 500 else 502  # noqa: PLR2004
        data = {"reason": reason, "decision_id": self._permitted.decision_id}
        return error_reply(None, status=shown, code=ErrorCode.UPSTREAM_FAILED, text=text, data=data)
