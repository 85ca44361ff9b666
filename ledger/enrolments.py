"""Enrolments: from when to when an enforcer could write to a log, by the log's own key records.

Pure. An enrolment begins where a key record introduces an enforcer that has no key which counts, and ends where its
last such key is retired or declared compromised. An id that is introduced again afterwards has a second enrolment.

A log that names an enforcer expects records of it. Without enrolments one that never delivered any would be unseen.
Whether a key record is genuine is `ledger.keyring`'s part: only those that it took are fed in here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from ledger.bodies import KeyEvent
from ledger.records import Record

__all__ = ["Enrolment", "Enrolments"]


@dataclass(slots=True, kw_only=True)
class Enrolment:
    """One stretch in which an enforcer could write.

    Attributes:
        enforcer_id: Who.
        leaf: Leaf of its introduction.
        introduced_ms: Time of that record, POSIX milliseconds.
        retired_leaf: Leaf of the record that ended its last key, or None.
        retired_ms: Time of that record, or None.
        epochs: Epochs in which it wrote.
    """

    enforcer_id: str
    leaf: int
    introduced_ms: int
    retired_leaf: int | None = None
    retired_ms: int | None = None
    epochs: set[str] = field(default_factory=set)


class Enrolments:
    """The enrolments of a log; fed with its records in order, after its keyring. One task owns it."""

    def __init__(self) -> None:
        """Begin before leaf 0."""
        self._of: dict[str, list[Enrolment]] = {}
        self._keys: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, leaf: int, record: Record) -> None:
        """Take in the record of the next leaf."""
        if isinstance(record.body, KeyEvent) and record.body.purpose == "enforcer":
            self._take(leaf, record.time_ms, record.body)
        self.wrote(record.enforcer_id, record.epoch)

    def wrote(self, enforcer_id: str, epoch: str) -> None:
        """Take in that an enforcer wrote in an epoch: all that a record which is no key record says here."""
        of_writer = self._of.get(enforcer_id)
        if of_writer:
            of_writer[-1].epochs.add(epoch)

    def _take(self, leaf: int, time_ms: int, body: KeyEvent) -> None:
        if body.action == "created":
            if not self._keys[body.subject]:
                enrolment = Enrolment(enforcer_id=body.subject, leaf=leaf, introduced_ms=time_ms)
                self._of.setdefault(body.subject, []).append(enrolment)
            self._keys[body.subject].add(body.key_id)
            return
        # A key is ended by its id, whoever the record says holds it: as the keyring does.
        for subject, key_ids in self._keys.items():
            if body.key_id in key_ids:
                key_ids.discard(body.key_id)
                if not key_ids:
                    self._of[subject][-1].retired_leaf = leaf
                    self._of[subject][-1].retired_ms = time_ms

    def all(self) -> list[Enrolment]:
        """Return every enrolment, those of one enforcer in order."""
        return [enrolment for of_one in self._of.values() for enrolment in of_one]
