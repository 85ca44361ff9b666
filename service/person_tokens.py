"""Tokens of persons: made by a login, sealed, and gone within a day.

They stand beside the machines' in `api_tokens`, and say in `token_persons` who logged in. This module stores and finds;
what leaves a record is `service.people`' part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Engine, and_, insert, or_, select, update

from ledger.clock import Clock
from ledger.database import translated, writing
from ledger.errors import ConfigError
from service import tables
from service.auth import Caller, Role, new_token, token_digest
from service.persons import CONSOLE, MAX_PERSON_SECONDS, Owner, Person, actor_name, seal_of

__all__ = ["PersonTokens"]

_MS_PER_SECOND: Final = 1000
_MAX_SUBJECT_CHARS: Final = 256
_MAX_NAME_CHARS: Final = 128
_OWNED: Final = "owned"
_WHO: Final = tables.token_persons.c
_TOKENS: Final = tables.api_tokens.c
_BOTH: Final = tables.api_tokens.join(
    tables.token_persons, and_(_WHO.log_id == _TOKENS.log_id, _WHO.token_sha256 == _TOKENS.token_sha256)
)


class PersonTokens:
    """Persons' tokens of one log; safe for any thread."""

    def __init__(self, engine: Engine, clock: Clock, log_id: str) -> None:
        """Keep them in a database whose schema is up to date."""
        self._engine = engine
        self._clock = clock
        self._log_id = log_id

    def issue(self, person: Person, role: Role, *, seed: bytes, seconds: int) -> tuple[str, Caller]:
        """Make a token for somebody who has just logged in; it is shown once and cannot be read again.

        Args:
            person: Who.
            role: What he may do with it.
            seed: The log's pseudonym key, which seals it.
            seconds: How long it counts.

        Returns:
            The token, and whom it speaks for.

        Raises:
            ConfigError: A role that is a machine's, too long a life, or no name that can stand.
            StorageError: The database failed.
        """
        if role in (Role.ENFORCER, Role.CLIENT):
            raise ConfigError(f"the role {role} is for machines")
        if not 1 <= seconds <= MAX_PERSON_SECONDS:
            raise ConfigError(f"a person's token lives 1 to {MAX_PERSON_SECONDS} seconds")
        if not 0 < len(person.subject) <= _MAX_SUBJECT_CHARS or not 0 < len(person.name) <= _MAX_NAME_CHARS:
            raise ConfigError("a person's subject has 1 to 256 characters, and a name 1 to 128")
        # INVARIANT: nobody is called what another issuer's person is called in records: see `actor_name`.
        if not person.subject.isprintable() or not person.name.isprintable():
            raise ConfigError("a person's subject and name are of printable characters")
        token = new_token(self._log_id, person=True)
        now_ms = self._clock.now_ms()
        digest, expires_ms = token_digest(token), now_ms + seconds * _MS_PER_SECOND
        seal = seal_of(seed, self._log_id, digest, role.value, expires_ms, person)
        key = {"log_id": self._log_id, "token_sha256": digest}
        times = {"created_ms": now_ms, "expires_ms": expires_ms}
        row = {**key, "name": person.name, "role": role.value, "enforcer_id": None, **times}
        whose = {
            **key,
            "kind": person.method,
            "issuer": person.issuer,
            "subject": person.subject,
            "acr": person.acr,
            "amr": msgspec.json.encode(person.amr).decode(),
            "provider_session": person.provider_session,
            "seal": seal,
        }
        with translated("store a person's token"), writing(self._engine) as connection:
            connection.execute(insert(tables.api_tokens), row)
            connection.execute(insert(tables.token_persons), whose)
        caller = Caller(log_id=self._log_id, name=person.name, role=role, enforcer_id=None, token_sha256=digest)
        return token, replace(caller, expires_ms=expires_ms, person=person, seal=seal)

    def end(self, issuer: str, *, subject: str | None = None, provider_session: str | None = None) -> int:
        """End the logins of a person, or those of one session at the provider; returns how many there were.

        Machines' tokens that the person had issued are left as they are.

        Args:
            issuer: Who vouches for the person.
            subject: Which person; anybody's if None.
            provider_session: Which session there; every one if None.

        Raises:
            ConfigError: Neither is named.
            StorageError: The database failed.
        """
        if subject is None and provider_session is None:
            raise ConfigError("a person or a session must be named")
        wanted = [_WHO.log_id == self._log_id, _WHO.kind != _OWNED, _WHO.issuer == issuer]
        wanted += [] if subject is None else [_WHO.subject == subject]
        wanted += [] if provider_session is None else [_WHO.provider_session == provider_session]
        ended = (
            update(tables.api_tokens)
            .where(
                _TOKENS.log_id == self._log_id,
                _TOKENS.revoked_ms.is_(None),
                _TOKENS.token_sha256.in_(select(_WHO.token_sha256).where(*wanted)),
            )
            .values(revoked_ms=self._clock.now_ms())
        )
        with translated("end a person's logins"), writing(self._engine) as connection:
            return connection.execute(ended).rowcount

    def names_of(self, caller: Caller) -> tuple[str, ...]:
        """Return every name under which whoever stands behind a token may stand in records; the token's own first.

        One person may have several logins (at the provider, at the console), and machines' tokens. Logins are one
        person's if they are of one subject, or if they have one name: where nobody can tell, they count as one.

        Raises:
            StorageError: The database failed.
        """
        whose = caller.owner if caller.person is None else caller.person.owner
        names = dict.fromkeys((caller.actor, caller.name))
        here = _WHO.log_id == self._log_id
        with translated("read persons"), self._engine.connect() as connection:
            known = {owner for owner in (whose, Owner(issuer=CONSOLE, subject=caller.name)) if owner is not None}
            logins = select(_TOKENS.name, _WHO.issuer, _WHO.subject).select_from(_BOTH).where(here, _WHO.kind != _OWNED)
            theirs = or_(*(_is(owner) for owner in known), _TOKENS.name == caller.name)
            for row in connection.execute(logins.where(theirs).distinct()):
                known.add(Owner(issuer=row.issuer, subject=row.subject))
                names[row.name] = None
            machines = select(_TOKENS.name).select_from(_BOTH).where(here, _WHO.kind == _OWNED)
            for row in connection.execute(machines.where(or_(*(_is(owner) for owner in known))).distinct()):
                names[row.name] = None
        names |= dict.fromkeys(sorted(actor_name(owner.issuer, owner.subject) for owner in known))
        return tuple(names)


def _is(owner: Owner) -> ColumnElement[bool]:
    return and_(_WHO.issuer == owner.issuer, _WHO.subject == owner.subject)
