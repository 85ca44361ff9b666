"""One call in several rounds: a server asks, the client answers, and it is still the same call.

What is elsewhere: how questions and rounds read (`enforcement.input_requests`), what a round is known by
(`enforcement.round_tokens`).

A further round is judged anew, with everything that a first one is judged by; its decision names the first one of its
call (``continues``). What the server asks is judged as what a server sends: one decision each, under the question's
method, with ``params`` as arguments.

INVARIANT: no round goes on that is not of a call which this tenant's gateways let through, by the same principal, to
the same server and tool, with the same arguments; and of its answers only those to what was asked and let through.

INVARIANT: a token is used once: what used it up is durable with the decision that lets the round go on, and of several
gateways under one service it is good at the one that has claimed it (`enforcement.round_claims`).

INVARIANT: if one question of an answer is refused, the client gets none of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import structlog

from enforcement.identity import Identity
from enforcement.input_requests import InputRequired, Question, read_input_required, with_round, with_state
from enforcement.mcp import NAMED_METHODS, read_json_message
from enforcement.messages import Message
from enforcement.offload import off_loop
from enforcement.refusals import ErrorCode, error_reply
from enforcement.round_claims import RoundClaims
from enforcement.round_tokens import MAX_ROUND_MS, Token, TokenScope, make_token, open_token, round_key
from enforcement.state import Change, StateDatabase
from enforcement.verdicts import INPUT_REQUIRED, Completion, Denied, Inbound, Permitted, Verdict
from ledger.clock import Clock
from ledger.errors import LedgerError, MalformedError

__all__ = ["MAX_USED", "OpenedRound", "RoundAnswer", "RoundReview", "Rounds"]

MAX_USED: Final = 100_000
"""Used tokens that are remembered; beyond, further rounds are refused until the oldest have expired."""

_LOG: Final = structlog.get_logger(__name__)
_PASSED_ON: Final = Completion(status="completed", reason=INPUT_REQUIRED)
_NOT_PASSED_ON: Final = Completion(status="not_forwarded", reason="input_denied")


@dataclass(frozen=True, slots=True)
class OpenedRound:
    """A further round of a call.

    Attributes:
        token: What it was known by.
        body: The call as the server is to get it.
    """

    token: Token
    body: bytes


@dataclass(frozen=True, slots=True)
class _UseToken:
    code: str
    expires_ms: int
    now_ms: int

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM rounds WHERE expires_ms <= ?", (self.now_ms,))
        connection.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", (self.code, self.expires_ms))


class Rounds:
    """Knows which rounds are part of which call. Owned by the event loop."""

    def __init__(
        self, pseudonym_key: bytes, state: StateDatabase, clock: Clock, *, claims: RoundClaims | None = None
    ) -> None:
        """Take what was used up before.

        Args:
            pseudonym_key: The tenant's.
            state: The state file.
            clock: Says when a token has expired.
            claims: Keeps other gateways from using the same tokens; None if there is no service that could.

        Raises:
            StorageError: The state file failed.
        """
        self._key = round_key(pseudonym_key)
        self._clock = clock
        self._claims = claims
        rows = state.read("SELECT code, expires_ms FROM rounds WHERE expires_ms > ?", (clock.now_ms(),))
        self._used: dict[str, int] = dict(rows)

    def open(self, body: bytes, message: Message, identity: Identity, server: str) -> OpenedRound | None:
        """Return a further round, and take its token for used; None if it is of no call that is known.

        Args:
            body: The message as received.
            message: The same, read.
            identity: Who sent it.
            server: Where it is to go.
        """
        state = None if message.round is None else message.round.state
        if state is None:
            return None
        now_ms = self._clock.now_ms()
        token = open_token(self._key, _scope(message, identity, server), state, now_ms=now_ms)
        if token is None or token.code in self._used or not self._has_room(now_ms):
            return None
        self._used[token.code] = token.expires_ms
        return OpenedRound(token, with_round(body, token.state, token.asked))

    async def claim(self, opened: OpenedRound) -> bool | None:
        """Say whether no other gateway has used a round's token, nor ever will; None if nobody can say.

        Raises:
            StorageError: The state file failed.
        """
        return True if self._claims is None else await self._claims.claim(opened.token)

    def settle(self, opened: OpenedRound, *, permitted: bool) -> list[Change]:
        """Return what becomes durable with the decision about a round; one that is refused may be tried again."""
        token = opened.token
        if not permitted:
            self._used.pop(token.code, None)
            return []
        return [_UseToken(token.code, token.expires_ms, self._clock.now_ms())]

    def token(self, permitted: Permitted, identity: Identity, answer: InputRequired) -> str:
        """Return what the client brings back with its answers."""
        return make_token(
            self._key,
            _scope(permitted.message, identity, permitted.server.name),
            root=permitted.continues or permitted.decision_id,
            asked=tuple(question.key for question in answer.questions),
            state=answer.state,
            expires_ms=self._clock.now_ms() + MAX_ROUND_MS,
        )

    def _has_room(self, now_ms: int) -> bool:
        if len(self._used) >= MAX_USED:
            self._used = {code: expires_ms for code, expires_ms in self._used.items() if expires_ms > now_ms}
        return len(self._used) < MAX_USED


def _scope(message: Message, identity: Identity, server: str) -> TokenScope:
    return TokenScope(
        agent=identity.agent,
        user=identity.user,
        server=server,
        method=message.method,
        name=message.name,
        arguments=message.arguments,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAnswer:
    """What becomes of an answer that asks.

    Attributes:
        body: What the client gets: the answer, or why it gets none of it; None if it could not be read.
        reason: As in the call's outcome.
        failed: The client gets none of it.
    """

    body: bytes | None
    reason: str
    failed: bool = False


class RoundReview:
    """Has the questions of an answer judged. Owned by the event loop."""

    def __init__(
        self,
        rounds: Rounds,
        handle: Callable[[Inbound], Awaitable[Verdict]],
        complete: Callable[[Permitted, Completion], Awaitable[None]],
    ) -> None:
        """Take the parts.

        Args:
            rounds: Makes the token that the client brings back.
            handle: Judges a message.
            complete: Records what became of a permitted one.
        """
        self._rounds = rounds
        self._handle = handle
        self._complete = complete

    async def review(self, permitted: Permitted, body: bytes) -> RoundAnswer:
        """Return what a client gets of an answer that asks.

        Not to be cancelled: each question that is let through has an outcome when this returns, unless that cannot be
        recorded.
        """
        inbound = permitted.inbound
        if inbound is None or inbound.identity is None or permitted.message.method not in NAMED_METHODS:
            return RoundAnswer(body=None, reason="malformed_answer", failed=True)
        try:
            answer = await off_loop(len(body), read_input_required, body)
        except MalformedError:
            return RoundAnswer(body=None, reason="malformed_answer", failed=True)
        verdicts = [await self._handle(_asked(permitted, inbound, question)) for question in answer.questions]
        refused = next((verdict for verdict in verdicts if isinstance(verdict, Denied)), None)
        recorded = await self._close(verdicts, passed=refused is None)
        if refused is not None:
            return RoundAnswer(body=_refusal(permitted, refused), reason="input_denied", failed=True)
        if not recorded:
            return RoundAnswer(body=None, reason="ledger_unavailable", failed=True)
        token = self._rounds.token(permitted, inbound.identity, answer)
        return RoundAnswer(body=with_state(answer, token), reason=INPUT_REQUIRED)

    async def _close(self, verdicts: list[Verdict], *, passed: bool) -> bool:
        """Record what became of the questions that were let through; return whether all of that is durable."""
        durable = True
        for verdict in verdicts:
            if isinstance(verdict, Permitted):
                try:
                    await self._complete(verdict, _PASSED_ON if passed else _NOT_PASSED_ON)
                except LedgerError as error:
                    _LOG.error("outcome_not_durable", decision_id=verdict.decision_id, error=type(error).__name__)
                    durable = False
        return durable


def _asked(permitted: Permitted, inbound: Inbound, question: Question) -> Inbound:
    """Return a question as a message that the server sent."""
    version = permitted.message.protocol_version
    parsed = read_json_message(question.message, direction="server", revisions=(version,), negotiated=version)
    return replace(
        inbound,
        body=question.message,
        headers=(),
        parsed=parsed,
        continues=permitted.continues or permitted.decision_id,
    )


def _refusal(permitted: Permitted, refused: Denied) -> bytes:
    """Return the answer to a call whose server asked what it may not ask."""
    told = msgspec.json.decode(refused.reply.body, type=dict[str, Any])["error"].get("data", {})
    text = "The server asked something that it may not ask"
    data = {**told, "continues": permitted.continues or permitted.decision_id}
    return error_reply(
        permitted.message.request_id, status=refused.reply.status, code=ErrorCode.DENIED, text=text, data=data
    ).body
