"""Logging a command line in: it shows a code, and a person who is logged in to the dashboard says yes to it.

The service is the authorization server of RFC 8628 here, and asks the provider, or the console's word, by way of the
dashboard's own login: the command line needs no browser on its machine, and no address that a browser could reach.

A request is a row of `web_sessions` under a label of its own: its secret is the command line's, its ``csrf`` the code
that people compare, and in place of a token's digest stands that of the session which said yes: whoever leaves before
the token is fetched takes it back. What was said is sealed in the code's place, as sessions are: nobody says yes by
writing a row. Saying yes does not hand a token over: the command line is given one of its own, of the same person and
role, that ends no later.

INVARIANT: a code is worth nothing without the device code, which only the command line that asked has; a request is
answered once, and its token handed out once.

Source: RFC 8628 (device authorization grant); RFC 6749 section 5.2 (errors).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Engine, func, select, update

from ledger.clock import Clock
from ledger.database import translated, writing
from ledger.errors import NotFoundError, OverloadedError
from service import tables
from service.auth import Caller, TokenStore
from service.problems import UnauthenticatedError
from service.web.sessions import LoginRows, Seeds, session_digest

__all__ = ["CODE", "POLL_SECONDS", "REQUEST_SECONDS", "Asked", "PendingError", "TerminalLogins"]

REQUEST_SECONDS: Final = 600
"""How long a person may take to say yes."""

POLL_SECONDS: Final = 2
"""How often the command line may ask."""

CODE: Final = r"^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$"
"""What people compare: 20 consonants to the power of 8, and no words (RFC 8628 section 6.1)."""

_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_LABEL: Final = b"tallystick/terminal-login/v1\n"
_PENDING: Final = ""
_DENIED: Final = "denied"
_MAX_OPEN: Final = 64
_SHAPE: Final = "____-____"


class PendingError(UnauthenticatedError):
    """Nobody has said yes or no yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of a command line.

    Attributes:
        device_code: The command line's secret.
        user_code: What people compare.
    """

    device_code: str
    user_code: str


class TerminalLogins(LoginRows):
    """Requests of command lines to one log; safe for any thread."""

    def __init__(self, engine: Engine, clock: Clock, log_id: str, tokens: TokenStore, seeds: Seeds) -> None:
        """Keep them in a database whose schema is up to date."""
        super().__init__(engine, clock, log_id, _LABEL, seeds)
        self._tokens = tokens

    def ask(self) -> Asked:
        """Begin a request.

        Raises:
            OverloadedError: Too many wait for an answer already.
            StorageError: The database failed.
        """
        columns = tables.web_sessions.c
        waiting = (
            select(func.count())
            .select_from(tables.web_sessions)
            .where(columns.log_id == self._log_id, columns.csrf.like(_SHAPE), columns.expires_ms > self._clock.now_ms())
        )
        with translated("count logins"), self._engine.connect() as connection:
            if connection.execute(waiting).scalar_one() >= _MAX_OPEN:
                raise OverloadedError("too many command lines wait to be let in: try again in some minutes")
        code = "".join(secrets.choice(_LETTERS) for _ in range(8))
        code = f"{code[:4]}-{code[4:]}"
        return Asked(device_code=self._add(_PENDING, REQUEST_SECONDS, csrf=code), user_code=code)

    def answer(self, user_code: str, session_id: str | None) -> None:
        """Say yes, or no, to a request; once.

        Args:
            user_code: What the command line shows.
            session_id: The session whose person it may speak for; None for no.

        Raises:
            NotFoundError: No such request waits.
            StorageError: The database failed.
        """
        columns = tables.web_sessions.c
        asked = select(columns.session_sha256, columns.expires_ms).where(*self._pending(user_code))
        with translated("answer a login"), writing(self._engine) as connection:
            row = connection.execute(asked).first()
            answered = None if row is None else self._answered(row.session_sha256, int(row.expires_ms), session_id)
            said = update(tables.web_sessions).where(
                *self._pending(user_code), columns.session_sha256 == ("" if row is None else row.session_sha256)
            )
            if answered is None or connection.execute(said.values(**answered)).rowcount != 1:
                raise NotFoundError("no command line waits with that code: it may have been answered, or be too old")

    def _pending(self, user_code: str) -> tuple[ColumnElement[bool], ...]:
        columns = tables.web_sessions.c
        return (
            columns.log_id == self._log_id,
            columns.csrf == user_code,
            columns.csrf.like(_SHAPE),
            columns.token_sha256 == _PENDING,
            columns.expires_ms > self._clock.now_ms(),
        )

    def _answered(self, digest: str, expires_ms: int, session_id: str | None) -> dict[str, str]:
        """Return what a row says from now on: who said yes, sealed; or that somebody said no."""
        if session_id is None:
            return {"token_sha256": _DENIED}
        said_yes = session_digest(session_id)
        return {"token_sha256": said_yes, "csrf": self._sealed(digest, said_yes, expires_ms)}

    def waits(self, user_code: str) -> bool:
        """Return whether a request waits for an answer.

        Raises:
            StorageError: The database failed.
        """
        query = select(tables.web_sessions.c.expires_ms).where(*self._pending(user_code))
        with translated("read a login"), self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def take(self, device_code: str) -> Caller:
        """Return who has said yes to a request, once.

        Raises:
            PendingError: Nobody has answered yet.
            UnauthenticatedError: Somebody said no, it is too old or was taken, or who said yes is logged out again.
            StorageError: The database failed.
        """
        row = self._find(device_code)
        if row is None:
            raise UnauthenticatedError("expired_token")
        if row[0] == _PENDING:
            raise PendingError("authorization_pending")
        # INVARIANT: single use. Of several that found the row, the one whose delete removed it goes on.
        ours = self._find_sealed(device_code) == row
        if not self._remove(device_code) or row[0] == _DENIED or not ours:
            raise UnauthenticatedError("access_denied")
        session = self._session_of(row[0])
        if session is None:
            raise UnauthenticatedError("access_denied")
        return self._tokens.caller(self._log_id, session[0])
