"""The life of the service's keys: introduced, retired, disowned, each by a record, while requests go on.

A new key is a new file beside the old one. Introducing it is one record, retiring the old one another; between them
lies the *overlap*, in which both count. What changes with each record:

* a **log** key: it signs from the tree on that holds its introduction, and no more from the tree on that holds its
  retirement (`ledger.log_keys`). It is retired only when a checkpoint with its successor's line has been published,
  so that there is no moment at which nobody's trust policy is met;
* a **pack** key: packs are signed with the newest that counts, one of each algorithm;
* the **service's** own key, the registrar's: its successor is introduced by a record that the old key signs, and signs
  from the next record on;
* the **pseudonym** key: the newest makes pseudonyms; a search asks with all of them.

Disowning says up to which tree size a key was the log's own ("compromised after size N"). It cannot be taken back. A
key that is in use must have a successor first, and no process ever signs with it again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ledger.bodies import KeyEvent
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.keyring import IntroducedKey, Keyring
from ledger.ports import Draft
from ledger.remote_keys import SigningKey
from ledger.trust import TrustPolicy
from service.auth import Caller
from service.key_records import append_on_newest_keys
from service.keyset import introduction, trust_policy

if TYPE_CHECKING:
    from service.wiring.services import Services

__all__ = ["KeyStanding", "compromise_key", "introduce_key", "published_policy", "retire_key", "standings"]

_ROTATED: Final = ("log", "pack", "enforcer", "pseudonym")
"""What can be replaced while the service runs."""

State: TypeAlias = Literal["prepared", "in force", "retired", "compromised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStanding:
    """Where one key stands.

    Attributes:
        purpose: ``log``, ``pack``, ``enforcer``, ``vault`` or ``pseudonym``.
        algorithm: As in its key record.
        subject: Who holds it.
        key_id: Its public id.
        state: ``prepared``: there is a key file, and the log does not know it yet.
        here: There is a key file.
        first_leaf: Leaf of its introduction, or None.
        last_leaf: The last leaf for which it counts, or None.
    """

    purpose: str
    algorithm: str
    subject: str
    key_id: str
    state: State
    here: bool
    first_leaf: int | None = None
    last_leaf: int | None = None


def standings(services: Services) -> list[KeyStanding]:
    """Return every key of the service, in the order of their introduction; keys of gateways are theirs."""
    held = services.current_keys.look_again().all()
    ids = {(key.purpose, key.key_id) for key in held}
    disowned = _disowned(services.keyring)
    mine = [key for key in services.keyring.keys if _is_ours(services, key)]
    known = {(key.purpose, key.key_id) for key in mine}
    found = [
        KeyStanding(
            purpose=key.purpose,
            algorithm=key.algorithm,
            subject=key.subject,
            key_id=key.key_id,
            state=_state(key, disowned),
            here=(key.purpose, key.key_id) in ids,
            first_leaf=key.first_leaf,
            last_leaf=key.last_leaf,
        )
        for key in mine
    ]
    prepared = [key for key in held if (key.purpose, key.key_id) not in known]
    return found + [
        KeyStanding(
            purpose=key.purpose,
            algorithm=key.algorithm,
            subject=key.name,
            key_id=key.key_id,
            state="prepared",
            here=True,
        )
        for key in prepared
    ]


def _is_ours(services: Services, key: IntroducedKey) -> bool:
    return key.purpose != "enforcer" or key.subject == services.settings.service_id


def _disowned(keyring: Keyring) -> set[tuple[str, str]]:
    return {(compromise.purpose, compromise.key_id) for compromise in keyring.compromises}


def _state(key: IntroducedKey, disowned: set[tuple[str, str]]) -> State:
    if (key.purpose, key.key_id) in disowned:
        return "compromised"
    return "in force" if key.last_leaf is None else "retired"


def published_policy(services: Services) -> TrustPolicy:
    """Return the trust policy to hand to auditors: every log key but those that were disowned.

    Whoever reads a whole log learns from it for how long each key counted. Whoever checks one proof does not.
    """
    disowned = {key_id for purpose, key_id in _disowned(services.keyring) if purpose == "log"}
    return trust_policy(services.keys, without=disowned)


async def introduce_key(services: Services, caller: Caller, key_id: str) -> int:
    """Introduce a key whose file is here, and return the leaf of its introduction; it is used from then on.

    Raises:
        NotFoundError: No key file here holds it.
        ConflictError: The log knows it already, or no such key is replaced while the service runs.
        ConfigError: A key file cannot be used.
        DependencyError: Nothing of this may be relied on.
    """
    key = await asyncio.to_thread(services.current_keys.held, key_id)
    _require_rotation(services, key)
    access = services.access.draft(caller, "introduce_key", "key", target_id=key_id, items=1)
    async with services.enrolment:
        size = await asyncio.to_thread(services.sequenced_size)

        def drafts() -> list[Draft]:
            if any(known.key_id == key_id for known in services.keyring.keys):
                raise ConflictError(f"the log has known the key {key_id} before")
            return [Draft(body=introduction(key, first_size=size)), access]

        done = await append_on_newest_keys(services.key_records, services.recorder, drafts)
    return done[0].index


def _require_rotation(services: Services, key: SigningKey) -> None:
    if key.purpose not in _ROTATED:
        raise ConflictError(f"a {key.purpose} key is not replaced while the service runs")
    holders = {known.subject for known in services.keyring.keys if _is_ours(services, known)}
    if key.name not in holders:
        raise ConflictError(f"the key {key.key_id} was made for {key.name}, which holds no key of this log")


def _known(keyring: Keyring, key_id: str) -> IntroducedKey:
    found = [key for key in keyring.keys if key.key_id == key_id]
    if not found:
        raise NotFoundError(f"the log knows no key {key_id}")
    return found[-1]


def _successor(keyring: Keyring, key: IntroducedKey) -> IntroducedKey | None:
    """Return the newest other key that counts in the place of one."""
    place = (key.purpose, key.algorithm, key.subject)
    others = [
        other
        for other in keyring.keys
        if (other.purpose, other.algorithm, other.subject) == place
        and other.last_leaf is None
        and other.key_id != key.key_id
    ]
    return others[-1] if others else None


def _event(action: Literal["retired", "compromised"], key: IntroducedKey, last_size: int | None = None) -> KeyEvent:
    return KeyEvent(
        action=action,
        purpose=key.purpose,  # type: ignore[arg-type]  # from a key record
        algorithm=key.algorithm,
        subject=key.subject,
        key_id=key.key_id,
        last_size=last_size,
    )


async def retire_key(services: Services, caller: Caller, key_id: str, *, give_up_algorithm: bool = False) -> int:
    """Retire a key that has a successor, and return the leaf of its retirement.

    Args:
        services: The service's parts.
        caller: Who does it; recorded.
        key_id: Which key.
        give_up_algorithm: Retire the last log key of an algorithm: checkpoints are then signed with the other alone.

    Raises:
        NotFoundError: The log knows no such key.
        ConflictError: It does not count any more, nothing is there in its place, or it is a gateway's.
        StateError: No checkpoint carried the successor's line in time; the key was not retired.
        DependencyError: Nothing of this may be relied on.
    """
    access = services.access.draft(caller, "retire_key", "key", target_id=key_id, items=1)

    def drafts() -> list[Draft]:
        key = _retirable(services, key_id)
        _check_successor(services.keyring, key, give_up_algorithm=give_up_algorithm)
        return [Draft(body=_event("retired", key)), access]

    async with services.enrolment:
        await asyncio.to_thread(services.key_records.refresh)
        key = _retirable(services, key_id)
        successor = _check_successor(services.keyring, key, give_up_algorithm=give_up_algorithm)
        await _let_overlap(services, key, successor)
        done = await append_on_newest_keys(services.key_records, services.recorder, drafts)
    return done[0].index


def _retirable(services: Services, key_id: str) -> IntroducedKey:
    key = _known(services.keyring, key_id)
    if not _is_ours(services, key):
        raise ConflictError(f"the key {key_id} is of the enforcer {key.subject}: retire the enforcer")
    if key.last_leaf is not None:
        raise ConflictError(f"the key {key_id} counts no more since leaf {key.last_leaf}")
    return key


def _check_successor(keyring: Keyring, key: IntroducedKey, *, give_up_algorithm: bool = False) -> IntroducedKey | None:
    """Return what is there in a key's place; None where its algorithm is given up."""
    successor = _successor(keyring, key)
    if successor is not None or (give_up_algorithm and key.purpose == "log" and _signs_otherwise(keyring, key)):
        return successor
    raise ConflictError(f"the key {key.key_id} is the only {key.purpose} key with {key.algorithm}: rotate it first")


async def _let_overlap(services: Services, key: IntroducedKey, successor: IntroducedKey | None) -> None:
    if key.purpose == "log" and successor is not None:
        # INVARIANT: the overlap is at least one checkpoint long, which carries both lines.
        await services.publishing.wait_for(successor.first_leaf + 1, services.settings.proof_timeout_seconds)


def _signs_otherwise(keyring: Keyring, key: IntroducedKey) -> bool:
    return any(
        (other.purpose, other.subject) == ("log", key.subject)
        and other.algorithm != key.algorithm
        and other.last_leaf is None
        for other in keyring.keys
    )


async def compromise_key(services: Services, caller: Caller, key_id: str, *, after_size: int, purpose: str) -> int:
    """Declare a key compromised after a tree size, and return the leaf of the declaration.

    An enforcer whose key it is can write nothing more with it, and its tokens open nothing: introduce it again, with
    another key.

    Raises:
        MalformedError: The log has fewer leaves.
        NotFoundError: The log knows no such key.
        ConflictError: The service still uses it, and nothing is there in its place.
        StateError: No checkpoint carried the successor's line in time; nothing was declared.
        DependencyError: Nothing of this may be relied on.
    """
    access = services.access.draft(caller, "compromise_key", "key", target_id=key_id, items=1, purpose=purpose)

    def known() -> tuple[IntroducedKey, IntroducedKey | None]:
        """Return the key, and what is there in its place where the service uses it."""
        key = _known(services.keyring, key_id)
        used = _is_ours(services, key) and key.last_leaf is None
        return key, _check_successor(services.keyring, key) if used else None

    async with services.enrolment:
        await asyncio.to_thread(services.key_records.refresh)
        key, successor = known()
        size = await asyncio.to_thread(services.sequenced_size)
        if after_size > size:
            raise MalformedError(f"the log has {size} leaves: a key cannot have been compromised after {after_size}")
        await _let_overlap(services, key, successor)
        done = await append_on_newest_keys(
            services.key_records,
            services.recorder,
            lambda: [Draft(body=_event("compromised", known()[0], after_size)), access],
        )
        if not _is_ours(services, key):
            await asyncio.to_thread(services.tokens.revoke_enforcer, caller.log_id, key.subject)
    return done[0].index
