"""The integrity bar: how far sequencing, publishing and anchoring have come, and what is wrong, in words.

It says what the service knows of itself. It verifies nothing: that is the auditor's part, elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.ports import AnchorReceipt
from ledger.proofs import TreeHead
from service.health import late_after_seconds
from service.web.wording import age, moment, number, quantity
from service.wiring.services import Services

__all__ = ["Integrity", "look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """What the bar shows.

    Attributes:
        now_ms: When we looked, by the service's clock.
        sequenced: Records that have an index.
        waiting: Records that wait for one.
        head: Size and root of the last checkpoint, or None before the first.
        published_ms: When it was signed.
        anchor: Receipt of the newest independent copy, or None.
        troubles: What is wrong, one sentence each; empty if nothing is.
    """

    now_ms: int
    sequenced: int
    waiting: int
    head: TreeHead | None
    published_ms: int | None
    anchor: AnchorReceipt | None
    troubles: tuple[str, ...]

    @property
    def behind(self) -> int:
        """Records that no checkpoint covers yet."""
        return self.sequenced - (self.head.size if self.head else 0)

    @property
    def anchor_behind(self) -> int:
        """Leaves of the last checkpoint that the newest anchored copy does not cover."""
        return (self.head.size if self.head else 0) - (self.anchor.size if self.anchor else 0)


def look(services: Services) -> Integrity:
    """Look at the log's state; for any thread.

    Raises:
        StorageError: The store failed.
    """
    # The order matters: what is published was sequenced before, so that nothing is ever behind by less than 0.
    published = services.publishing.published
    anchored = services.publishing.anchor_status
    sequenced = services.sequenced_size()
    now_ms = services.clock.now_ms()
    state = Integrity(
        now_ms=now_ms,
        sequenced=sequenced,
        waiting=services.sequencer.waiting_records,
        head=published.head if published else None,
        published_ms=published.timestamp_seconds * 1000 if published else None,
        anchor=anchored.receipt,
        troubles=(),
    )
    late_ms = int(late_after_seconds(services.settings) * 1000)
    troubles = [
        *_sequencing(healthy=services.sequencer.healthy),
        *_publishing(services.publishing.failure, services.publishing.trouble),
        *_checkpoint(state, late_ms),
        *_anchor(state, anchored.failure, late_ms),
    ]
    return Integrity(
        now_ms=state.now_ms,
        sequenced=state.sequenced,
        waiting=state.waiting,
        head=state.head,
        published_ms=state.published_ms,
        anchor=state.anchor,
        troubles=tuple(troubles),
    )


def _sequencing(*, healthy: bool) -> list[str]:
    return [] if healthy else ["The last transaction of the sequencer failed; nothing is acknowledged until one holds."]


def _publishing(failure: Exception | None, trouble: str | None) -> list[str]:
    if failure is not None:
        return [f"Publishing has ended for good; a person must look: {failure}."]
    return [] if trouble is None else [f"The last attempt to publish failed and is being repeated: {trouble}."]


def _checkpoint(state: Integrity, late_ms: int) -> list[str]:
    if state.published_ms is None:
        return ["No checkpoint has been published yet."]
    old_ms = state.now_ms - state.published_ms
    if state.behind > 0 and old_ms > late_ms:
        return [f"The last checkpoint is {age(old_ms)} old, and {quantity(state.behind, 'record')} wait for the next."]
    if old_ms < -late_ms:
        return [f"The clock is {age(-old_ms)} behind the last checkpoint."]
    return []


def _anchor(state: Integrity, failure: str | None, late_ms: int) -> list[str]:
    if failure is not None:
        return [f"The last attempt to anchor failed and is being repeated: {failure}."]
    if state.anchor is None:
        return [] if state.published_ms is None else ["No checkpoint has been anchored yet."]
    found = []
    if state.anchor_behind > 0 and state.now_ms - state.anchor.anchored_ms > late_ms:
        found.append(f"The newest anchored copy is {number(state.anchor_behind)} leaves behind the last checkpoint.")
    if (until := state.anchor.retain_until_ms) is not None and until <= state.now_ms:
        found.append(f"The lock of the newest anchored copy ended at {moment(until)} UTC.")
    return found
