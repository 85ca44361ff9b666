"""What every carrier of a permitted message needs: the way to the servers, to the records, and to the sessions.

What is elsewhere: whether a message may pass (`enforcement.pep`), what is carried (`enforcement.exchange`,
`enforcement.listening`, `enforcement.relay`, `enforcement.termination`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from enforcement.config import Limits, ServerSettings
from enforcement.config_protocol import ProtocolSettings
from enforcement.conversation import Conversation
from enforcement.conversations import SESSION_HEADER, Conversations
from enforcement.mcp_headers import RawHeaders
from enforcement.passage import Passage
from enforcement.refusals import ErrorCode, RequestId
from enforcement.server_messages import refusal_to_server
from enforcement.upstream import ServerSide, Verb
from enforcement.verdicts import Completion, Inbound, Permitted, Verdict
from ledger.errors import LedgerError, UpstreamError

__all__ = ["Way", "session_headers"]

_LOG: Final = structlog.get_logger(__name__)
_OWN_HEADERS: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def session_headers(conversation: Conversation | None) -> dict[str, str]:
    """Return the headers under which a server knows a session."""
    if conversation is None or conversation.upstream is None:
        return {}
    return {SESSION_HEADER: conversation.upstream}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The ways that carriers share.

    Attributes:
        passage: Has messages judged and recorded.
        upstream: To the servers.
        conversations: The sessions of stateful revisions.
        limits: Bounds.
        protocol: Which revisions pass, and further bounds.
    """

    passage: Passage
    upstream: ServerSide
    conversations: Conversations
    limits: Limits
    protocol: ProtocolSettings

    def revisions(self, server: ServerSettings) -> tuple[str, ...]:
        """Return the revisions that pass to a server."""
        return server.revisions or self.protocol.revisions

    async def judge(self, inbound: Inbound) -> Verdict:
        """Judge a message; see `Passage.judge`."""
        return await self.passage.judge(inbound)

    async def complete(self, permitted: Permitted, completion: Completion) -> bool:
        """Record what became of a permitted message after which nothing is released; tell whether it is durable."""
        try:
            await self.passage.complete(permitted, completion)
        except LedgerError as error:
            _LOG.error("outcome_not_durable", decision_id=permitted.decision_id, error=type(error).__name__)
            return False
        return True

    def refuse_server(
        self,
        server: ServerSettings,
        conversation: Conversation,
        version: str,
        request_id: RequestId,
        lines: RawHeaders,
        *,
        code: int = ErrorCode.DENIED,
        text: str = "Denied",
    ) -> None:
        """Answer a server's request in the client's place, in the background: it must not hold up the stream.

        Args:
            server: The server.
            conversation: The session.
            version: Its revision.
            request_id: Id of the request.
            lines: Header lines of the client's message that the request came in answer to; they say to what host.
            code: JSON-RPC error code.
            text: What the server is told.
        """
        body = refusal_to_server(request_id, code, text)
        added = {**session_headers(conversation), **_version(version)}
        self._in_background(self._send(server, "POST", body, lines, added))

    def dismiss(self, server: ServerSettings, upstream_name: str, version: str, lines: RawHeaders) -> None:
        """End a session at the server that no client will ever use, in the background."""
        added = {SESSION_HEADER: upstream_name, **_version(version)}
        self._in_background(self._send(server, "DELETE", b"", lines, added))

    async def end(self, conversation: Conversation, reason: str) -> None:
        """End a session: what is open in it gets its outcome, and nobody finds it any more."""
        self.conversations.forget(conversation)
        asked, conversation.asked = conversation.asked, {}
        for one in asked.values():
            await self.complete(one.permitted, Completion(status="cancelled", reason=reason))
        for held in list(conversation.held.values()):
            held.withdraw(reason)
        for call in list(conversation.calls.values()):
            await call.abandon(reason)

    def _in_background(self, sending: Coroutine[Any, Any, None]) -> None:
        if self.passage.stopping:
            sending.close()
            return
        self.passage.forward(sending)

    async def _send(
        self, server: ServerSettings, verb: Verb, body: bytes, lines: RawHeaders, added: Mapping[str, str]
    ) -> None:
        host = [line for line in lines if line[0].lower() == b"host"]
        try:
            async with asyncio.timeout(self.limits.upstream_connect_seconds + self.limits.body_seconds):
                sending = self.upstream.send(server, host, body, verb=verb, added={**_OWN_HEADERS, **added})
                async with sending as response:
                    if not response.ok:
                        _LOG.warning("server_not_answered", server=server.name, verb=verb, status=response.status)
        except (UpstreamError, TimeoutError) as error:
            _LOG.warning("server_not_answered", server=server.name, verb=verb, error=type(error).__name__)


def _version(version: str) -> dict[str, str]:
    return {"mcp-protocol-version": version}
