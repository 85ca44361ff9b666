"""Access events: whoever reads, exports, opens or replays leaves a record (the log audits its auditors)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ledger.bodies import AccessEvent, AccessScope
from ledger.body_fields import Commitment
from ledger.commitments import SALT_BYTES, pseudonym
from ledger.ports import Acknowledgement, Draft, Opening, RecordSink, commit
from service.auth import Caller
from service.persons import actor_name

__all__ = ["AccessRecorder"]

_NOBODY: Final = "unauthenticated"
_OPERATOR: Final = "operator"
_NEWCOMER: Final = "enrolment"
_PROVIDER: Final = "identity_provider"


class AccessRecorder:
    """Writes access events through the service's recorder."""

    def __init__(self, sink: RecordSink, pseudonym_key: Callable[[], bytes]) -> None:
        """Record through ``sink``; callers' names become pseudonyms, by the key that counts when they are made."""
        self._sink = sink
        self._pseudonym_key = pseudonym_key

    def actor(self, caller: Caller) -> str:
        """Return the pseudonym under which a caller's deeds are recorded."""
        return pseudonym(self._pseudonym_key(), "actor", caller.actor)

    def draft(
        self,
        caller: Caller,
        action: str,
        target_kind: str,
        *,
        target_id: str | None = None,
        items: int = 0,
        digest: str | None = None,
        result: str = "ok",
        purpose: str | None = None,
        scope: AccessScope | None = None,
        record_id: str | None = None,
    ) -> Draft:
        """Return the record of one access, not yet written.

        Args:
            caller: Who.
            action: What was done.
            target_kind: To what kind of thing.
            target_id: Its public id, if it has one.
            items: How many were handed out.
            digest: SHA-256 of what was handed out, hexadecimal.
            result: ``ok`` or a machine-readable refusal.
            purpose: Free text, which goes into the vault.
            scope: What was read, where it is a stretch of history.
            record_id: The record's id, where the same must not be recorded twice.
        """
        commitment: Commitment | None = None
        openings: tuple[Opening, ...] = ()
        if purpose is not None:
            commitment, opening = commit("purpose", secrets.token_bytes(SALT_BYTES), purpose.encode())
            openings = (opening,)
        body = AccessEvent(
            action=action,
            actor=self.actor(caller),
            actor_role=caller.role.value,
            target_kind=target_kind,
            target_id=target_id,
            digest=digest,
            items=items,
            result=result,
            purpose=commitment,
            scope=scope,
        )
        return Draft(body=body, openings=openings, record_id=record_id)

    def later_draft(self, requested: AccessEvent, action: str, **changes: object) -> Draft:
        """Return the record of what came of something that was asked for, by whoever asked, however long ago.

        Args:
            requested: The record of the request; its purpose stays with it.
            action: What was done.
            changes: Members that are others than in the request.
        """
        body = msgspec.structs.replace(requested, **{"action": action, "purpose": None, **changes})
        return Draft(body=body)

    def stranger_draft(self, address: str, action: str, target_kind: str, *, result: str) -> Draft:
        """Return the record of an access by somebody who did not prove who he is.

        Args:
            address: Where he called from; recorded as a pseudonym.
            action: What he tried.
            target_kind: On what kind of thing.
            result: A machine-readable refusal.
        """
        body = AccessEvent(
            action=action,
            actor=pseudonym(self._pseudonym_key(), "address", address),
            actor_role=_NOBODY,
            target_kind=target_kind,
            result=result,
        )
        return Draft(body=body)

    def provider_draft(self, issuer: str, subject: str | None, action: str, *, items: int) -> Draft:
        """Return the record of what an identity provider had done.

        Args:
            issuer: The provider.
            subject: The person whom it concerns; the provider itself if None.
            action: What was done.
            items: How many were concerned.
        """
        named = issuer if subject is None else actor_name(issuer, subject)
        body = AccessEvent(
            action=action,
            actor=pseudonym(self._pseudonym_key(), "actor", named),
            actor_role=_PROVIDER,
            target_kind="token",
            items=items,
            result="ok",
        )
        return Draft(body=body)

    def newcomer_draft(self, enforcer_id: str, action: str, *, digest: str, result: str) -> Draft:
        """Return the record of what somebody did with an enrolment token, who is no enforcer yet.

        Args:
            enforcer_id: Whom the token is for.
            action: What was done.
            digest: SHA-256 of the token, hexadecimal.
            result: ``ok`` or a machine-readable refusal.
        """
        body = AccessEvent(
            action=action,
            actor=pseudonym(self._pseudonym_key(), "actor", enforcer_id),
            actor_role=_NEWCOMER,
            target_kind="enforcer",
            target_id=enforcer_id,
            digest=digest,
            items=1 if result == "ok" else 0,
            result=result,
        )
        return Draft(body=body)

    def operator_draft(self, action: str, target_kind: str, *, target_id: str, items: int, digest: str) -> Draft:
        """Return the record of something that an operator did on the machine itself, where nobody asks for a token.

        Args:
            action: What was done.
            target_kind: To what kind of thing.
            target_id: Its public id.
            items: How many were concerned.
            digest: SHA-256 of what it came to, hexadecimal.
        """
        body = AccessEvent(
            action=action,
            actor=pseudonym(self._pseudonym_key(), "actor", _OPERATOR),
            actor_role=_OPERATOR,
            target_kind=target_kind,
            target_id=target_id,
            digest=digest,
            items=items,
            result="ok",
        )
        return Draft(body=body)

    async def record(self, drafts: Sequence[Draft]) -> list[Acknowledgement]:
        """Write access events; they are durable when the call returns.

        Raises:
            DependencyError: They could not be written: what they are about must not be handed out.
        """
        return await self._sink.append(drafts)
