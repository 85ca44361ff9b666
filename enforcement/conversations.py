"""All sessions of stateful revisions at one gateway.

They are kept in memory, and end with the gateway: a client that uses one afterwards is told that it is not there, as
the specification has it, and begins another. Behind a load balancer, the requests of a session must go to one gateway.

INVARIANT: a session that is not there and one that is another principal's, or another server's, are told apart by
nobody: both are "no such session".

Source: Model Context Protocol, revision 2025-11-25, Transports, "Session Management".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Final

from enforcement.config_protocol import ProtocolSettings
from enforcement.conversation import Conversation, Owner
from ledger.clock import Clock
from ledger.errors import OverloadedError

__all__ = ["SESSION_HEADER", "Conversations", "is_session_name"]

SESSION_HEADER: Final = "mcp-session-id"
_NAME_BYTES: Final = 24
_UPSTREAM_NAME: Final = re.compile(r"[\x21-\x7e]{1,1024}")


def is_session_name(value: str) -> bool:
    """Whether a server may call a session so."""
    return _UPSTREAM_NAME.fullmatch(value) is not None


class Conversations:
    """Knows which sessions there are. Owned by the event loop."""

    def __init__(
        self,
        settings: ProtocolSettings,
        clock: Clock,
        *,
        idle_ms: int,
        new_name: Callable[[], str] = lambda: secrets.token_urlsafe(_NAME_BYTES),
    ) -> None:
        """Begin without any.

        Args:
            settings: How many there may be.
            clock: Tells when one was used last.
            idle_ms: One that was silent for longer is over.
            new_name: Makes a session's name, which nobody can guess.
        """
        self._settings = settings
        self._clock = clock
        self._idle_ms = idle_ms
        self._new_name = new_name
        self._named: dict[str, Conversation] = {}
        self._nameless: dict[tuple[Owner, str], Conversation] = {}

    def __iter__(self) -> Iterator[Conversation]:
        """Go through all of them."""
        yield from [*self._named.values(), *self._nameless.values()]

    def find(self, name: str, owner: Owner, server: str) -> Conversation | None:
        """Return a principal's session at a server, and note that it is used."""
        known = self._named.get(name)
        if known is None or known.owner != owner or known.server != server or self._is_idle(known):
            return None
        known.used_ms = self._clock.now_ms()
        return known

    def nameless(self, owner: Owner, server: str) -> Conversation:
        """Return what stands for a session where there is no name."""
        known = self._nameless.get((owner, server))
        if known is None:
            known = self._nameless[owner, server] = self._new(None, owner, server, upstream=None)
        known.used_ms = self._clock.now_ms()
        return known

    def passing(self, owner: Owner, server: str) -> Conversation:
        """Return what stands for a session for one message; it is not kept."""
        return self._nameless.get((owner, server)) or self._new(None, owner, server, upstream=None)

    def begin(self, owner: Owner, server: str, upstream: str) -> Conversation:
        """Begin a session that a server has begun, under a name of our own.

        Raises:
            OverloadedError: There are too many.
        """
        of_owner = sum(1 for known in self._named.values() if known.owner == owner)
        if len(self._named) >= self._settings.sessions or of_owner >= self._settings.sessions_per_principal:
            raise OverloadedError("too many sessions")
        name = self._new_name()
        made = self._named[name] = self._new(name, owner, server, upstream=upstream)
        return made

    def forget(self, conversation: Conversation) -> None:
        """End a session: nobody finds it any more."""
        conversation.ended = True
        if conversation.name is not None:
            self._named.pop(conversation.name, None)
        else:
            self._nameless.pop((conversation.owner, conversation.server), None)

    def idle(self) -> list[Conversation]:
        """Return those that were silent for too long; they are still there."""
        return [known for known in self if self._is_idle(known)]

    def _is_idle(self, known: Conversation) -> bool:
        return not known.streams and self._clock.now_ms() - known.used_ms > self._idle_ms

    def _new(self, name: str | None, owner: Owner, server: str, *, upstream: str | None) -> Conversation:
        return Conversation(
            name=name,
            owner=owner,
            server=server,
            upstream=upstream,
            revision=None,
            used_ms=self._clock.now_ms(),
        )
