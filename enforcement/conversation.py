"""One session of a stateful revision, as a gateway keeps it: whose it is, and what is under way in it.

Pure. Which sessions there are is `enforcement.conversations`' part.

INVARIANT: the server's name of a session never reaches a client, and the client's never the server. A session belongs
to one principal, at one server.

INVARIANT: a server's request is answered once, by the client of the session in which it was asked, and only after a
policy let it pass.

A session without a name (a server need not give one) is shared by all clients of one principal at one server.

Source: Model Context Protocol, revision 2025-11-25, Transports, "Session Management" and "Resumability and Redelivery".
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from enforcement.refusals import RequestId
from enforcement.verdicts import Permitted, Withdrawable

__all__ = ["Asked", "Conversation", "OpenCall", "Owner"]

Owner: TypeAlias = tuple[str, str | None]
"""A principal: agent and user. A token is renewed within a session; who it stands for is not."""

_MAX_EVENTS: Final = 1024
_MAX_REMEMBERED: Final = 64


class OpenCall(Protocol):
    """A client's call that the server has and has not answered yet."""

    def withdraw(self) -> None:
        """Note that the client has withdrawn it; the server may answer all the same, or never."""
        ...

    async def answered_elsewhere(self, data: bytes) -> bytes:
        """Take its answer from another stream than the one it was asked on; record it, and return what may pass."""
        ...

    async def abandon(self, reason: str) -> None:
        """Record it as cancelled if nothing carries it any more but this session."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A server's request that waits for the client's answer.

    Attributes:
        permitted: The request as it was decided.
        digest: Of its bytes, to know it again when the server sends it once more.
    """

    permitted: Permitted
    digest: bytes


@dataclass(slots=True, kw_only=True, eq=False)
class Conversation:
    """What is under way between the clients of one principal and one server. Owned by the event loop.

    Attributes:
        name: The gateway's name for it, which the client sends; None for a session without one.
        owner: Whose it is.
        server: At which server.
        upstream: The server's name for it; None for a session without one.
        revision: What was agreed on; None before that, and for a session without name.
        used_ms: When it was used last, POSIX milliseconds.
        streams: Open requests of the client's: a session with one is not idle.
        asked: Requests of the server that wait for an answer.
        calls: Calls of the client that are under way.
        held: Those that wait for people: the server has not had them.
        ended: It is over.
    """

    name: str | None
    owner: Owner
    server: str
    upstream: str | None
    revision: str | None
    used_ms: int
    streams: int = 0
    asked: dict[RequestId, Asked] = field(default_factory=dict)
    calls: dict[RequestId, OpenCall] = field(default_factory=dict)
    held: dict[RequestId, Withdrawable] = field(default_factory=dict)
    ended: bool = False
    _events: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _replied: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _answers: OrderedDict[bytes, bytes | None] = field(default_factory=OrderedDict)

    # --- see `enforcement.verdicts.Dialogue`

    def awaits(self, request_id: RequestId) -> bool:
        """Whether the server waits for the client's answer to this request of its own."""
        return request_id in self.asked

    def take(self, request_id: RequestId) -> Permitted:
        """Return that request, once."""
        asked = self.asked.pop(request_id)
        _remember(self._replied, asked.digest, None, _MAX_REMEMBERED)
        return asked.permitted

    def in_flight(self, request_id: RequestId) -> bool:
        """Whether a call of the client's under this id is under way."""
        return request_id in self.calls or request_id in self.held

    def has_sent(self, event_id: str) -> bool:
        """Whether an event of this id, one of the last so many, was passed on to the client."""
        return event_id in self._events

    # --- events, and what a server sends once more

    def sent(self, event_id: str) -> None:
        """Note that an event was passed on."""
        _remember(self._events, event_id, None, _MAX_EVENTS)

    def was_replied(self, data: bytes) -> bool:
        """Whether these bytes are a request of the server's that was answered already."""
        return _digest(data) in self._replied

    def is_asked(self, request_id: RequestId, data: bytes) -> bool:
        """Whether these bytes are the very request of that id that waits for an answer."""
        asked = self.asked.get(request_id)
        return asked is not None and asked.digest == _digest(data)

    def ask(self, request_id: RequestId, permitted: Permitted, data: bytes) -> None:
        """Note a request of the server's that the client gets to see."""
        self.asked[request_id] = Asked(permitted, _digest(data))

    def answered(self, data: bytes, released: bytes) -> None:
        """Note an answer whose outcome is recorded, and what of it the client may see."""
        _remember(self._answers, _digest(data), None if released == data else released, _MAX_REMEMBERED)

    def recall(self, data: bytes) -> bytes | None:
        """Return what a client may see of an answer that was recorded before; None if it is none."""
        digest = _digest(data)
        if digest not in self._answers:
            return None
        return self._answers[digest] or data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _remember(memory: OrderedDict, key: object, value: object, most: int) -> None:  # type: ignore[type-arg]
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > most:
        memory.popitem(last=False)
