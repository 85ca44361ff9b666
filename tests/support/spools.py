"""Spools, records for them, and a ledger in memory that takes or refuses what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enforcement.batches import Batch, Item, QueuedRecord, RecordIdentity
from enforcement.ports import Posted, PostResult
from enforcement.spool import Spool
from enforcement.state import StateDatabase
from ledger.bodies import Decision, Heartbeat, Outcome
from ledger.clock import Clock, SimulatedClock
from ledger.ports import Draft, commit
from ledger.records import decode_entry
from tests.support.gateway_keys import NOON_MS, SIGNING_KEY, SPOOL_KEY

IDENTITY = RecordIdentity(
    log_id="acme",
    tenant="acme",
    environment="test",
    enforcer_id="gateway-1",
    simulated=True,
    pseudonym_key_id="ab" * 8,
)
SESSION = "0a" * 16
SALT = bytes(16)


def open_spool(directory: Path, *, clock: Clock | None = None, **options: Any) -> tuple[StateDatabase, Spool]:
    """Open a spool; the caller closes the state file."""
    state = StateDatabase(directory)
    members: dict[str, Any] = {
        "identity": IDENTITY,
        "signing_key": SIGNING_KEY,
        "spool_key": SPOOL_KEY,
        "clock": clock or SimulatedClock(NOON_MS),
        "max_bytes": 1 << 20,
        **options,
    }
    try:
        return state, Spool(state, **members)
    except BaseException:
        state.close()
        raise


def decision(payload: bytes = b"{}", **members: Any) -> Draft:
    commitment, opening = commit("message", SALT, payload)
    body: dict[str, Any] = {
        "agent": "Bot",
        "server": "finance",
        "decision": "PERMIT",
        "enforcement": "allow",
        "mode": "enforce",
        "reason": "policy",
        "evaluation_us": 0,
        "session": SESSION,
        "message": commitment,
        **members,
    }
    return Draft(body=Decision(**body), openings=(opening,))


def denial(**members: Any) -> Draft:
    return decision(**{"decision": "DENY", "enforcement": "deny", **members})


def outcome(decision_id: str, status: Any = "completed") -> Draft:
    return Draft(body=Outcome(decision_id=decision_id, status=status, session=SESSION))


def heartbeat() -> Draft:
    return Draft(body=Heartbeat(kind="periodic", version="1", spool_depth=0))


def record_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


def batch(*drafts: Draft, first: int = 0, **members: Any) -> Batch:
    """A batch whose records are numbered from ``first``."""
    return Batch(items=tuple(Item(record_id(first + at), draft) for at, draft in enumerate(drafts)), **members)


@dataclass
class MemoryLedger:
    """Takes everything, unless it is told what to answer."""

    answer: Callable[[Sequence[QueuedRecord]], PostResult | None] = lambda _: None
    taken: list[QueuedRecord] = field(default_factory=list)
    posts: list[list[int]] = field(default_factory=list)

    async def post(self, records: Sequence[QueuedRecord]) -> PostResult:
        self.posts.append([record.seq for record in records])
        result = self.answer(records)
        if result is not None:
            return result
        self.taken.extend(records)
        return Posted(tuple(range(len(records))))

    def bodies(self) -> list[object]:
        return [decode_entry(record.entry).body for record in self.taken]
