"""Letting a principal call again whose session was ended; who did it and why is a record.

The batch that is made here ends the block in the transaction that stores the record: by the running gateway's recorder,
or by another process that has the same state file open. The gateway reads a block anew before it refuses a call for
it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from enforcement.batches import Batch, Item
from enforcement.facts import Pseudonyms
from enforcement.sessions import Sessions
from ledger.bodies import AccessEvent
from ledger.commitments import SALT_BYTES, pseudonym
from ledger.ports import Draft, commit

__all__ = ["release_batch"]


def release_batch(
    sessions: Sessions,
    pseudonyms: Pseudonyms,
    new_record_id: Callable[[], str],
    *,
    agent: str,
    user: str | None,
    actor: str,
    actor_role: str,
    purpose: str,
) -> Batch:
    """Return what releases a principal once it is recorded.

    Args:
        sessions: Knows the blocks.
        pseudonyms: Name the actor.
        new_record_id: Makes the record's id.
        agent: The agent.
        user: Its user, or None.
        actor: The person who releases it.
        actor_role: In which role.
        purpose: Why; it goes into the vault.

    Raises:
        NotFoundError: The principal is not blocked.
        StorageError: The state file failed.
    """
    block, change = sessions.release(agent, user)
    committed, opening = commit("purpose", secrets.token_bytes(SALT_BYTES), purpose.encode())
    event = AccessEvent(
        action="release_block",
        actor=pseudonym(pseudonyms.key, "actor", actor),
        actor_role=actor_role,
        target_kind="session",
        target_id=block.decision_id,
        result="ok",
        purpose=committed,
    )
    return Batch(items=(Item(new_record_id(), Draft(body=event, openings=(opening,))),), changes=(change,))
