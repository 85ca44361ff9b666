"""Retirements under way: no record of an enforcer is sequenced behind the end of its keys.

A record that stood behind the retirement of the key that signed it would verify for nobody, and with it neither would
the log. Admission looks at keys in a thread, while the retirement may be on its way: whoever admits takes a ticket
first, and shows it where the records enter the queue. The queue is first in, first out, so that what was in it before
the retirement began stands before it in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.problems import ForbiddenError

__all__ = ["Retirements"]


class Retirements:
    """Which enforcers are being retired, and how often each was. Belongs to the event loop."""

    def __init__(self) -> None:
        """Begin with none."""
        self._under_way: set[str] = set()
        self._begun: Counter[str] = Counter()

    def ticket(self, enforcer_id: str) -> int:
        """Return what `check` wants to see when the records that are now to be admitted enter the queue.

        Raises:
            ForbiddenError: The enforcer is being retired.
        """
        if enforcer_id in self._under_way:
            raise ForbiddenError(f"the enforcer {enforcer_id} is being retired")
        return self._begun[enforcer_id]

    def check(self, enforcer_id: str, ticket: int) -> None:
        """Let records pass that were admitted under a ticket; nothing may be awaited between this and the queue.

        Raises:
            ForbiddenError: The enforcer was retired since, or is being retired.
        """
        if self.ticket(enforcer_id) != ticket:
            raise ForbiddenError(f"the enforcer {enforcer_id} was retired")

    @contextmanager
    def retiring(self, enforcer_id: str) -> Iterator[None]:
        """Admit nothing of an enforcer while its retirement is recorded.

        If that fails, whether it was recorded is unknown: nothing more of the enforcer is admitted until its retirement
        is repeated, or the service reads its keys anew when it starts.
        """
        self._under_way.add(enforcer_id)
        self._begun[enforcer_id] += 1
        yield
        self._under_way.discard(enforcer_id)
