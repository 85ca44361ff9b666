"""What goes into the spool and comes out of it: the values, without the file.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from enforcement.state import Change
from ledger.bodies import Body, Decision
from ledger.ports import Draft, Opening

__all__ = ["Batch", "Depth", "Item", "Kept", "OpenCall", "QueuedRecord", "RecordIdentity", "Room", "opens_call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIdentity:
    """What all records of an enforcer have in common.

    Attributes:
        log_id: The log.
        tenant: Whose records.
        environment: Deployment.
        enforcer_id: Who writes them.
        simulated: Made with demonstration keys or a simulated clock.
        pseudonym_key_id: Which key made the pseudonyms.
    """

    log_id: str
    tenant: str
    environment: str
    enforcer_id: str
    simulated: bool
    pseudonym_key_id: str


@dataclass(frozen=True, slots=True)
class Item:
    """A draft with the id that its record will have."""

    record_id: str
    draft: Draft


class Room(IntEnum):
    """How much of the spool may be full before a decision is refused, in eighths.

    Strangers may use up neither the room for calls nor that for denials of callers who are known; permits may not use
    up that for denials. What a canary would have said, which decides nothing, stops before all of them. A kill has no
    bound: there is at most one for a call under way, and its block must last.
    """

    SHADOW = 2
    STRANGER = 4
    PERMIT = 7
    DENIAL = 8
    KILL = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records and changes of state that become durable together or not at all.

    Attributes:
        items: The records, in order.
        changes: Changes of state.
        room: How full the spool may be before a decision among the records is refused.
    """

    items: tuple[Item, ...]
    changes: tuple[Change, ...] = ()
    room: Room = Room.PERMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRecord:
    """A record that waits for the ledger.

    Attributes:
        position: Its place in the queue.
        record_id: Its id.
        epoch: Its epoch.
        seq: Its number.
        entry: Its entry bytes.
        openings: What opens its commitments.
    """

    position: int
    record_id: str
    epoch: str
    seq: int
    entry: bytes
    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that the ledger has acknowledged and has not proven yet.

    Attributes:
        leaf_index: Where it is, by the ledger's word.
        record_id: Its id.
        entry: Its entry bytes.
    """

    leaf_index: int
    record_id: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A permitted call that has no outcome yet.

    Attributes:
        decision_id: Its decision.
        session: Pseudonym of its session.
        user: Pseudonym of its user.
        approval_id: It is held under this id, so that it has not gone on; None if it may have.
        binding: What would have had to be agreed to.
    """

    decision_id: str
    session: str
    user: str | None
    approval_id: str | None = None
    binding: str | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits: records, their bytes, and records that were set aside because the ledger refused them."""

    records: int
    size_bytes: int
    set_aside: int


def opens_call(body: Body) -> bool:
    """Whether a record must be followed by exactly one outcome: the policy permits, or the call was let through."""
    return isinstance(body, Decision) and (body.decision == "PERMIT" or body.enforcement == "allow")
