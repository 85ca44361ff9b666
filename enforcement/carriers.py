"""Who carries a permitted message: a call, an answer to the server, a stream, the end of a session.

What is elsewhere: how each does it.
"""

from __future__ import annotations

from typing import Protocol

from enforcement.client_side import ClientSide
from enforcement.conversation import Conversation
from enforcement.exchange import Exchange
from enforcement.link import Link
from enforcement.listening import Listening
from enforcement.messages import Kind
from enforcement.relay import Relay
from enforcement.termination import Termination
from enforcement.transport_requests import LISTEN, TERMINATE
from enforcement.verdicts import Inbound, Permitted
from enforcement.way import Way

__all__ = ["Carrier", "Carriers"]


class Carrier(Protocol):
    """Carries one message. Used once."""

    @property
    def survives(self) -> bool:
        """Whether it goes on when its client goes away."""
        ...

    def client_gone(self) -> None:
        """Note that nothing reaches the client any more, and that it goes on all the same."""
        ...

    async def run(self) -> None:
        """Carry it to its end; what became of it is recorded before anything is released."""
        ...

    async def close(self, reason: str) -> None:
        """Record it as cancelled if `run` was cancelled before it recorded anything, or never began."""
        ...


class Carriers:
    """Makes carriers for one endpoint."""

    def __init__(self, way: Way) -> None:
        """Take the way to records, servers and sessions."""
        self._way = way

    def carrier(
        self, permitted: Permitted, inbound: Inbound, conversation: Conversation | None, client: ClientSide
    ) -> Carrier:
        """Return who carries a message.

        Args:
            permitted: The message.
            inbound: It as received.
            conversation: Its session, or what stands for one; None in the stateless era.
            client: The way back.
        """
        message = permitted.message
        if conversation is not None:
            if message.kind is Kind.RESPONSE:
                return Relay(permitted, inbound, client, way=self._way, conversation=conversation)
            if inbound.action == LISTEN:
                return Listening(permitted, inbound, client, way=self._way, conversation=conversation)
            if inbound.action == TERMINATE:
                return Termination(permitted, inbound, client, way=self._way, conversation=conversation)
        return self._exchange(permitted, inbound, conversation, client)

    def _exchange(
        self, permitted: Permitted, inbound: Inbound, conversation: Conversation | None, client: ClientSide
    ) -> Exchange:
        stateful = permitted.message.era == "stateful"
        if conversation is not None and permitted.message.cancels is not None:
            withdrawn = conversation.calls.get(permitted.message.cancels)
            if withdrawn is not None:  # the server may answer before it has answered this
                withdrawn.withdraw()
            held = conversation.held.get(permitted.message.cancels)
            if held is not None:
                held.withdraw("client_cancelled")
        return Exchange(
            permitted,
            inbound,
            client,
            link=Link(self._way, permitted, inbound, conversation if stateful else None),
            upstream=self._way.upstream,
            limits=self._way.limits,
            complete=self._way.passage.complete,
            review=self._way.passage.review,
        )
