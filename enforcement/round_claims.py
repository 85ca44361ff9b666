"""Whose a round's token is: of the gateway to which it comes back first, by the word of the service.

A token is known by every gateway of a tenant, and each of them remembers for itself what was used with it
(`enforcement.rounds`). That no two of them take the same one is settled where strict caps are given out: a claim is a
cap of one. It is made in the name of this gateway's epoch and of the token, so that asking again takes nothing more. A
gateway that has lost its state file, and with it what was used, is another one.

A round that was refused may be tried again here while this process remembers that it is its own. Where it does not, and
another gateway has asked since, the round is nobody's any more.

INVARIANT 7: without an answer nobody knows whether a token was used elsewhere, and the round does not go on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Final

import structlog

from enforcement.fleet_store import CLAIMED, FleetStore, Part
from enforcement.ports import Unavailable
from enforcement.round_tokens import Token
from enforcement.state import StateDatabase

__all__ = ["RoundClaims"]

_LOG: Final = structlog.get_logger(__name__)
_MAX_REMEMBERED: Final = 10_000
_PURPOSE: Final = b"tallystick/round-claim/v1\n"


class RoundClaims:
    """Claims tokens; owned by the event loop."""

    def __init__(self, store: FleetStore, state: StateDatabase, *, seconds: float) -> None:
        """Take the parts.

        Args:
            store: Gives claims out.
            state: Knows this gateway's epoch.
            seconds: How long a call waits for an answer.
        """
        self._store = store
        self._state = state
        self._seconds = seconds
        # What is this gateway's, oldest first: others that have asked in vain since make no difference to it.
        self._mine: OrderedDict[str, None] = OrderedDict()

    async def claim(self, token: Token) -> bool | None:
        """Say whether a token is this gateway's; None if nobody can say.

        Raises:
            StorageError: The state file failed.
        """
        if token.code in self._mine:
            return True
        (epoch,) = self._state.read("SELECT value FROM meta WHERE name = 'epoch'")[0]
        part = Part(digest=_hex(token.code), subject=CLAIMED, slot=0, first=0, amount="1", forget_ms=token.expires_ms)
        name = _hex(f"{epoch}/{token.code}")
        claim_id = "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._store.reserve(claim_id, [part])
        except TimeoutError:
            answer = Unavailable("timeout")
        if isinstance(answer, Unavailable):
            _LOG.warning("round_not_claimed", reason=answer.reason)
            return None
        if answer[0] != 1:
            return False
        self._mine[token.code] = None
        if len(self._mine) > _MAX_REMEMBERED:
            self._mine.popitem(last=False)
        return True


def _hex(text: str) -> str:
    return hashlib.sha256(_PURPOSE + text.encode()).hexdigest()[:32]
