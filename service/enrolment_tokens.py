"""Enrolment tokens: each lets one machine become one enforcer, once, for a while.

A token is ``te1.<log id>.<43 characters>``: 32 random bytes, of which only the SHA-256 is kept. It opens nothing but
its own enrolment.

INVARIANT: a token is used once. One statement binds it to the claim of whoever comes first (`claim`); whoever comes
with the same claim again, because the answer was lost, is the same; everybody else is too late, in whichever process.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Engine, insert, select, update

from ledger.clock import Clock
from ledger.database import translated, writing
from service import tables

__all__ = ["REFUSALS_RECORDED", "EnrolmentToken", "EnrolmentTokens", "new_enrolment_token"]

_PREFIX: Final = "te1"
_SECRET_BYTES: Final = 32

REFUSALS_RECORDED: Final = 8
"""So many vain attempts with one token are recorded; who has found one must not fill the log with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentToken:
    """A token as the service knows it.

    Attributes:
        log_id: Its log.
        token_sha256: Its digest, hexadecimal.
        enforcer_id: Whom it enrols.
        expires_ms: Until when it counts, POSIX milliseconds.
        revoked: It counts no more.
        claim: What it was used for, see `service.enrolling.EnrolmentClaim.digest`, or None.
    """

    log_id: str
    token_sha256: str
    enforcer_id: str
    expires_ms: int
    revoked: bool
    claim: str | None


def new_enrolment_token(log_id: str) -> str:
    """Return a token that is not valid yet; see `EnrolmentTokens.issue`."""
    return f"{_PREFIX}.{log_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"


class EnrolmentTokens:
    """Enrolment tokens in the service's database; safe for any thread. Every method may raise `StorageError`."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._clock = clock

    def issue(self, log_id: str, token_sha256: str, enforcer_id: str, *, expires_ms: int) -> None:
        """Make a token valid."""
        row = {
            "log_id": log_id,
            "token_sha256": token_sha256,
            "enforcer_id": enforcer_id,
            "created_ms": self._clock.now_ms(),
            "expires_ms": expires_ms,
            "refusals": 0,
        }
        with translated("store an enrolment token"), writing(self._engine) as connection:
            connection.execute(insert(tables.enrolment_tokens), row)

    def find(self, log_id: str, token_sha256: str) -> EnrolmentToken | None:
        """Return a token, whether it still counts or not; None if there is none."""
        columns = tables.enrolment_tokens.c
        query = select(tables.enrolment_tokens).where(columns.log_id == log_id, columns.token_sha256 == token_sha256)
        with translated("read an enrolment token"), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return EnrolmentToken(
            log_id=row.log_id,
            token_sha256=row.token_sha256,
            enforcer_id=row.enforcer_id,
            expires_ms=row.expires_ms,
            revoked=row.revoked_ms is not None,
            claim=row.claim_sha256,
        )

    def claim(self, token: EnrolmentToken, claim: str) -> bool:
        """Use a token for a claim; returns whether it is used for that one, by now or before.

        Durability: committed when the call returns. Atomicity: of several claims at once one succeeds.
        """
        columns = tables.enrolment_tokens.c
        now_ms = self._clock.now_ms()
        taking = (
            update(tables.enrolment_tokens)
            .where(
                columns.log_id == token.log_id,
                columns.token_sha256 == token.token_sha256,
                columns.claim_sha256.is_(None),
                columns.revoked_ms.is_(None),
                columns.expires_ms > now_ms,
            )
            .values(claim_sha256=claim, used_ms=now_ms)
        )
        with translated("use an enrolment token"), writing(self._engine) as connection:
            if connection.execute(taking).rowcount == 1:
                return True
        known = self.find(token.log_id, token.token_sha256)
        return known is not None and not known.revoked and known.claim == claim

    def refuse(self, token: EnrolmentToken) -> bool:
        """Count a vain attempt; returns whether it is one of those to be recorded."""
        columns = tables.enrolment_tokens.c
        counting = (
            update(tables.enrolment_tokens)
            .where(
                columns.log_id == token.log_id,
                columns.token_sha256 == token.token_sha256,
                columns.refusals < REFUSALS_RECORDED,
            )
            .values(refusals=columns.refusals + 1)
        )
        with translated("count a refused enrolment"), writing(self._engine) as connection:
            return connection.execute(counting).rowcount == 1

    def revoke(self, log_id: str, token_sha256: str) -> bool:
        """End a token that was not used; returns whether there was one."""
        columns = tables.enrolment_tokens.c
        return (
            self._end(columns.log_id == log_id, columns.token_sha256 == token_sha256, columns.claim_sha256.is_(None))
            > 0
        )

    def revoke_enforcer(self, log_id: str, enforcer_id: str) -> int:
        """End every token of an enforcer, used or not, so that none leads back to one that was retired."""
        columns = tables.enrolment_tokens.c
        return self._end(columns.log_id == log_id, columns.enforcer_id == enforcer_id)

    def _end(self, *where: ColumnElement[bool]) -> int:
        ending = update(tables.enrolment_tokens).where(*where, tables.enrolment_tokens.c.revoked_ms.is_(None))
        with translated("revoke an enrolment token"), writing(self._engine) as connection:
            return connection.execute(ending.values(revoked_ms=self._clock.now_ms())).rowcount
