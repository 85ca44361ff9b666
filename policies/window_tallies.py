"""What one behaviour window has counted: totals by subject (whose calls) and slot (when).

Pure. What slots mean is `policies.window_history`'s part; here they are numbers that grow with time. The sum of the
slots that count is kept along, so that to ask for it costs what has ceased to count since, and not what there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["MAX_ELEMENTS", "MAX_SUBJECTS", "OTHERS", "Share", "Tally", "element_key", "owner_of"]

MAX_SUBJECTS: Final = 100_000
"""Subjects of one window whose calls are told apart."""

OTHERS: Final = "*"
"""The subject of the calls that are not told apart; no key of a subject looks like it."""

MAX_ELEMENTS: Final = 1000
"""Distinct tools of one subject that are told apart; calls of further ones count one each."""

_BETWEEN: Final = "/"
"""Between a subject and one of the distinct things that its calls named; in no key."""

_MAX_SLOTS: Final = 3000
"""Slots of a subject, beyond which it is looked at once which of them can be forgotten."""


def element_key(subject: str, element: str) -> str:
    """Return under which key a subject's calls of one thing are counted, where distinct things are told apart."""
    return f"{subject}{_BETWEEN}{element}"


def owner_of(key: str) -> str:
    """Return the subject of a key, whether that tells things apart or not."""
    return key.partition(_BETWEEN)[0]


@dataclass(frozen=True, slots=True)
class Share:
    """What one call adds to one window.

    Attributes:
        digest: What the window measures.
        subject: Whose calls; `OTHERS` if they are not told apart.
        slot: When.
        amount: How much.
        forget_ms: From when on it can be forgotten, POSIX milliseconds; None if that is when its session is over.
    """

    digest: str
    subject: str
    slot: int
    amount: int
    forget_ms: int | None

    def undone(self) -> Share:
        """Return what takes this back."""
        return replace(self, amount=-self.amount)


class _Slots:
    """The totals of one subject.

    Attributes:
        totals: Total of each slot, and the time from which on it can be forgotten.
    """

    __slots__ = ("_first", "_sum", "totals")

    def __init__(self) -> None:
        self.totals: dict[int, tuple[int, int | None]] = {}
        # INVARIANT: _sum is the sum of the totals of slots from _first on.
        self._first = 0
        self._sum = 0

    def add(self, slot: int, amount: int, forget_ms: int | None) -> None:
        """Add to a total; one that comes to nothing is as if it had never been."""
        total = self.totals.get(slot, (0, None))[0] + amount
        if total:
            self.totals[slot] = (total, forget_ms)
        else:
            self.totals.pop(slot, None)
        if slot >= self._first:
            self._sum += amount

    def sum_from(self, first: int) -> int:
        """Return the sum of the totals of slots from ``first`` on."""
        if 0 <= first - self._first <= len(self.totals):
            self._sum -= sum(self.totals.get(slot, (0, None))[0] for slot in range(self._first, first))
        else:  # the first time, after a silence, or the clock was set back
            self._sum = sum(total for slot, (total, _) in self.totals.items() if slot >= first)
        self._first = first
        return self._sum

    def sweep(self, now_ms: int) -> None:
        """Drop the slots that can be forgotten."""
        over = [slot for slot, (_, forget_ms) in self.totals.items() if forget_ms is not None and forget_ms <= now_ms]
        for slot in over:
            total, _ = self.totals.pop(slot)
            if slot >= self._first:
                self._sum -= total

    @property
    def of_session(self) -> bool:
        """Whether they are forgotten with a session."""
        return any(forget_ms is None for _, forget_ms in self.totals.values())


class Tally:
    """The totals of one window."""

    def __init__(self) -> None:
        """Begin with no call."""
        self._subjects: dict[str, _Slots] = {}
        # The keys of each subject whose things are told apart.
        self._elements: dict[str, set[str]] = {}

    def place(self, subject: str) -> str:
        """Return under which subject a call is counted."""
        if subject in self._subjects:
            return subject
        if len(self._subjects) >= MAX_SUBJECTS:
            return OTHERS
        owner = owner_of(subject)
        return element_key(owner, OTHERS) if len(self._elements.get(owner, ())) >= MAX_ELEMENTS else subject

    def add(self, share: Share, now_ms: int) -> None:
        """Add a share.

        Args:
            share: What a call adds.
            now_ms: The time, POSIX milliseconds.
        """
        slots = self._subjects.setdefault(share.subject, _Slots())
        if _BETWEEN in share.subject:
            self._elements.setdefault(owner_of(share.subject), set()).add(share.subject)
        slots.add(share.slot, share.amount, share.forget_ms)
        if len(slots.totals) > _MAX_SLOTS:
            slots.sweep(now_ms)
        self._drop_if_empty(share.subject)

    def total(self, subject: str, first: int) -> int:
        """Return the sum of a subject's slots, from the first that counts."""
        slots = self._subjects.get(subject)
        return 0 if slots is None else slots.sum_from(first)

    def slot_total(self, subject: str, slot: int) -> int:
        """Return what a subject has in one slot."""
        slots = self._subjects.get(subject)
        return 0 if slots is None else slots.totals.get(slot, (0, None))[0]

    def shares(self, digest: str) -> Iterator[Share]:
        """Return all that there is, as shares of a window."""
        for subject, slots in self._subjects.items():
            for slot, (total, forget_ms) in slots.totals.items():
                yield Share(digest, subject, slot, total, forget_ms)

    def named(self, subject: str, first: int) -> tuple[set[str], int]:
        """Return the keys of what a subject's calls named, and how many calls named something beyond.

        Args:
            subject: The subject.
            first: The first slot that counts.
        """
        beyond = element_key(subject, OTHERS)
        keys = self._elements.get(subject, set()) - {beyond}
        return {key for key in keys if self.total(key, first) > 0}, max(0, self.total(beyond, first))

    def named_at_most(self, subject: str, first: int) -> int:
        """Return a number that `named` does not exceed, in a time that does not grow with what was named."""
        beyond = self.total(element_key(subject, OTHERS), first)
        return len(self._elements.get(subject, ())) + max(0, beyond)

    def sweep(self, now_ms: int) -> None:
        """Drop all slots that can be forgotten."""
        for subject, slots in list(self._subjects.items()):
            slots.sweep(now_ms)
            self._drop_if_empty(subject)

    def session_subjects(self) -> list[str]:
        """Return the subjects that are forgotten with their session."""
        found = {owner_of(subject) for subject, slots in self._subjects.items() if slots.of_session}
        return sorted(found - {OTHERS})

    def end_session(self, subject: str) -> None:
        """Drop a subject whose session is over."""
        for key in (subject, *self._elements.get(subject, ())):
            slots = self._subjects.get(key)
            if slots is not None and slots.of_session:
                del self._subjects[key]
        self._elements.pop(subject, None)

    def size(self) -> tuple[int, int]:
        """Return how many subjects there are, and how many slots."""
        return len(self._subjects), sum(len(slots.totals) for slots in self._subjects.values())

    def _drop_if_empty(self, subject: str) -> None:
        if self._subjects[subject].totals:
            return
        del self._subjects[subject]
        owner = owner_of(subject)
        if owner in self._elements:
            self._elements[owner].discard(subject)
            if not self._elements[owner]:
                del self._elements[owner]
