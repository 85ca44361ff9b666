"""The end of a session, as its client asks for it with DELETE.

Source: Model Context Protocol, revision 2025-11-25, Transports, "Session Management".
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

from enforcement.client_side import ClientSide
from enforcement.conversation import Conversation
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.verdicts import Completion, Inbound, OutcomeStatus, Permitted
from enforcement.way import Way, session_headers
from ledger.errors import UpstreamError

__all__ = ["Termination"]

_NOT_FOUND: Final = 404


class Termination:
    """Carries one request to end a session. Used once.

    Attributes:
        survives: It goes on when its client goes away.
    """

    survives: Final = True

    def __init__(
        self, permitted: Permitted, inbound: Inbound, client: ClientSide, *, way: Way, conversation: Conversation
    ) -> None:
        """Take the parts.

        Args:
            permitted: The request as it was decided.
            inbound: It as received.
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
        """Do nothing: it has said all that it had to."""

    async def run(self) -> None:
        """End the session at the server, then here, and tell the client."""
        status: int | None = None
        reason: str | None = None
        added = session_headers(self._conversation)
        try:
            sending = self._way.upstream.send(
                self._permitted.server, self._inbound.headers, b"", verb="DELETE", added=added
            )
            async with sending as response:
                status = response.status
                reason = None if response.ok or status == _NOT_FOUND else "upstream_status"
        except UpstreamError as error:
            reason = str(error)
        if reason is None:
            await self._way.end(self._conversation, "session_ended")
        await self._report("completed" if reason is None else "failed", reason, status)
        await self._client.reply(self._reply(status, reason))

    async def close(self, reason: str) -> None:
        """Report it as cancelled if `run` was cancelled before it reported anything."""
        if not self._reported:
            self._reported = True
            await self._way.complete(self._permitted, Completion(status="cancelled", reason=reason))

    async def _report(self, status: OutcomeStatus, reason: str | None, http_status: int | None) -> None:
        self._reported = True
        latency_us = int((perf_counter() - self._started) * 1_000_000)
        completion = Completion(
            status=status,
            reason=reason,
            latency_us=latency_us,
            http_status=http_status,
        )
        await self._way.complete(self._permitted, completion)

    def _reply(self, status: int | None, reason: str | None) -> Reply:
        if reason is None:
            return Reply(status=200, body=b"")
        refused = status if status is not None and 400 <= status < 500 else 502  # noqa: PLR2004  # a server may decline
        data = {"reason": reason, "decision_id": self._permitted.decision_id}
        text = "The server does not end the session"
        return error_reply(None, status=refused, code=ErrorCode.UPSTREAM_FAILED, text=text, data=data)
