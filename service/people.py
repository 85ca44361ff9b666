"""People: who is let in as a person, what of it is recorded, and by which names one person is known.

INVARIANT: nothing is done for a person whose token has no seal of this log's keys: a row in the database is not enough.
INVARIANT: that somebody logged in is recorded before anything is done for him; for a token made at the console, which
asks nobody, by whoever sees it first.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from typing import Final

from ledger.errors import ConflictError
from ledger.records import new_record_id
from service.access import AccessRecorder
from service.auth import Caller, Permission, Role
from service.keyset import KeySet
from service.person_tokens import PersonTokens
from service.persons import MAX_PERSON_SECONDS, Person, is_sealed
from service.problems import UnauthenticatedError

__all__ = ["People"]

_CONSOLE_LOGIN: Final = b"tallystick/console-login/v1\n"
_BY_HAND: Final = ("console", "break_glass")
_MAX_SEEN: Final = 4096


class People:
    """The persons of one log; one event loop owns it, its tokens any thread."""

    def __init__(
        self, tokens: PersonTokens, keys: Callable[[], KeySet], access: AccessRecorder, *, methods: Collection[str]
    ) -> None:
        """Take the parts.

        Args:
            tokens: Where persons' tokens are.
            keys: The log's keys, as they are now.
            access: Records who logs in.
            methods: How people may have logged in.
        """
        self._methods = frozenset(methods)
        self.tokens = tokens
        self._keys = keys
        self._access = access
        self._seen: dict[str, None] = {}

    async def admit(self, caller: Caller) -> None:
        """Let somebody in whose token was found: check the seal of a person's, and record a console's first use.

        Raises:
            UnauthenticatedError: It has no seal of this log's keys, or was made in a way that is not open any more.
            DependencyError: The login could not be recorded.
        """
        person = caller.person
        if person is None:
            return
        self.check_seal(caller, person)
        if person.method not in self._methods:
            raise UnauthenticatedError("people log in by the identity provider here: run `tallystick login`")
        if person.method not in _BY_HAND or caller.token_sha256 in self._seen:
            return
        await self._record_first_use(caller, person)
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()  # what is recorded twice is refused by its id
        self._seen[caller.token_sha256] = None

    def check_seal(self, caller: Caller, person: Person) -> None:
        """Check that this log's keys made a person's token; see `service.persons`.

        Raises:
            UnauthenticatedError: They did not.
        """
        told = (caller.log_id, caller.token_sha256, caller.role.value, caller.expires_ms or 0, person)
        if not is_sealed(caller.seal, self._keys().pseudonym_seeds, *told):
            raise UnauthenticatedError("the token is unknown, expired or revoked")

    async def _record_first_use(self, caller: Caller, person: Person) -> None:
        """Record that a token of the console is used; of several processes that see it first, one does."""
        action = "break_glass_login" if person.method == "break_glass" else "console_login"
        digest = hashlib.sha256(_CONSOLE_LOGIN + f"{caller.log_id}\n{caller.token_sha256}".encode()).digest()
        # No earlier than this can it have been made; what matters is that every process says the same.
        made_ms = max(0, (caller.expires_ms or 0) - MAX_PERSON_SECONDS * 1000)
        draft = self._access.draft(
            caller,
            action,
            "token",
            target_id=caller.token_sha256,
            record_id=new_record_id(made_ms, digest[:10]),
        )
        try:
            await self._access.record([draft])
        except ConflictError:
            return  # another process, or this one before it was started again

    async def record_refusal(self, caller: Caller, permission: Permission) -> None:
        """Record that a machine tried what only a person may do.

        Args:
            caller: Whose token.
            permission: What it takes.

        Raises:
            DependencyError: It could not be recorded.
        """
        draft = self._access.draft(
            caller, "refused", "permission", target_id=permission.name.lower(), result="no_person"
        )
        await self._access.record([draft])

    async def end(self, issuer: str, *, subject: str | None, provider_session: str | None) -> int:
        """End logins, as their provider says; that it did is recorded, and how many there were is returned.

        Args:
            issuer: The provider.
            subject: Whose.
            provider_session: Of which session there.

        Raises:
            StorageError: The database failed.
            DependencyError: It could not be recorded; the logins have ended.
        """
        count = await asyncio.to_thread(self.tokens.end, issuer, subject=subject, provider_session=provider_session)
        if count:
            await self._access.record([self._access.provider_draft(issuer, subject, "provider_logout", items=count)])
        return count

    def issue(self, person: Person, role: Role, *, seconds: int) -> tuple[str, Caller]:
        """Make a token for a person, sealed with the key that counts now; see `PersonTokens.issue`."""
        return self.tokens.issue(person, role, seed=self._keys().pseudonym.seed, seconds=seconds)

    async def names_of(self, caller: Caller) -> tuple[str, ...]:
        """Return every name of whoever stands behind a token; see `PersonTokens.names_of`.

        Raises:
            StorageError: The database failed.
        """
        return await asyncio.to_thread(self.tokens.names_of, caller)

    async def pseudonyms_of(self, caller: Caller) -> tuple[str, ...]:
        """Return what a caller may be called in records, by every name and every key; the one of now first.

        Raises:
            StorageError: The database failed.
        """
        names = await self.names_of(caller)
        keys = self._keys()
        return tuple(dict.fromkeys(called for name in names for called in keys.pseudonyms("actor", name)))
