"""How far a clock is from the service's: what each answer that says the service's time shows, to within its round trip.

Pure. The service wrote down its time somewhere between the moment at which the question left and the one at which the
answer was here. So its clock is off by the middle of the two, give or take half of what lies between them, and the
quickest answer says most. Of the latest answers the one with the smallest bound counts, until one contradicts it: then
a clock was set, and what was measured before says nothing.

Source: the clock filter of NTP (RFC 5905 section 10), without its statistics: here milliseconds are enough.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["ClockOffset", "Offset"]

_KEPT: Final = 16
_KEPT_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Offset:
    """By how much a clock is ahead of the service's.

    Attributes:
        offset_ms: Positive if it is ahead.
        bound_ms: The true offset lies no further than this from it.
    """

    offset_ms: int
    bound_ms: int


@dataclass(frozen=True, slots=True)
class _Sample:
    at_ms: int
    offset: Offset

    def contradicts(self, other: _Sample) -> bool:
        apart = abs(self.offset.offset_ms - other.offset.offset_ms)
        return apart > self.offset.bound_ms + other.offset.bound_ms


class ClockOffset:
    """Measures the offset of one clock. Owned by one event loop."""

    def __init__(self) -> None:
        """Begin without a measurement."""
        self._samples: deque[_Sample] = deque(maxlen=_KEPT)

    def sample(self, *, sent_ms: int, service_ms: int, received_ms: int) -> None:
        """Take in one question and its answer.

        Args:
            sent_ms: When the question left, by the clock that is measured.
            service_ms: What the service's clock said when it answered.
            received_ms: When the answer was here. Before ``sent_ms`` if the clock was set back: that measures nothing.
        """
        if received_ms < sent_ms:
            self._samples.clear()
            return
        # Both clocks tell whole milliseconds: one more, for what is behind the point.
        bound_ms = (received_ms - sent_ms + 1) // 2 + 1
        taken = _Sample(received_ms, Offset((sent_ms + received_ms) // 2 - service_ms, bound_ms))
        if any(taken.contradicts(known) for known in self._samples):
            self._samples.clear()
        self._samples.append(taken)

    def measured(self, now_ms: int) -> Offset | None:
        """Return the best measurement of the last ten minutes, or None if there is none.

        Args:
            now_ms: The present time by the clock that is measured.
        """
        fresh = [sample.offset for sample in self._samples if 0 <= now_ms - sample.at_ms <= _KEPT_MS]
        return min(reversed(fresh), key=lambda offset: offset.bound_ms, default=None)
