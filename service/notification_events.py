"""What people are told of: kinds of records, each with what of it is told. A further kind is a line of `EVENTS`.

INVARIANT 6: an event is made of public and pseudonymous members of a record alone. Whoever needs more follows its link
and shows who he is.

INVARIANT: an event's id follows from its log and leaf, so that it is the same whoever sends it, and how often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ledger.bodies import Approval, Containment, Decision, Dropped
from ledger.bodies_discovery import DiscoveryEvent
from ledger.bodies_drift import Drift
from ledger.bodies_tools import ToolEvent
from ledger.records import Record

__all__ = ["EVENTS", "SILENT", "TEST", "Event", "EventType", "event_of", "record_types", "silence"]

SILENT: Final = "enforcer.silent"
TEST: Final = "webhook.test"
_ID: Final = b"tallystick/webhook-event/v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """A kind of event that follows from a record.

    Attributes:
        name: As receivers know it.
        record_type: Of which records.
        applies: Whether a body of that type is one.
        members: Which members of the body are told.
        link: The page about it, with ``{id}`` for the record's id, or another member's name.
    """

    name: str
    record_type: str
    applies: Callable[[Any], bool]
    members: tuple[str, ...]
    link: str


_OPEN: Final = ("shadow", "bypass")
_CALL: Final = ("agent", "user", "session", "server", "tool", "reason", "bundle")
_CONTAINED: Final = ("containment_id", "scope", "agent", "server", "tool", "session", "until_ms")


def _decided(enforcement: str) -> Callable[[Any], bool]:
    return lambda body: isinstance(body, Decision) and body.enforcement == enforcement and body.mode == "enforce"


def _contained(*actions: str) -> Callable[[Any], bool]:
    return lambda body: isinstance(body, Containment) and body.action in actions


EVENTS: Final[tuple[EventType, ...]] = (
    EventType(name="call.held", record_type="decision", applies=_decided("ask"), members=_CALL, link="/decisions/{id}"),
    EventType(
        name="session.killed", record_type="decision", applies=_decided("kill"), members=_CALL, link="/decisions/{id}"
    ),
    EventType(
        name="tool.quarantined",
        record_type="tool",
        applies=lambda body: isinstance(body, ToolEvent) and body.action == "quarantined",
        members=("server", "tool", "digest", "previous", "reasons", "changes", "other"),
        link="/tools",
    ),
    EventType(
        name="access.requested",
        record_type="approval",
        # What a gateway holds is told as a decision, with what is called.
        applies=lambda body: isinstance(body, Approval) and body.action == "held" and body.actor is not None,
        members=("approval_id", "decision_id", "actor", "needed", "expires_ms"),
        link="/approvals/{approval_id}",
    ),
    EventType(
        name="approval.expired",
        record_type="approval",
        applies=lambda body: isinstance(body, Approval) and body.action == "expired",
        members=("approval_id", "decision_id", "reason"),
        link="/approvals/{approval_id}",
    ),
    EventType(
        name="server.discovered",
        record_type="discovery",
        applies=lambda body: isinstance(body, DiscoveryEvent) and body.action == "found" and body.standing in _OPEN,
        members=("discovery_id", "scan_id", "standing", "source", "transport", "place", "client", "server", "eras"),
        link="/inventory",
    ),
    EventType(
        name="drift.flagged",
        record_type="drift",
        applies=lambda body: isinstance(body, Drift) and body.action == "flagged",
        members=("drift_id", "agent", "detector", "subject", "previous", "calls", "explained", "unflagged"),
        link="/drift/{drift_id}",
    ),
    EventType(
        name="enforcer.lost_records",
        record_type="dropped",
        applies=lambda body: isinstance(body, Dropped),
        members=("first_seq", "last_seq", "reason"),
        link="/",
    ),
    EventType(
        name="containment.ordered",
        record_type="containment",
        applies=_contained("ordered"),
        members=_CONTAINED,
        link="/containments/{containment_id}",
    ),
    EventType(
        name="containment.ended",
        record_type="containment",
        applies=_contained("released", "expired"),
        members=("containment_id", "action"),
        link="/containments/{containment_id}",
    ),
)
"""In the order in which a record is asked; it is one event at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """What is sent.

    Attributes:
        event_id: Its id, for receivers to know it again by.
        name: What kind of event it is.
        body: Its JSON, the same however often it is sent.
    """

    event_id: str
    name: str
    body: bytes


def record_types(names: Collection[str]) -> set[str]:
    """Return the types of records that events of these names follow from."""
    return {kind.record_type for kind in EVENTS if kind.name in names}


def event_of(log_id: str, leaf: int, record: Record, names: Collection[str], base_url: str) -> Event | None:
    """Return the event that a record is; None if it is none of those.

    Args:
        log_id: Whose log.
        leaf: Where the record stands.
        record: The record.
        names: Which events are wanted.
        base_url: Where the service's pages are.
    """
    for kind in EVENTS:
        if kind.name in names and kind.applies(record.body):
            members = msgspec.to_builtins(record.body)
            told = {name: members[name] for name in kind.members if members.get(name) is not None}
            link = base_url.rstrip("/") + kind.link.format(id=record.record_id, **told)
            data = {
                "log_id": log_id,
                "leaf_index": leaf,
                "record_id": record.record_id,
                "enforcer_id": record.enforcer_id,
                **told,
                "link": link,
            }
            return _event(kind.name, record.time_ms, data, f"{log_id}\n{leaf}")
    return None


def silence(log_id: str, enforcer_id: str, *, leaf: int, time_ms: int, base_url: str) -> Event:
    """Return the event that nothing was heard of an enforcer since its heartbeat at a leaf."""
    data = {
        "log_id": log_id,
        "enforcer_id": enforcer_id,
        "heartbeat_leaf_index": leaf,
        "link": f"{base_url.rstrip('/')}/",
    }
    return _event(SILENT, time_ms, data, f"{log_id}\n{enforcer_id}\n{leaf}")


def _event(name: str, time_ms: int, data: Mapping[str, object], seed: str) -> Event:
    digest = hashlib.sha256(_ID + f"{name}\n{seed}".encode()).hexdigest()
    at = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(f"msg_{digest[:32]}", name, msgspec.json.encode({"type": name, "timestamp": at, "data": data}))
