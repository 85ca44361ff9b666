"""What a server sends in one stream beside answers, judged before the client sees it, and looked through.

A *request* of the server's is judged like a call: one decision, and as its outcome the client's answer. If it is
denied, the gateway answers the server in the client's place, and the client never sees it.

*Notifications* are judged once for each method and stream (`enforcement.notices`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from enforcement.conversation import Conversation
from enforcement.messages import Kind, Message, Refusal
from enforcement.notices import Notices
from enforcement.refusals import RefusalReason, RefusedError, RequestId
from enforcement.server_messages import ServerLine
from enforcement.verdicts import Completion, Denied, Inbound, Permitted
from enforcement.way import Way
from ledger.errors import MalformedError

__all__ = ["Downlink"]

_Tag = TypeVar("_Tag")


class Downlink:
    """Judges what comes down one stream. Owned by the stream's reader.

    Attributes:
        conversation: Its session; None in the stateless era.
        looking: Looks through its notifications.
    """

    def __init__(self, way: Way, stream: Permitted, inbound: Inbound, conversation: Conversation | None) -> None:
        """Begin with nothing judged.

        Args:
            way: To records and servers.
            stream: The message that the stream answers.
            inbound: It as received.
            conversation: Its session; None in the stateless era, where a server has no requests of its own.
        """
        self._way = way
        self._server = stream.server
        self._version = stream.message.protocol_version
        self._inbound = inbound
        self.conversation = conversation
        self.looking = way.passage.stream(stream)
        self._notices = Notices(way.judge, way.complete, way.passage.standing_against, let_go=self.looking.let_go)

    def speaks(self, version: str) -> None:
        """Note the revision that the stream's message has agreed on."""
        self._version = version

    async def admits(self, line: ServerLine, data: bytes, *, deliverable: bool = True) -> bool:
        """Whether a message may go on to the client.

        Args:
            line: Which message it is; no answer.
            data: Its bytes.
            deliverable: The client can still get it, on this stream or later.

        Raises:
            MalformedError: A server may not send it here.
        """
        if line.kind is Kind.NOTIFICATION:
            passes = await self._notices.admits(line.method, lambda: self._first(data))
            if passes and line.cancels is not None:
                await self._withdraw(line)
            return passes
        if self.conversation is None:
            raise MalformedError("a server has no requests of its own in this revision")
        return await self._admits_request(self.conversation, line, data, deliverable=deliverable)

    async def released(self, line: ServerLine, data: bytes, tag: _Tag) -> list[tuple[bytes | None, _Tag]]:
        """Return what goes on to the client now that a message may; see `enforcement.stream_inspection`.

        Args:
            line: Which message it is; no answer.
            data: Its bytes.
            tag: Comes back with it, now or later.
        """
        if line.kind is Kind.NOTIFICATION:
            return await self.looking.take(line.method, data, tag)
        # What the server asks the client is judged as it is, and waits for nothing.
        return [*self.looking.flush(), (data, tag)]

    async def close(self) -> None:
        """Record what passed; call it when the stream is over."""
        await self._notices.close()

    async def _admits_request(
        self, conversation: Conversation, line: ServerLine, data: bytes, *, deliverable: bool
    ) -> bool:
        request_id = line.request_id
        assert request_id is not None  # or it would be a notification
        if conversation.is_asked(request_id, data):
            return True  # sent once more, after the client came back for it
        if conversation.was_replied(data):
            return False
        if conversation.awaits(request_id):
            # Not answered: the server would take that for the answer to the one that waits.
            await self._way.judge(replace(self._as_inbound(data), parsed=_taken(line)))
            return False
        full = len(conversation.asked) >= self._way.protocol.server_requests
        verdict = await self._way.judge(replace(self._as_inbound(data), overloaded=full))
        if isinstance(verdict, Denied):
            self._refuse(conversation, request_id)
            return False
        if conversation.ended or not deliverable or conversation.awaits(request_id):
            reason = "session_ended" if conversation.ended else "client_disconnected"
            await self._way.complete(verdict, Completion(status="not_forwarded", reason=reason))
            self._refuse(conversation, request_id, text="Nobody is there")
            return False
        conversation.ask(request_id, verdict, data)
        return True

    def _refuse(self, conversation: Conversation, request_id: RequestId, text: str = "Denied") -> None:
        lines = self._inbound.headers
        self._way.refuse_server(self._server, conversation, self._version, request_id, lines, text=text)

    async def _withdraw(self, line: ServerLine) -> None:
        """Close the server's request that the server itself withdraws."""
        if self.conversation is None or line.cancels is None or not self.conversation.awaits(line.cancels):
            return
        withdrawn = self.conversation.take(line.cancels)
        await self._way.complete(withdrawn, Completion(status="cancelled", reason="server_cancelled"))

    async def _first(self, data: bytes) -> Inbound:
        return self._as_inbound(data)

    def _as_inbound(self, data: bytes) -> Inbound:
        """Return a server's message as one that concerns the client whose stream it stands in."""
        return replace(
            self._inbound,
            body=data,
            headers=(),
            parsed=None,
            complete=True,
            overloaded=False,
            direction="server",
            action=None,
            negotiated=self._version,
            dialogue=None,
        )


def _taken(line: ServerLine) -> Message | Refusal:
    refused = RefusedError(RefusalReason.MALFORMED, "A request under this id waits for its answer")
    return Refusal(
        reason=refused.reason,
        code=refused.code,
        status=refused.status,
        text=refused.text,
        request_id=line.request_id,
        method=line.method,
        direction="server",
    )
