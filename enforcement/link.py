"""What ties a call to its session in the stateful revisions; in the stateless one there is nothing to tie.

``initialize`` begins a session: the server names it in the head of its answer, and the client learns another name, of
the gateway's own. Which revision holds in it is in the body of that answer.

Source: Model Context Protocol, revision 2025-11-25, Lifecycle, "Version Negotiation", and Transports, "Session
Management".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from enforcement.conversation import Conversation, OpenCall, Owner
from enforcement.conversations import is_session_name
from enforcement.downlink import Downlink
from enforcement.json_slices import object_members
from enforcement.mcp import INITIALIZE
from enforcement.messages import Kind
from enforcement.revisions import STATEFUL
from enforcement.verdicts import Inbound, Permitted
from enforcement.way import Way, session_headers
from ledger.errors import MalformedError

__all__ = ["Link", "SessionLostError"]

_NOT_FOUND: Final = 404
_NAME: Final = "Mcp-Session-Id"


class Link:
    """Ties one call to its session. Owned by the call.

    Attributes:
        conversation: The session; None in the stateless era.
        downlink: Judges what the server sends beside the answer.
    """

    def __init__(self, way: Way, permitted: Permitted, inbound: Inbound, conversation: Conversation | None) -> None:
        """Take the call.

        Args:
            way: To records, servers and sessions.
            permitted: The call.
            inbound: It as received.
            conversation: Its session, or what stands for it where it has no name; None in the stateless era.
        """
        self._way = way
        self._permitted = permitted
        self._lines = inbound.headers
        self.conversation = conversation
        self.downlink = Downlink(way, permitted, inbound, conversation)
        message = permitted.message
        self._begins = conversation is not None and message.kind is Kind.REQUEST and message.method == INITIALIZE
        self._began: str | None = None  # the server's name of the session that this call has begun

    @property
    def survives(self) -> bool:
        """Whether the call goes on when its client goes away: then the client may come back for the answer."""
        return self.conversation is not None and self._permitted.message.kind is Kind.REQUEST and not self._begins

    def may_park(self, call: OpenCall) -> bool:
        """Whether the answer may come on another stream of the session, and the call be found when it does."""
        conversation, request_id = self.conversation, self._permitted.message.request_id
        if conversation is None or conversation.ended or request_id is None or not self.survives:
            return False
        if conversation.calls.get(request_id) is not call:
            return False  # the client has used its id again meanwhile
        return len(conversation.calls) <= self._way.limits.concurrent_calls

    @property
    def initializes(self) -> bool:
        """Whether the answer must agree on a revision."""
        return self._begins

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that go to the server."""
        return session_headers(self.conversation)

    def begin(self, call: OpenCall) -> OpenCall | None:
        """Note that the call is under way; return the one whose id it takes, which nobody finds any more."""
        request_id, before = self._permitted.message.request_id, None
        if self.conversation is not None:
            self.conversation.streams += 1
            if request_id is not None:
                before = self.conversation.calls.get(request_id)
                self.conversation.calls[request_id] = call
        return before

    async def finish(self, call: OpenCall, *, parked: bool) -> None:
        """Note that nothing comes on the call's own stream any more.

        Args:
            call: The call.
            parked: Its answer may still come on another stream.
        """
        await self.downlink.close()
        if self.conversation is not None:
            self.conversation.streams -= 1
            if not parked:
                self.forget(call)

    def forget(self, call: OpenCall) -> None:
        """Note that the call is answered, or never will be."""
        request_id, conversation = self._permitted.message.request_id, self.conversation
        if conversation is not None and request_id is not None and conversation.calls.get(request_id) is call:
            del conversation.calls[request_id]

    async def opened(self, status: int, headers: Mapping[str, str], call: OpenCall) -> tuple[tuple[str, str], ...]:
        """Read the head of the server's answer, and return the headers that the client gets with it.

        Raises:
            MalformedError: The server names a session as none may be named.
            OverloadedError: There are too many sessions.
            SessionLostError: The server does not know the session any more.
        """
        conversation = self.conversation
        if conversation is None:
            return ()
        if status == _NOT_FOUND and conversation.upstream is not None:
            self.forget(call)
            await self._way.end(conversation, "session_ended")
            raise SessionLostError
        upstream = headers.get(_NAME)
        if upstream is not None and self._begins and conversation.upstream is None:
            conversation = self._begin_session(conversation.owner, upstream, call)
        return () if upstream is None or conversation.name is None else ((_NAME, conversation.name),)

    def _begin_session(self, owner: Owner, upstream: str, call: OpenCall) -> Conversation:
        if not is_session_name(upstream):
            raise MalformedError("the server names a session as none may be named")
        server, version = self._permitted.server, self._permitted.message.protocol_version
        try:
            begun = self._way.conversations.begin(owner, server.name, upstream)
        except BaseException:
            self._way.dismiss(server, upstream, version, self._lines)
            raise
        begun.revision = version
        self.forget(call)
        if self.conversation is not None:
            self.conversation.streams -= 1
        self.conversation = self.downlink.conversation = begun
        self._began = upstream
        self.begin(call)
        return begun

    def agree(self, result: bytes) -> bool:
        """Take the revision that the answer to ``initialize`` names; tell whether it may pass."""
        try:
            agreed = json.loads(object_members(result.decode()).get("protocolVersion", "null"))
        except (MalformedError, ValueError):
            agreed = None
        if agreed not in STATEFUL or agreed not in self._way.revisions(self._permitted.server):
            return False
        if self.conversation is not None and self.conversation.name is not None:
            self.conversation.revision = agreed
        self.downlink.speaks(agreed)
        return True

    async def undo(self) -> None:
        """End the session that the call has begun, for nobody learns of it."""
        began, conversation = self._began, self.conversation
        if began is None or conversation is None:
            return
        self._began = None
        await self._way.end(conversation, "session_ended")
        version = self._permitted.message.protocol_version
        self._way.dismiss(self._permitted.server, began, version, self._lines)

    @property
    def event_ids_pass(self) -> bool:
        """Whether a client may go on with a stream under the id of an event."""
        return self.conversation is not None

    def sent(self, event_id: str | None) -> None:
        """Note that an event went to the client."""
        if event_id is not None and self.conversation is not None:
            self.conversation.sent(event_id)


class SessionLostError(Exception):
    """The server does not know the session any more."""
