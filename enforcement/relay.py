"""A client's answer to a server's request, on its way to the server.

It is the outcome of the server's request, which was decided when the server sent it. Here too nothing is released
before its outcome is durable; if it cannot be made so, the server gets an error in the answer's place.
"""

from __future__ import annotations

from typing import Final

from enforcement.answers import parse_answer
from enforcement.offload import off_loop
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.session_carrier import SessionCarrier
from enforcement.verdicts import Completion
from enforcement.way import session_headers
from ledger.errors import UpstreamError

__all__ = ["Relay"]

_NOT_FOUND: Final = 404


class Relay(SessionCarrier):
    """Carries one answer. Used once.

    Attributes:
        survives: Whether it goes on when its client goes away: it has said all that it had to.
    """

    survives: Final = True

    async def run(self) -> None:
        """Record the answer, hand it on, and tell the client."""
        request_id = self._permitted.message.request_id
        assert request_id is not None  # or nothing would have waited for it
        body = self._inbound.body
        answer = await off_loop(len(body), parse_answer, body, request_id)
        failed = answer.error_code is not None
        answered = Completion(
            status="failed" if failed else "completed",
            reason="jsonrpc_error" if failed else None,
            latency_us=self._latency_us(),
            answer=body,
            result=answer.result,
            error_code=answer.error_code,
        )
        durable = await self._report(answered)
        if durable:
            await self._client.reply(await self._hand_on(body))
            return
        version = self._permitted.message.protocol_version
        self._way.refuse_server(
            self._permitted.server,
            self._conversation,
            version,
            request_id,
            self._inbound.headers,
            code=ErrorCode.RESULT_WITHHELD,
            text="The answer could not be recorded",
        )
        await self._client.reply(self._refusal(503, "ledger_unavailable"))

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

    def _refusal(self, status: int, reason: str) -> Reply:
        data = {"reason": reason, "decision_id": self._permitted.decision_id}
        text = "The server did not take the response"
        return error_reply(None, status=status, code=ErrorCode.UPSTREAM_FAILED, text=text, data=data)
