"""Dashboard logins: sessions and one-time login links, both rows of `web_sessions`.

A session is 32 random bytes in a cookie; the database keeps their SHA-256 under a label, the CSRF secret, and the
digest of the token that was used. The token itself is asked again at every request, so that a session ends with it.

Whoever can write rows and has no key must not become a person by that (`service.persons`): neither by a session or link
of his own that names somebody's token, nor by having his own name another. So that the CSRF secret of a row is its seal
too, under a secret of the log's keys::

    base64url(HMAC-SHA256(HMAC-SHA256(pseudonym key, "tallystick/login-row/v1"), JSON of what the row says))

INVARIANT: a row without its seal logs nobody in.

Both are written ``<log id>.<secret>``: where a process serves several logs, that says whose table rows to look among.

A login link carries 32 random bytes too. Its row is spent by deleting it, which one process of all that share the
database can do once. The labels differ, so that a link's code is no session and a session's id is no code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Engine, delete, insert, select

from ledger.clock import Clock
from ledger.database import insert_if_absent, translated, writing
from ledger.errors import ConfigError
from service import tables
from service.auth import Caller, Role, TokenStore
from service.problems import ForbiddenError, UnauthenticatedError

__all__ = [
    "LINK_SECONDS",
    "LoginLinks",
    "LoginRows",
    "Seeds",
    "SpentStates",
    "WebSession",
    "WebSessions",
    "log_of_secret",
    "may_log_in",
    "session_digest",
]

LINK_SECONDS: Final = 15 * 60
"""Longest life of a login link."""

_SECRET_BYTES: Final = 32
_SESSION_LABEL: Final = b"tallystick/web-session/v1\n"
_STATE_LABEL: Final = b"tallystick/login-state/v1\n"
_LINK_LABEL: Final = b"tallystick/login-link/v1\n"
_SEAL_LABEL: Final = b"tallystick/login-row/v1"
_NO_CSRF: Final = ""
_SECRET: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,62})\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession:
    """A valid login.

    Attributes:
        caller: Whom its token speaks for, now.
        csrf: Secret that every form of the session carries.
        expires_ms: When it ends at the latest, POSIX milliseconds.
    """

    caller: Caller
    csrf: str
    expires_ms: int


def may_log_in(caller: Caller, log_id: str) -> None:
    """Refuse a caller who has no business on the dashboard of a log.

    Raises:
        ForbiddenError: An enforcer or a client: its token writes records and stays on its machine.
        UnauthenticatedError: The token is of another log; here it is as unknown as any other.
    """
    if caller.log_id != log_id:
        raise UnauthenticatedError("the token is unknown, expired or revoked")
    if caller.role in (Role.ENFORCER, Role.CLIENT):
        raise ForbiddenError(f"a token of the role {caller.role} writes records; it opens no dashboard")


def log_of_secret(secret: str) -> str | None:
    """Return the log that a session's id or a link's code names, true or made up; None for what is spelt like none."""
    spelt = _SECRET.fullmatch(secret)
    return None if spelt is None else spelt[1]


def session_digest(session_id: str) -> str:
    """Return what a session is known by in the database."""
    return _digest(_SESSION_LABEL, session_id)


def _digest(label: bytes, secret: str) -> str:
    return hashlib.sha256(label + secret.encode("utf-8", "surrogatepass")).hexdigest()


def _seal(seed: bytes, label: bytes, log_id: str, digest: str, token_sha256: str, expires_ms: int) -> str:
    told = msgspec.json.encode([label.decode(), log_id, digest, token_sha256, expires_ms])
    made = hmac.digest(hmac.digest(seed, _SEAL_LABEL, hashlib.sha256), told, hashlib.sha256)
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


Seeds = Callable[[], Sequence[bytes]]
"""The secrets of a log under which its rows are sealed, as they are now; the first makes seals. None: no such log."""


class LoginRows:
    """The table's rows of one kind, told apart by the label under which their secret is hashed."""

    def __init__(self, engine: Engine, clock: Clock, log_id: str, label: bytes, seeds: Seeds = tuple) -> None:
        self._engine = engine
        self._clock = clock
        self._log_id = log_id
        self._label = label
        self._seeds = seeds

    def _add(self, token_sha256: str, seconds: int, *, csrf: str | None = None) -> str:
        """Store a new secret and return it, sealed unless it has another word there; rows that have expired go."""
        secret = f"{self._log_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        now = self._clock.now_ms()
        columns = tables.web_sessions.c
        digest, expires_ms = _digest(self._label, secret), now + seconds * 1000
        row = {
            "log_id": self._log_id,
            "session_sha256": digest,
            "token_sha256": token_sha256,
            "csrf": self._sealed(digest, token_sha256, expires_ms) if csrf is None else csrf,
            "created_ms": now,
            "expires_ms": expires_ms,
        }
        expired = delete(tables.web_sessions).where(columns.log_id == self._log_id, columns.expires_ms <= now)
        with translated("store a login"), writing(self._engine) as connection:
            connection.execute(expired)
            connection.execute(insert(tables.web_sessions), row)
        return secret

    def _sealed(self, digest: str, token_sha256: str, expires_ms: int) -> str:
        """Return the seal of a row of this kind."""
        return _seal(self._seeds()[0], self._label, self._log_id, digest, token_sha256, expires_ms)

    def _is_ours(self, label: bytes, digest: str, row: tuple[str, str, int]) -> bool:
        """Whether one of the log's keys sealed a row of a kind."""
        token_sha256, seal, expires_ms = row
        return any(
            hmac.compare_digest(
                seal.encode(), _seal(seed, label, self._log_id, digest, token_sha256, expires_ms).encode()
            )
            for seed in self._seeds()
        )

    def _session_of(self, digest: str) -> tuple[str, str, int] | None:
        """Return a live session by its digest alone, if it is ours."""
        row = self._find_row(digest)
        return row if row is not None and self._is_ours(_SESSION_LABEL, digest, row) else None

    def _find_sealed(self, secret: str) -> tuple[str, str, int] | None:
        """See `_find`; None also for a row that is not ours."""
        digest = _digest(self._label, secret)
        row = self._find_row(digest)
        return row if row is not None and self._is_ours(self._label, digest, row) else None

    def _find(self, secret: str) -> tuple[str, str, int] | None:
        """Return token digest, CSRF secret and expiry of a live row, or None."""
        return self._find_row(_digest(self._label, secret))

    def _find_row(self, digest: str) -> tuple[str, str, int] | None:
        """See `_find`; for a row that is known by its digest alone."""
        columns = tables.web_sessions.c
        # Looked up by the digest of 256 random bits: timing tells an attacker nothing that he could use.
        query = select(columns.token_sha256, columns.csrf, columns.expires_ms).where(
            columns.log_id == self._log_id,
            columns.session_sha256 == digest,
            columns.expires_ms > self._clock.now_ms(),
        )
        with translated("read a login"), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row.token_sha256, row.csrf, int(row.expires_ms))

    def _remove(self, secret: str) -> bool:
        """Delete a row; returns whether this call did."""
        columns = tables.web_sessions.c
        statement = delete(tables.web_sessions).where(
            columns.log_id == self._log_id, columns.session_sha256 == _digest(self._label, secret)
        )
        with translated("end a login"), writing(self._engine) as connection:
            return connection.execute(statement).rowcount == 1


class WebSessions(LoginRows):
    """Logins to the dashboard of one log; safe for any thread."""

    def __init__(
        self, engine: Engine, clock: Clock, log_id: str, tokens: TokenStore, seeds: Seeds, *, lifetime_seconds: int
    ) -> None:
        """Keep sessions of ``log_id`` in a database whose schema is up to date."""
        super().__init__(engine, clock, log_id, _SESSION_LABEL, seeds)
        self._tokens = tokens
        self._lifetime_seconds = lifetime_seconds

    def begin(self, caller: Caller) -> str:
        """Start a session and return its id, which is shown once, to the browser.

        Raises:
            ForbiddenError: An enforcer's token.
            UnauthenticatedError: A token of another log.
            StorageError: The database failed.
        """
        may_log_in(caller, self._log_id)
        return self._add(caller.token_sha256, self._lifetime_seconds)

    def find(self, session_id: str) -> WebSession:
        """Return a live session.

        Raises:
            UnauthenticatedError: There is none, it has expired, or its token has ended.
            StorageError: The database failed.
        """
        row = self._find_sealed(session_id)
        if row is None:
            raise UnauthenticatedError("the login has ended")
        token_sha256, csrf, expires_ms = row
        # INVARIANT: a session is worth what its token is worth at this moment; a revoked token ends it at once.
        caller = self._tokens.caller(self._log_id, token_sha256)
        return WebSession(caller=caller, csrf=csrf, expires_ms=expires_ms)

    def end(self, session_id: str) -> bool:
        """End a session; returns whether there was one.

        Raises:
            StorageError: The database failed.
        """
        return self._remove(session_id)


class SpentStates(LoginRows):
    """Answers of a provider that were taken, so that none is taken twice; safe for any thread."""

    def __init__(self, engine: Engine, clock: Clock, log_id: str) -> None:
        """Keep them in a database whose schema is up to date."""
        super().__init__(engine, clock, log_id, _STATE_LABEL)

    def spend(self, state: str, *, seconds: int) -> None:
        """Note that the answer to a login was taken.

        Args:
            state: The login's state, which we made.
            seconds: For how long it could be answered.

        Raises:
            UnauthenticatedError: It was taken before.
            StorageError: The database failed.
        """
        now = self._clock.now_ms()
        row = {
            "log_id": self._log_id,
            "session_sha256": _digest(_STATE_LABEL, state),
            "token_sha256": "",
            "csrf": _NO_CSRF,
            "created_ms": now,
            "expires_ms": now + seconds * 1000,
        }
        # INVARIANT: single use. Of several answers at once, here or in another process, one inserts the row.
        with translated("store a login"), writing(self._engine) as connection:
            if not insert_if_absent(connection, tables.web_sessions, row):
                raise UnauthenticatedError("this login was answered before: begin again")


class LoginLinks(LoginRows):
    """Single-use codes that log a browser in without a token being typed; safe for any thread."""

    def __init__(self, engine: Engine, clock: Clock, log_id: str, tokens: TokenStore, seeds: Seeds) -> None:
        """Keep codes of ``log_id`` in a database whose schema is up to date."""
        super().__init__(engine, clock, log_id, _LINK_LABEL, seeds)
        self._tokens = tokens

    def issue(self, token: str, *, seconds: int = LINK_SECONDS) -> str:
        """Make a code that logs in as ``token`` would; it is shown once.

        Raises:
            ConfigError: A longer life than `LINK_SECONDS`, or none.
            ForbiddenError: An enforcer's token.
            UnauthenticatedError: The token is unknown, expired, revoked, or of another log.
            StorageError: The database failed.
        """
        if not 1 <= seconds <= LINK_SECONDS:
            raise ConfigError(f"a login link lives 1 to {LINK_SECONDS} seconds")
        caller = self._tokens.authenticate(token)
        may_log_in(caller, self._log_id)
        return self._add(caller.token_sha256, seconds)

    def is_open(self, code: str) -> bool:
        """Return whether a code could still be spent; asking does not spend it.

        Raises:
            StorageError: The database failed.
        """
        return self._find_sealed(code) is not None

    def spend(self, code: str) -> Caller:
        """Use a code up and return whom it logs in.

        Raises:
            UnauthenticatedError: It is unknown, expired or used, or its token has ended.
            StorageError: The database failed.
        """
        row = self._find_sealed(code)
        # INVARIANT: single use. Of several that found the row, the one whose delete removed it goes on.
        if row is None or not self._remove(code):
            raise UnauthenticatedError("the login link was used before, has expired, or never was one")
        return self._tokens.caller(self._log_id, row[0])
