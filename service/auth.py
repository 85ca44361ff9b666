"""Tokens, roles, and what each role may do.

A token is ``ts1.<log id>.<43 characters>``: 32 random bytes, of which only the SHA-256 is kept. It names one log and
one role; an enforcer's token names one enforcer id as well. There is no token for two logs (invariant 12).

A token that begins with ``tp1.`` was made by a person's login, and ends within a day: `service.person_tokens` issues
those. What a person alone may do is refused to every other token, whatever its role.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
from sqlalchemy import Engine, bindparam, insert, select, update

from ledger.clock import Clock
from ledger.database import insert_if_absent, translated, writing
from ledger.errors import ConfigError, ConflictError
from service import tables
from service.persons import Owner, Person, actor_name
from service.problems import ForbiddenError, PersonNeededError, UnauthenticatedError
from service.roles import Role

__all__ = [
    "PERSONS_ONLY",
    "Caller",
    "Permission",
    "Role",
    "TokenStore",
    "log_of_token",
    "may",
    "new_token",
    "require",
    "require_person",
    "roles_holding",
    "token_digest",
]

_PREFIX: Final = "ts1"
_PERSON_PREFIX: Final = "tp1"
_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(rf"(?:{_PREFIX}|{_PERSON_PREFIX})\.([a-z0-9][a-z0-9-]{{0,62}})\.[A-Za-z0-9_-]{{43}}")


class Permission(StrEnum):
    """What a route asks for."""

    WRITE_RECORDS = "write records"
    DECIDE = "ask for decisions"
    WRITE_OPA_LOGS = "hand in decision logs of an OPA"
    READ_ACTIVE_BUNDLE = "read the active bundle"
    READ_LOG = "read the log's tiles"
    READ_ENTRIES = "read entry bundles"
    READ_DECISIONS = "read decisions"
    OPEN_PAYLOADS = "open payloads"
    REPLAY = "replay decisions"
    READ_BUNDLES = "read bundles"
    PUBLISH_BUNDLES = "publish bundles"
    REVIEW_BUNDLES = "review bundles"
    ACTIVATE_BUNDLES = "activate bundles"
    PROPOSE_MODES = "propose what is only observed"
    REVIEW_MODES = "review what is only observed"
    CONFIRM_TAGS = "confirm and reject tags"
    MAKE_PACKS = "make evidence packs"
    ADMINISTER = "introduce enforcers and issue tokens"
    ERASE = "erase, expire and hold payloads"
    CONTAIN = "contain agents, sessions, tools and servers"
    END_CONTAINMENTS = "release and review containments"
    FOLLOW_RESTRICTIONS = "follow the restrictions in force"
    MANAGE_WEBHOOKS = "add, try and remove webhooks"
    READ_TOOLS = "read definitions of tools"
    REVIEW_TOOLS = "approve definitions of tools"
    APPROVE = "see and decide held calls"
    REVIEW_DRIFT = "close departures, accept baselines"
    REPORT_DISCOVERIES = "hand in what a scan found"
    REVIEW_DISCOVERIES = "see where servers are that scans found, and dismiss them"


_READERS: Final = {Permission.READ_LOG, Permission.READ_DECISIONS, Permission.READ_BUNDLES}

_GRANTS: Final[dict[Role, frozenset[Permission]]] = {
    Role.ENFORCER: frozenset(
        {
            Permission.WRITE_RECORDS,
            Permission.READ_ACTIVE_BUNDLE,
            Permission.READ_LOG,
            Permission.FOLLOW_RESTRICTIONS,
        }
    ),
    Role.CLIENT: frozenset(
        {
            Permission.DECIDE,
            Permission.WRITE_OPA_LOGS,
            Permission.REPORT_DISCOVERIES,
            Permission.READ_ACTIVE_BUNDLE,
            Permission.READ_LOG,
        }
    ),
    Role.AUDITOR: frozenset({*_READERS, Permission.READ_ENTRIES, Permission.MAKE_PACKS}),
    Role.RESPONDER: frozenset(
        {
            *_READERS,
            Permission.OPEN_PAYLOADS,
            Permission.REPLAY,
            Permission.PROPOSE_MODES,
            Permission.CONTAIN,
            Permission.END_CONTAINMENTS,
            Permission.READ_TOOLS,
            Permission.REVIEW_DRIFT,
            Permission.REPORT_DISCOVERIES,
            Permission.REVIEW_DISCOVERIES,
        }
    ),
    Role.APPROVER: frozenset(
        {
            *_READERS,
            Permission.REVIEW_BUNDLES,
            Permission.ACTIVATE_BUNDLES,
            Permission.REVIEW_MODES,
            Permission.CONFIRM_TAGS,
            Permission.END_CONTAINMENTS,
            Permission.READ_TOOLS,
            Permission.REVIEW_TOOLS,
            Permission.APPROVE,
            Permission.REVIEW_DRIFT,
            Permission.REVIEW_DISCOVERIES,
        }
    ),
    Role.ADMIN: frozenset(
        set(Permission)
        - {
            Permission.WRITE_RECORDS,
            Permission.DECIDE,
            Permission.WRITE_OPA_LOGS,
            Permission.FOLLOW_RESTRICTIONS,
        }
    ),
}
"""Nobody but an enforcer writes decisions, or a client has them made or hands them in; and neither reads any."""

PERSONS_ONLY: Final = frozenset(
    {
        Permission.OPEN_PAYLOADS,
        Permission.REVIEW_BUNDLES,
        Permission.REVIEW_MODES,
        Permission.CONFIRM_TAGS,
        Permission.ERASE,
        Permission.CONTAIN,
        Permission.END_CONTAINMENTS,
        Permission.READ_TOOLS,
        Permission.REVIEW_TOOLS,
        Permission.APPROVE,
        Permission.REVIEW_DRIFT,
        Permission.REVIEW_DISCOVERIES,
    }
)
"""What takes a person who logged in: a role is not enough, and no machine's token holds these."""


# Looked up by the digest of 256 random bits: timing tells an attacker nothing that he could use. Made once, for every
# request asks it: SQLAlchemy takes longer to put a statement together than a database to answer it.
_WHO: Final = tables.token_persons.c
_OF_TOKEN: Final = (
    select(
        tables.api_tokens,
        *(_WHO.kind, _WHO.issuer, _WHO.subject, _WHO.acr, _WHO.amr, _WHO.provider_session, _WHO.seal),
    )
    .select_from(
        tables.api_tokens.outerjoin(
            tables.token_persons,
            (_WHO.log_id == tables.api_tokens.c.log_id) & (_WHO.token_sha256 == tables.api_tokens.c.token_sha256),
        )
    )
    .where(
        tables.api_tokens.c.log_id == bindparam("log_id"), tables.api_tokens.c.token_sha256 == bindparam("token_sha256")
    )
)
_OWNED: Final = "owned"
"""What the table of persons says of a machine's token: who had it issued."""
_NO_LOGIN: Final = {"acr": "", "amr": "[]", "provider_session": "", "seal": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a valid token speaks for.

    Attributes:
        log_id: The only log that the token opens.
        name: The token's label: a person, a team, a machine.
        role: Its role.
        enforcer_id: For an enforcer: the only enforcer that it may write for.
        token_sha256: Identifies the token.
        expires_ms: When it ends, POSIX milliseconds; None for never.
        person: Who logged in for it; None for a machine. It counts with its seal alone: see `service.admitting`.
        seal: The seal over that.
        owner: Whose a machine's token is; None if nobody knows, and for a person.
    """

    log_id: str
    name: str
    role: Role
    enforcer_id: str | None
    token_sha256: str
    expires_ms: int | None = None
    person: Person | None = None
    seal: str = ""
    owner: Owner | None = None

    @property
    def actor(self) -> str:
        """The name over which his pseudonym in records is made."""
        return self.name if self.person is None else actor_name(self.person.issuer, self.person.subject)


def require(caller: Caller, permission: Permission) -> None:
    """Refuse a caller whose role does not hold a permission, or who is no person where it takes one.

    Raises:
        ForbiddenError: The role does not hold it.
        PersonNeededError: The role holds it, and the token is a machine's.
    """
    if permission not in _GRANTS[caller.role]:
        raise ForbiddenError(f"the role {caller.role} may not {permission}")
    if permission in PERSONS_ONLY:
        require_person(caller, permission)


def may(caller: Caller, permission: Permission) -> bool:
    """Return whether `require` would let somebody pass."""
    try:
        require(caller, permission)
    except ForbiddenError:
        return False
    return True


def require_person(caller: Caller, deed: str) -> None:
    """Refuse a machine.

    Args:
        caller: Who asks.
        deed: What for, as a permission says it.

    Raises:
        PersonNeededError: The token is a machine's.
    """
    if caller.person is None:
        raise PersonNeededError(
            f"to {deed} takes a person who has logged in, and an API token is a machine's: run `tallystick login`, or, "
            "where no identity provider is configured, `tallystick people token NAME` on the service's own machine"
        )


def roles_holding(permission: Permission) -> tuple[Role, ...]:
    """Return the roles that hold a permission."""
    return tuple(role for role in Role if permission in _GRANTS[role])


def new_token(log_id: str, *, person: bool = False) -> str:
    """Return a token that is not valid yet; see `TokenStore.issue`.

    Args:
        log_id: The log that it opens.
        person: It is a person's.
    """
    return f"{_PERSON_PREFIX if person else _PREFIX}.{log_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def token_digest(token: str) -> str:
    """Return what a token is known by where it must not be told: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def log_of_token(token: str) -> str | None:
    """Return the log that a token names, true or made up; None for what is spelt like no token."""
    spelt = _TOKEN.fullmatch(token)
    return None if spelt is None else spelt[1]


class TokenStore:
    """Tokens in the service's database; safe for any thread."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._clock = clock

    def issue(
        self,
        log_id: str,
        role: Role,
        name: str,
        *,
        enforcer_id: str | None = None,
        lifetime_days: int | None = None,
        token: str | None = None,
        owner: Owner | None = None,
    ) -> str:
        """Make a token valid; it is shown once and cannot be read again.

        Args:
            log_id: The log that it opens.
            role: Whom it speaks for.
            name: Its label.
            enforcer_id: For an enforcer, and no other: whom it may write for.
            lifetime_days: How long it counts; for ever if None.
            token: From `new_token`, where it had to be recorded first; a new one if None.
            owner: The person whose token it is; None if nobody knows.

        Raises:
            ConfigError: An enforcer's token without an enforcer id, or another's with one; or a name that is not
                printable.
            StorageError: The database failed.
        """
        if (role is Role.ENFORCER) != (enforcer_id is not None):
            raise ConfigError("an enforcer's token, and no other, names an enforcer id")
        # INVARIANT: no machine is called what a provider's person is called in records: see `persons.actor_name`.
        if not name.isprintable():
            raise ConfigError("a token's name is of printable characters")
        token = token or new_token(log_id)
        now = self._clock.now_ms()
        row = {
            "log_id": log_id,
            "token_sha256": token_digest(token),
            "name": name,
            "role": role.value,
            "enforcer_id": enforcer_id,
            "created_ms": now,
            "expires_ms": None if lifetime_days is None else now + lifetime_days * 86_400_000,
        }
        with translated("store a token"), writing(self._engine) as connection:
            connection.execute(insert(tables.api_tokens), row)
            if owner is not None:
                whose = {"kind": _OWNED, "issuer": owner.issuer, "subject": owner.subject}
                kept = {"log_id": log_id, "token_sha256": row["token_sha256"], **whose}
                connection.execute(insert(tables.token_persons), {**kept, **_NO_LOGIN})
        return token

    def admit_enforcer(self, log_id: str, enforcer_id: str, token_sha256: str) -> None:
        """Make a token valid that an enforcer made itself; it is never told here. Doing it again changes nothing.

        Args:
            log_id: The log that it opens.
            enforcer_id: Whom it may write for.
            token_sha256: Its digest, hexadecimal.

        Raises:
            ConflictError: It is a token of somebody else, or was revoked.
            StorageError: The database failed.
        """
        row = {
            "log_id": log_id,
            "token_sha256": token_sha256,
            "name": enforcer_id,
            "role": Role.ENFORCER.value,
            "enforcer_id": enforcer_id,
            "created_ms": self._clock.now_ms(),
            "expires_ms": None,
        }
        with translated("store a token"), writing(self._engine) as connection:
            inserted = insert_if_absent(connection, tables.api_tokens, row)
        if inserted:
            return
        try:
            known = self.caller(log_id, token_sha256)
        except UnauthenticatedError as error:
            raise ConflictError("that token was revoked: make a new one") from error
        if known.enforcer_id != enforcer_id:
            raise ConflictError("that token is somebody else's")

    def revoke(self, log_id: str, token_sha256: str) -> bool:
        """End a token; returns whether it was there.

        Raises:
            StorageError: The database failed.
        """
        columns = tables.api_tokens.c
        statement = (
            update(tables.api_tokens)
            .where(columns.log_id == log_id, columns.token_sha256 == token_sha256, columns.revoked_ms.is_(None))
            .values(revoked_ms=self._clock.now_ms())
        )
        with translated("revoke a token"), writing(self._engine) as connection:
            return connection.execute(statement).rowcount == 1

    def revoke_enforcer(self, log_id: str, enforcer_id: str) -> int:
        """End every token of an enforcer; returns how many there were.

        Raises:
            StorageError: The database failed.
        """
        columns = tables.api_tokens.c
        statement = (
            update(tables.api_tokens)
            .where(columns.log_id == log_id, columns.enforcer_id == enforcer_id, columns.revoked_ms.is_(None))
            .values(revoked_ms=self._clock.now_ms())
        )
        with translated("revoke an enforcer's tokens"), writing(self._engine) as connection:
            return connection.execute(statement).rowcount

    def authenticate(self, token: str) -> Caller:
        """Return whom a token speaks for.

        Raises:
            UnauthenticatedError: It is unknown, expired or revoked.
            StorageError: The database failed.
        """
        log_id = log_of_token(token)
        if log_id is None:
            raise UnauthenticatedError("the token is unknown, expired or revoked")
        return self.caller(log_id, token_digest(token))

    def caller(self, log_id: str, token_sha256: str) -> Caller:
        """Return whom the token with this digest speaks for; see `authenticate`."""
        with translated("read a token"), self._engine.connect() as connection:
            row = connection.execute(_OF_TOKEN, {"log_id": log_id, "token_sha256": token_sha256}).one_or_none()
        expired = row is not None and row.expires_ms is not None and row.expires_ms <= self._clock.now_ms()
        if row is None or row.revoked_ms is not None or expired:
            raise UnauthenticatedError("the token is unknown, expired or revoked")
        return _caller(row)


def _caller(row: Any) -> Caller:  # noqa: ANN401  # a row of `_OF_TOKEN`
    person, owner = None, None
    if row.kind == _OWNED:
        owner = Owner(issuer=row.issuer, subject=row.subject)
    elif row.kind is not None:
        person = Person(
            issuer=row.issuer,
            subject=row.subject,
            name=row.name,
            method=row.kind,
            acr=row.acr,
            amr=tuple(msgspec.json.decode(row.amr, type=list[str])),
            provider_session=row.provider_session,
        )
    return Caller(
        log_id=row.log_id,
        name=row.name,
        role=Role(row.role),
        enforcer_id=row.enforcer_id,
        token_sha256=row.token_sha256,
        expires_ms=None if row.expires_ms is None else int(row.expires_ms),
        person=person,
        seal=row.seal or "",
        owner=owner,
    )
