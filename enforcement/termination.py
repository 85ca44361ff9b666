"""The end of a session, as its client asks for it with DELETE.

Source: Model Context Protocol, revision 2025-11-25, Transports, "Session Management".
"""

from __future__ import annotations

from typing import Final

from enforcement.refusals import Reply
from enforcement.session_carrier import SessionCarrier
from enforcement.trace_headers import onward_lines, trace_headers
from enforcement.verdicts import Completion
from enforcement.way import session_headers
from ledger.errors import UpstreamError

__all__ = ["Termination"]

_NOT_FOUND: Final = 404


class Termination(SessionCarrier):
    """Carries one request to end a session. Used once.

    Attributes:
        survives: It goes on when its client goes away.
    """

    survives: Final = True

    async def run(self) -> None:
        """End the session at the server, then here, and tell the client."""
        status: int | None = None
        reason: str | None = None
        added = {**session_headers(self._conversation), **trace_headers(self._permitted)}
        try:
            sending = self._way.upstream.send(
                self._permitted.server,
                onward_lines(self._permitted, self._inbound.headers),
                b"",
                verb="DELETE",
                added=added,
            )
            async with sending as response:
                status = response.status
                reason = None if response.ok or status == _NOT_FOUND else "upstream_status"
        except UpstreamError as error:
            reason = str(error)
        if reason is None:
            await self._way.end(self._conversation, "session_ended")
        ended = Completion(
            status="completed" if reason is None else "failed",
            reason=reason,
            latency_us=self._latency_us(),
            http_status=status,
        )
        await self._report(ended)
        await self._client.reply(self._reply(status, reason))

    def _reply(self, status: int | None, reason: str | None) -> Reply:
        if reason is None:
            return Reply(status=200, body=b"")
        return self._refused(status, reason, "The server does not end the session")
