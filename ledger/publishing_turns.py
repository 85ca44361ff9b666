"""Taking turns: which of several processes publishes a log, and what the others do meanwhile.

Every process runs the same turn, again and again:

1. follow: take up what another has published, verified like one's own.
2. If something is sequenced that no checkpoint covers, and the lease can be had: publish, ask the witnesses that have
   not cosigned yet, anchor, and tell the others how anchoring stands.

The lease spares N processes from doing one work N times. It decides nothing: a process may be paused between any two
steps, for longer than any lease, and go on as if it still led. INVARIANT 2 is kept by the swap in the log store alone
(`ledger.publisher`); whoever loses it has shown nothing, takes up what won, and follows.

A process that cannot publish (its clock is behind, its disk is full) gives the lease up, so that another may try. What
a leader published, and has not shown and anchored when its lease ends, another shows and anchors, also where nothing
new is sequenced.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import Final

import msgspec

from ledger.errors import StateError, SwapLostError
from ledger.ports import Lease, LeaseState
from ledger.publisher import AnchorStatus, Published, Publisher
from ledger.witnessing import WitnessStatus

__all__ = ["LEASE_SECONDS", "PUBLISHER_LEASE", "PublishingTurns", "SoleLease", "Turn"]

PUBLISHER_LEASE: Final = "publisher"
"""Name of the lease under which a log is published."""

LEASE_SECONDS: Final = 5.0
"""How long the others wait for a leader of whom nothing is heard. Longer than a publication takes, in health."""


class Turn(Enum):
    """What became of a turn."""

    IDLE = auto()
    """Nothing was published, and nothing had to be."""
    CHANGED = auto()
    """The present checkpoint is another than before."""
    REFUSED = auto()
    """Something is to be published, and another process has the lease."""


class SoleLease:
    """`ledger.ports.Lease` for a log that a single process publishes: always held, told to nobody."""

    def take(self, report: str | None = None) -> bool:  # noqa: ARG002  # there is nobody to tell
        """See `Lease.take`."""
        return True

    def look(self) -> LeaseState:
        """See `Lease.look`."""
        return LeaseState(live=True, report="")

    def give_up(self) -> None:
        """See `Lease.give_up`."""


class PublishingTurns:
    """One process's part in publishing a log. One task owns it; it is not safe for concurrent use."""

    def __init__(self, publisher: Publisher, lease: Lease) -> None:
        """Publish with ``publisher`` while ``lease`` can be had; call `load` before anything else."""
        self._publisher = publisher
        self._lease = lease
        self._leads = False
        self._told: AnchorStatus | None = None
        self._another_leads = False

    @property
    def published(self) -> Published | None:
        """The present checkpoint, whoever published it."""
        return self._publisher.published

    @property
    def leads(self) -> bool:
        """Whether this process had the lease when it last asked, and has followed nobody since."""
        return self._leads

    @property
    def anchor_status(self) -> AnchorStatus:
        """How far the anchor has come: as seen here, or as told by whoever published last."""
        if self._publisher.followed and self._told is not None:
            return self._told
        return self._publisher.anchor_status

    @property
    def anchor_failing(self) -> bool:
        """Whether it is this process that has to anchor, and its last attempt failed."""
        return not self._publisher.followed and self._publisher.anchor_status.failure is not None

    @property
    def witness_status(self) -> WitnessStatus | None:
        """How far witnessing has come here, or None without a witness policy."""
        return self._publisher.witness_status

    @property
    def awaits(self) -> bool:
        """Whether it is this process that has to go on asking the anchor or the witnesses, which failed."""
        return self.anchor_failing or not (self._publisher.followed or self._publisher.witnessed)

    def load(self) -> None:
        """Take up the log as the store has it; see `Publisher.load`."""
        self._publisher.load()

    def turn(self, *, due: bool) -> Turn:
        """Take one turn.

        Args:
            due: Whether a checkpoint may be published now; if not, others are only followed.

        Raises:
            VerificationError: What is published does not verify.
            ConflictError: There are two trees of this log.
            StateError: The clock is behind, or the anchor has not answered.
            DependencyError: A store or key failed: `load` before the next turn.
        """
        before = self._publisher.published
        if self._publisher.follow():
            self._leads = False
        refused = due and self._publisher.waiting() and not self._lead()
        if not self._publisher.followed and not self._publisher.witnessed:
            self._publisher.witness_newest()
            if self._leads and not self._publisher.witnessed:
                # What is not shown yet is not left undone: it is being worked on.
                self._leads = self._lease.take()
        if not self._publisher.followed and not self._publisher.anchored:
            self._anchor()
        if self._publisher.followed:
            self._listen()
            self._finish_for_another()
        if self._publisher.published != before:
            return Turn.CHANGED
        return Turn.REFUSED if refused else Turn.IDLE

    def _lead(self) -> bool:
        """Publish if the lease can be had; return whether it could."""
        self._leads = self._lease.take()
        if not self._leads:
            return False
        if self._publisher.followed:
            self._publisher.load()
        try:
            self._publisher.publish()
        except SwapLostError:
            self._leads = False
            # Whoever loses to nobody has not lost: the next turn must begin with what the store really holds.
            if not self._publisher.follow():
                raise StateError("a swap was lost, and nothing else is published") from None
        return True

    def _anchor(self) -> None:
        self._publisher.anchor_newest()
        if self._leads:
            # Holds the lease for its full time again, at one write for each checkpoint.
            self._leads = self._lease.take(msgspec.json.encode(self._publisher.anchor_status).decode())

    def _listen(self) -> None:
        state = self._lease.look()
        self._another_leads = state.live
        with suppress(msgspec.DecodeError):
            # A report of another version of this software, or none yet, tells nothing.
            self._told = msgspec.json.decode(state.report, type=AnchorStatus)

    def _finish_for_another(self) -> None:
        """Show and anchor what was published by a leader that nobody hears of any more."""
        shown = self._publisher.published
        receipt = None if self._told is None else self._told.receipt
        anchored = shown is None or (receipt is not None and receipt.size >= shown.head.size)
        if self._another_leads or (anchored and not self._publisher.withheld):
            return
        self._leads = self._lease.take()
        if self._leads:
            self._publisher.load()
            self._anchor()

    def give_up(self) -> None:
        """Let another lead at once; a failure is left to the lease's end."""
        self._leads = False
        # Whatever it raises, the lease ends by itself; who gives it up has worse to tell, and must go on to do so.
        with suppress(Exception):
            self._lease.give_up()
