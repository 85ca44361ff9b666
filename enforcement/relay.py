"""A client's answer to a server's request, on its way to the server.

It is the outcome of the server's request, which was decided when the server sent it. It is reviewed as every answer is
(`enforcement.review`), and handed on as the client wrote it, or not at all.

INVARIANT: nothing is released before its outcome is durable. If it cannot be made so, or the server may not have the
answer, the server gets an error in the answer's place, so that it does not wait for ever, and the client is told.
"""

from __future__ import annotations

from typing import Final

from enforcement.answering import settle
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.session_carrier import SessionCarrier
from enforcement.way import session_headers
from ledger.errors import UpstreamError

__all__ = ["Relay"]

_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


class Relay(SessionCarrier):
    """Carries one answer. Used once.

    Attributes:
        survives: Whether it goes on when its client goes away: it has said all that it had to.
    """

    survives: Final = True

    async def run(self) -> None:
        """Record the answer, hand it on, and tell the client."""
        permitted, body = self._permitted, self._inbound.body
        settled = await settle(self._way.passage, permitted, body, latency_us=self._latency_us())
        if not await self._report(settled.completion):
            self._refuse_server("The answer could not be recorded")
            await self._client.reply(self._refusal(503, "ledger_unavailable"))
        elif settled.replaced:
            self._refuse_server("The answer was withheld on its way here")
            reason = settled.completion.reason or "internal_error"
            await self._client.reply(self._refusal(_FORBIDDEN, reason, code=ErrorCode.RESULT_WITHHELD))
        else:
            await self._client.reply(await self._hand_on(body))

    def _refuse_server(self, text: str) -> None:
        """Answer the server in the client's place."""
        request_id = self._permitted.message.request_id
        assert request_id is not None  # or nothing would have waited for it
        version, lines = self._permitted.message.protocol_version, self._inbound.headers
        self._way.refuse_server(
            self._permitted.server,
            self._conversation,
            version,
            request_id,
            lines,
            code=ErrorCode.RESULT_WITHHELD,
            text=text,
        )

    async def _hand_on(self, body: bytes) -> Reply:
        added = session_headers(self._conversation)
        try:
            sending = self._way.upstream.send(self._permitted.server, self._inbound.headers, body, added=added)
            async with sending as response:
                if response.status == _NOT_FOUND and self._conversation.upstream is not None:
                    await self._way.end(self._conversation, "session_ended")
                    return self._refusal(_NOT_FOUND, "upstream_session_ended")
                return Reply(status=202, body=b"") if response.ok else self._refusal(502, "upstream_status")
        except UpstreamError as error:
            return self._refusal(502, str(error))

    def _refusal(self, status: int, reason: str, *, code: int = ErrorCode.UPSTREAM_FAILED) -> Reply:
        data = {"reason": reason, "decision_id": self._permitted.decision_id}
        text = "The server did not take the response"
        return error_reply(None, status=status, code=code, text=text, data=data)
