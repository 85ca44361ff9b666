"""Letting a principal call again whose session was ended; who did it and why is a record.

The batch that is made here ends the block in the transaction that stores the record: by the running gateway's recorder,
or by another process that has the same state file open. The gateway reads a block anew before it refuses a call for
it. The record is what ends the kill at all other gateways, once the ledger has it (`ledger.containments`); until then
the service goes on to name the kill, so that it is noted here which ones were released here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from enforcement.batches import Batch, Item
from enforcement.facts import Pseudonyms
from enforcement.recorder import Recorder
from enforcement.sessions import Block, Sessions
from ledger.bodies import AccessEvent
from ledger.commitments import SALT_BYTES, pseudonym
from ledger.errors import NotFoundError
from ledger.ports import Draft, commit
from ledger.restrictions import RestrictionSet

__all__ = ["blocks_of_others", "kills_of", "lift_blocks", "release_batch"]


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
    now_ms: int,
    elsewhere: Sequence[str] = (),
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
        now_ms: The time.
        elsewhere: Kills of this principal by other gateways that hold here, by decision id.

    Raises:
        NotFoundError: The principal is not blocked.
        StorageError: The state file failed.
    """
    changes, kills = [], list(elsewhere)
    try:
        block, change = sessions.release(agent, user)
    except NotFoundError:
        if not kills:
            raise
    else:
        changes.append(change)
        kills.insert(0, block.decision_id)
    changes += [sessions.release_kill(decision_id, now_ms) for decision_id in dict.fromkeys(kills)]
    committed, opening = commit("purpose", secrets.token_bytes(SALT_BYTES), purpose.encode())
    event = AccessEvent(
        action="release_block",
        actor=pseudonym(pseudonyms.key, "actor", actor),
        actor_role=actor_role,
        target_kind="session",
        target_id=kills[0],
        result="ok",
        purpose=committed,
    )
    return Batch(items=(Item(new_record_id(), Draft(body=event, openings=(opening,))),), changes=tuple(changes))


def kills_of(current: RestrictionSet, pseudonyms: Pseudonyms, agent: str, user: str | None) -> list[str]:
    """Return the kills of a principal that a set of restrictions names, by decision id.

    Args:
        current: The set in force.
        pseudonyms: Name the user.
        agent: The agent.
        user: Its user, or None.
    """
    covering = current.covering(
        agent=agent,
        server=None,
        tool=None,
        user=lambda: pseudonyms.user(user),
        session=str,
        key_id=pseudonyms.key_id,
    )
    return [found.restriction_id for found in covering if found.kind == "kill"]


def blocks_of_others(sessions: Sessions, current: RestrictionSet) -> list[Block]:
    """Return the blocks that hold here because another gateway has killed, and nobody has released since.

    Raises:
        StorageError: The state file failed.
    """
    own = {block.decision_id for block in sessions.blocks()}
    return [
        Block(
            principal="",
            agent=found.agent,
            user=found.user,
            decision_id=found.restriction_id,
            since_ms=found.since_ms,
        )
        for found in current.restrictions
        if found.kind == "kill" and found.agent is not None
        if found.restriction_id not in own and not sessions.is_released(found.restriction_id)
    ]


async def lift_blocks(sessions: Sessions, recorder: Recorder, lifted: Sequence[str]) -> None:
    """End the blocks whose kills were released elsewhere; the releases are in the ledger already.

    Raises:
        StorageError: The state file failed: the blocks go on to hold.
    """
    changes = sessions.lift(frozenset(lifted))
    if changes:
        await recorder.record(Batch(items=(), changes=tuple(changes)), strict=False)
