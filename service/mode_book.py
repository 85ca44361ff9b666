"""Changes of what is enforced and what only observed, as the records of a log tell them.

Pure. Nothing of it is stored by itself: it follows from the `ModeEvent` records, in log order. What an enforcer took up
stands there by the enforcer's own word; who proposed, approved, rejected or reviewed, by the service's alone.

INVARIANT: what was enforced is observed by the word of two. Whoever proposed a change approves it for nobody; two who
cannot be told apart, because their pseudonyms come from different keys, count as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeAlias

from ledger.bodies import ModeEvent
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record

__all__ = ["ModeBook", "ModeLife", "ModeState", "Step", "TakenUp"]

Step: TypeAlias = Literal["approved", "rejected", "reviewed"]
"""What somebody can do about a change that is there."""


class ModeState(StrEnum):
    """How far a change has come.

    ``PROPOSED``: nobody else has approved it. ``APPROVED``: enforcers may take it up. ``REJECTED``: it may not be.
    ``LAPSED``: its time is over and no enforcer took it up. ``IN_FORCE``: an enforcer took it up, and somebody has seen
    to it. ``UNREVIEWED``: an enforcer took it up, and nobody has said anything of it yet. ``UNAPPROVED``: an enforcer
    observes what it enforced, and nobody had approved that.
    """

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    IN_FORCE = "in_force"
    UNREVIEWED = "unreviewed"
    UNAPPROVED = "unapproved"


@dataclass(frozen=True, slots=True)
class TakenUp:
    """That an enforcer took a change up.

    Attributes:
        enforcer: Which one.
        leaf_index: Of its record.
        time_ms: When, POSIX milliseconds.
        previous: The mode before; None for a server that it had never stood before.
        approved: It had been approved by then, or did not need to be.
    """

    enforcer: str
    leaf_index: int
    time_ms: int
    previous: str | None
    approved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeLife:
    """What the log says of one change.

    Attributes:
        change_id: Its id.
        server: The server.
        tool: Which of its tools, or None.
        mode: What it is to be.
        enforcer: The only enforcer that it is for; None for all.
        first_leaf: Leaf index of its first record.
        time_ms: Of that record, POSIX milliseconds.
        expires_ms: Of a proposal, when it lapses; 0 for what an enforcer took up by itself.
        proposed_by: Pseudonym of whoever proposed it, or None.
        proposed_key: Which key made it.
        approved_by: Of whoever approved it.
        rejected_by: Of whoever rejected it.
        reviewed_by: Of whoever saw to it after it was in force.
        taken_up: By which enforcers.
    """

    change_id: str
    server: str
    tool: str | None
    mode: str
    enforcer: str | None
    first_leaf: int
    time_ms: int
    expires_ms: int = 0
    proposed_by: str | None = None
    proposed_key: str | None = None
    approved_by: str | None = None
    rejected_by: str | None = None
    reviewed_by: str | None = None
    taken_up: tuple[TakenUp, ...] = field(default=())

    def state(self, now_ms: int) -> ModeState:
        """Return how far it has come."""
        if self.reviewed_by is None and any(not one.approved for one in self.taken_up):
            return ModeState.UNAPPROVED
        if self.taken_up:
            seen = self.approved_by is not None or self.reviewed_by is not None
            return ModeState.IN_FORCE if seen else ModeState.UNREVIEWED
        if self.rejected_by is not None:
            return ModeState.REJECTED
        if now_ms >= self.expires_ms:
            return ModeState.LAPSED
        return ModeState.PROPOSED if self.approved_by is None else ModeState.APPROVED

    def waits(self, now_ms: int) -> bool:
        """Whether somebody must say something of it."""
        return self.state(now_ms) in (ModeState.PROPOSED, ModeState.UNREVIEWED, ModeState.UNAPPROVED)

    def may_be_taken_up(self, enforcer: str, now_ms: int) -> bool:
        """Whether an enforcer may take it up now; each may once."""
        return (
            self.approved_by is not None
            and self.rejected_by is None
            and now_ms < self.expires_ms
            and self.enforcer in (None, enforcer)
            and all(one.enforcer != enforcer for one in self.taken_up)
        )

    def by_another(self, actor: str, key_id: str | None, also: Collection[str] = ()) -> bool:
        """Whether somebody is not who proposed it, as far as pseudonyms can say."""
        return self.proposed_by is not None and self.proposed_key == key_id and self.proposed_by not in (actor, *also)


class ModeBook:
    """All changes, read from the log's records in order."""

    def __init__(self, service_id: str, records: Iterable[tuple[int, Record]] = ()) -> None:
        """Read records with their leaf indexes.

        Args:
            service_id: The enforcer id of the service, whose word it is what people did.
            records: In log order.
        """
        self._service_id = service_id
        self._lives: dict[str, ModeLife] = {}
        for index, record in records:
            self.take(index, record)

    @property
    def all(self) -> list[ModeLife]:
        """The changes, newest first."""
        return sorted(self._lives.values(), key=lambda life: -life.first_leaf)

    def get(self, change_id: str) -> ModeLife:
        """Return a change.

        Raises:
            NotFoundError: There is none of that id.
        """
        try:
            return self._lives[change_id]
        except KeyError:
            raise NotFoundError(f"there is no change of mode {change_id}") from None

    def take(self, index: int, record: Record) -> None:
        """Read one record; what is no step that may be taken changes nothing."""
        event = record.body
        if not isinstance(event, ModeEvent):
            return
        if event.action == "in_force":
            self._take_up(index, record, event)
        elif record.enforcer_id == self._service_id:
            self._decide(index, record, event)

    def _take_up(self, index: int, record: Record, event: ModeEvent) -> None:
        life = self._lives.get(event.change_id)
        if life is None:
            life = _life(index, record, event)
        elif (life.server, life.tool, life.mode) != (event.server, event.tool, event.mode):
            return  # another change under a known id: the first one stays what it is
        loosens = event.mode == "observe" and event.previous == "enforce"
        done = TakenUp(
            record.enforcer_id,
            index,
            record.time_ms,
            event.previous,
            # What was approved was this change for this enforcer, once, and for a while.
            approved=not loosens or life.may_be_taken_up(record.enforcer_id, record.time_ms),
        )
        self._lives[life.change_id] = replace(life, taken_up=(*life.taken_up, done))

    def _decide(self, index: int, record: Record, event: ModeEvent) -> None:
        life = self._lives.get(event.change_id)
        if event.action == "proposed":
            # An id is used once: a second proposal of the same id would change what was approved.
            if life is None:
                proposed = _life(index, record, event)
                self._lives[event.change_id] = replace(
                    proposed,
                    expires_ms=event.expires_ms,
                    proposed_by=event.actor,
                    proposed_key=record.pseudonym_key_id,
                )
            return
        if life is None or event.actor is None:
            return
        if event.action == "approved" and life.by_another(event.actor, record.pseudonym_key_id):
            self._lives[life.change_id] = replace(life, approved_by=event.actor)
        elif event.action == "rejected":
            self._lives[life.change_id] = replace(life, rejected_by=event.actor)
        elif event.action == "reviewed" and life.taken_up:
            self._lives[life.change_id] = replace(life, reviewed_by=event.actor)

    def next_step(
        self, change_id: str, verdict: str, actor: str, key_id: str | None, now_ms: int, also: Collection[str] = ()
    ) -> Step:
        """Return the action by which somebody gives his verdict on a change.

        Args:
            change_id: Which change.
            verdict: ``approved`` or ``rejected``.
            actor: His pseudonym.
            key_id: Which key made it.
            now_ms: The time.
            also: What else he is called.

        Raises:
            NotFoundError: There is no such change.
            ConflictError: Nothing is to be said of it, or it is for somebody else to say.
        """
        life = self.get(change_id)
        state = life.state(now_ms)
        if state in (ModeState.UNREVIEWED, ModeState.UNAPPROVED):
            if verdict == "rejected":
                raise ConflictError("it is in force: change the gateway's list of servers, then review it")
            return "reviewed"
        if verdict == "rejected" and state in (ModeState.PROPOSED, ModeState.APPROVED):
            return "rejected"
        if state is not ModeState.PROPOSED:
            raise ConflictError(f"the change {change_id} is {state.value}")
        if not life.by_another(actor, key_id, also):
            raise ConflictError(f"the change {change_id} is for somebody else to approve")
        return "approved"


def _life(index: int, record: Record, event: ModeEvent) -> ModeLife:
    return ModeLife(
        change_id=event.change_id,
        server=event.server,
        tool=event.tool,
        mode=event.mode,
        enforcer=event.enforcer,
        first_leaf=index,
        time_ms=record.time_ms,
    )
