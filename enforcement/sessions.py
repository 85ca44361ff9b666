"""Sessions under the gateway's own key, and the blocks that a kill leaves behind.

A session belongs to (credential, agent, user). The first call begins it; silence or a kill ends it. What a client
calls a session is not read: it could name a new one at will.

INVARIANT: a kill blocks the principal, that is agent and user, under whatever credential, until it is released. The
block holds in memory from the moment of the decision, and is durable in the transaction that stores the decision's
record, before the client is answered; if that one fails, in the next that succeeds.

When a session ends, its end becomes a record that says how many calls it had (`SessionEnd`): after a silence, by
`expire` or with the record of the call that begins the next session; when it is killed, with the kill. Calls that are
refused while a principal is blocked still belong to the session that was killed: the end that follows its release
counts them too, so that of several ends the last counts all.

Everything here runs on the event loop; changes are handed to the spool as values and applied in its transactions.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Final

from enforcement.facts import Pseudonyms
from enforcement.identity import Identity
from enforcement.state import Change, StateDatabase
from ledger.bodies import SessionEnd
from ledger.commitments import pseudonym
from ledger.errors import NotFoundError, StorageError
from policies.model import SessionState

__all__ = ["Block", "Sessions"]

_KEPT_KEYS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    key: str
    principal: str
    session: str
    started_ms: int
    last_ms: int
    calls: int = 0
    denied: int = 0
    agent: str | None = None
    user: str | None = None


_COLUMNS: Final = ("key", "principal", "session", "started_ms", "last_ms", "calls", "denied", "agent", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A principal that may not call until it is released.

    Attributes:
        principal: Keyed name of agent and user; empty for a block that another gateway decided.
        agent: The agent.
        user: The user's pseudonym, or None.
        decision_id: The decision that ended the session.
        since_ms: When, POSIX milliseconds.
    """

    principal: str
    agent: str
    user: str | None
    decision_id: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class _SaveSession:
    row: _Session

    def apply(self, connection: sqlite3.Connection) -> None:
        row = self.row
        connection.execute(
            f"INSERT OR REPLACE INTO sessions ({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # names of ours
            tuple(getattr(row, name) for name in _COLUMNS),
        )


@dataclass(frozen=True, slots=True)
class _ForgetSession:
    row: _Session

    def apply(self, connection: sqlite3.Connection) -> None:
        # Not one that the same caller has begun meanwhile.
        connection.execute("DELETE FROM sessions WHERE key = ? AND session = ?", (self.row.key, self.row.session))


@dataclass(frozen=True, slots=True)
class _AddBlock:
    block: Block

    def apply(self, connection: sqlite3.Connection) -> None:
        block = self.block
        connection.execute(
            "INSERT OR IGNORE INTO blocks VALUES (?, ?, ?, ?, ?)",
            (block.principal, block.agent, block.user, block.decision_id, block.since_ms),
        )


@dataclass(frozen=True, slots=True)
class _RemoveBlock:
    principal: str

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM blocks WHERE principal = ?", (self.principal,))
        connection.execute("DELETE FROM sessions WHERE principal = ?", (self.principal,))


@dataclass(frozen=True, slots=True)
class _ReleaseKill:
    decision_id: str
    now_ms: int

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR IGNORE INTO released_kills VALUES (?, ?)", (self.decision_id, self.now_ms))


class Sessions:
    """All sessions and blocks of a gateway; owned by the event loop."""

    def __init__(
        self,
        state: StateDatabase,
        pseudonyms: Pseudonyms,
        *,
        idle_ms: int,
        new_session: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        """Read what was known before a restart.

        Args:
            state: The state file, on a connection of its own: it is read here and never written.
            pseudonyms: Make the keys under which principals are kept: no name of a person stands in the file.
            idle_ms: Longest silence within a session.
            new_session: Makes a session's name.

        Raises:
            StorageError: The file failed.
        """
        self._state = state
        self._pseudonyms = pseudonyms
        self._idle_ms = idle_ms
        self._new_session = new_session
        # The same few callers are named several times in each call.
        self._keyed = lru_cache(maxsize=_KEPT_KEYS)(self._make_key)
        rows = state.read(f"SELECT {', '.join(_COLUMNS)} FROM sessions")  # noqa: S608  # names of ours
        self._sessions = {row[0]: _Session(**dict(zip(_COLUMNS, row, strict=True))) for row in rows}
        # Sessions that are over and whose end is not recorded yet, by caller.
        self._over: dict[str, _Session] = {}
        # Principal → whether the block stands in the file; one that does not yet must not be looked up there.
        self._blocked = {block.principal: True for block in self.blocks()}

    def touch(self, identity: Identity, now_ms: int) -> SessionState:
        """Count a call, beginning a session if there is none, and return the state before it."""
        key, principal = self._key(identity), self._principal(identity.agent, identity.user)
        known = self._sessions.get(key)
        ended = known is None or now_ms - known.last_ms > self._idle_ms
        if known is None or (ended and principal not in self._blocked):
            if known is not None:
                self._over.setdefault(key, known)
            known = _Session(
                key=key, principal=principal, session=self._new_session(), started_ms=now_ms, last_ms=now_ms
            )
        self._sessions[key] = replace(
            known,
            calls=known.calls + 1,
            last_ms=max(now_ms, known.last_ms),
            agent=identity.agent,
            user=self._pseudonyms.user(identity.user),
        )
        return SessionState(session=known.session, calls=known.calls, denied=known.denied, started_ms=known.started_ms)

    def settle(self, identity: Identity, *, denied: bool) -> Change:
        """Count how a call ended, and return what makes the session's state durable."""
        known = self._sessions[self._key(identity)]
        known = self._sessions[known.key] = replace(known, denied=known.denied + denied)
        return _SaveSession(known)

    def ends(self, identity: Identity, *, killed: bool) -> list[SessionEnd]:
        """Return the ends that go into the batch of a caller's record: of his last session, and of one that is killed.

        They count as recorded once `confirm_ends` was called.
        """
        key = self._key(identity)
        over = [] if (last := self._over.get(key)) is None else self._end(last)
        return over + (self._end(self._sessions[key], killed=True) if killed else [])

    def confirm_ends(self, identity: Identity) -> None:
        """Note that a caller's ends are recorded."""
        self._over.pop(self._key(identity), None)

    def _end(self, row: _Session, *, killed: bool = False) -> list[SessionEnd]:
        if row.agent is None:  # a gateway of version 0.1 left it
            return []
        return [
            SessionEnd(
                session=self._pseudonyms.session(row.session),
                calls=row.calls,
                denied=row.denied,
                # A release puts the last call of a killed session at the beginning of time.
                reason="killed" if killed or row.last_ms == 0 else "idle",
                agent=row.agent,
                started_ms=row.started_ms,
                user=row.user,
            )
        ]

    def expire(
        self, now_ms: int, *, at_most: int | None = None
    ) -> tuple[list[SessionEnd], list[Change], Callable[[], None]]:
        """Take out the sessions that were silent for too long; those of blocked principals stay.

        Args:
            now_ms: The time.
            at_most: How many; all of them if None.

        Returns:
            Their ends, what forgets them once applied, and what to call if that failed.
        """
        silent = list(islice(self._silent(now_ms), at_most))
        for row in silent:
            # From here on a call of the same caller begins another session, whatever becomes of this end.
            del self._sessions[row.key]

        def keep() -> None:
            for row in silent:
                if self._sessions.setdefault(row.key, row) is not row:
                    self._over.setdefault(row.key, row)

        ends = [end for row in silent for end in self._end(row)]
        return ends, [_ForgetSession(row) for row in silent], keep

    def _silent(self, now_ms: int) -> Iterator[_Session]:
        for row in self._sessions.values():
            if now_ms - row.last_ms > self._idle_ms and row.principal not in self._blocked:
                yield row

    def names(self) -> frozenset[str]:
        """Return the names of the sessions that a call may still belong to."""
        return frozenset(row.session for row in self._sessions.values())

    def blocked(self, identity: Identity) -> bool:
        """Tell whether a principal may not call.

        Raises:
            StorageError: A block is known, and whether it was released could not be read.
        """
        principal = self._principal(identity.agent, identity.user)
        durable = self._blocked.get(principal)
        if durable and not self._is_in_file(principal):
            # Released, perhaps by another process: the old session counts as silent, so that the next call begins one.
            del self._blocked[principal]
            for row in [row for row in self._sessions.values() if row.principal == principal]:
                self._sessions[row.key] = replace(row, last_ms=0)
        return principal in self._blocked

    def block(self, identity: Identity, *, decision_id: str, now_ms: int) -> Change:
        """Block a principal from this moment on, and return what makes the block durable.

        One that stands already stays as it is: were this one's record to fail, a release would end the first all the
        same.
        """
        principal = self._principal(identity.agent, identity.user)
        self._blocked[principal] = self._stands(principal)
        return _AddBlock(
            Block(
                principal=principal,
                agent=identity.agent,
                user=self._pseudonyms.user(identity.user),
                decision_id=decision_id,
                since_ms=now_ms,
            )
        )

    def confirm_block(self, identity: Identity) -> None:
        """Note that the block is durable; without this it holds until the gateway is restarted, come what may."""
        self._blocked[self._principal(identity.agent, identity.user)] = True

    def block_is_durable(self, identity: Identity) -> bool:
        """Whether a block is known to stand in the file."""
        return self._blocked.get(self._principal(identity.agent, identity.user), False)

    def _stands(self, principal: str) -> bool:
        """Whether a block stands in the file, as far as that can be read; if it cannot, it is made anew."""
        try:
            return bool(self._blocked.get(principal)) and self._is_in_file(principal)
        except StorageError:
            return False

    def _is_in_file(self, principal: str) -> bool:
        return bool(self._state.read("SELECT 1 FROM blocks WHERE principal = ?", (principal,)))

    def release(self, agent: str, user: str | None) -> tuple[Block, Change]:
        """Return a block and what ends it once applied.

        Raises:
            NotFoundError: The principal is not blocked.
            StorageError: The file failed.
        """
        principal = self._principal(agent, user)
        found = [block for block in self.blocks() if block.principal == principal]
        if not found:
            raise NotFoundError(f"the agent {agent} is not blocked for this user")
        return found[0], _RemoveBlock(principal)

    def release_kill(self, decision_id: str, now_ms: int) -> Change:
        """Return what notes that a kill was released here: it holds here no more, whatever the service still says."""
        return _ReleaseKill(decision_id, now_ms)

    def is_released(self, decision_id: str) -> bool:
        """Tell whether a kill was released here, perhaps by another process.

        Raises:
            StorageError: The file failed.
        """
        return bool(self._state.read("SELECT 1 FROM released_kills WHERE decision_id = ?", (decision_id,)))

    def lift(self, decision_ids: Collection[str]) -> list[Change]:
        """Return what ends the blocks of kills that were released elsewhere, once applied.

        Raises:
            StorageError: The file failed.
        """
        return [_RemoveBlock(block.principal) for block in self.blocks() if block.decision_id in decision_ids]

    def blocks(self) -> list[Block]:
        """Return the durable blocks, oldest first.

        Raises:
            StorageError: The file failed.
        """
        rows = self._state.read("SELECT principal, agent, user, decision_id, since_ms FROM blocks ORDER BY since_ms")
        names = ("principal", "agent", "user", "decision_id", "since_ms")
        return [Block(**dict(zip(names, row, strict=True))) for row in rows]

    def _key(self, identity: Identity) -> str:
        return self._keyed("gateway-session", identity.credential, identity.agent, identity.user)

    def _principal(self, agent: str, user: str | None) -> str:
        return self._keyed("gateway-principal", agent, user)

    def _make_key(self, kind: str, *parts: str | None) -> str:
        return pseudonym(self._pseudonyms.key, kind, json.dumps(parts))
