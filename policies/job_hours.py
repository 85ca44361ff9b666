"""The hours of a job: at which times of which days somebody's work is done, in a zone.

Pure. Part of a job profile (`policies.job_profiles`)::

    {"zone": "Europe/Zurich", "spans": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "07:30", "to": "18:00"},
                                        {"days": ["sun"], "from": "22:00", "to": "04:00"}]}

A span begins with its first minute and ends before its last; one that ends before it begins goes on past midnight, and
belongs to the days on which it begins. ``24:00`` is the end of a day. Without ``days`` it is of all of them.

INVARIANT: what hours say of a call follows from its request alone, so that no replay depends on a table of zones. The
enforcement point writes the local time and its zone into the request. Where that zone is another than the declared
one, nobody can say that the call lies within these hours, and so it lies outside.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec

from ledger.errors import PolicySyntaxError
from policies.model import Time

__all__ = ["DAYS", "Hours", "Span", "check_hours"]

_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[_Day, ...]] = get_args(_Day)
"""The days, as a span names them: the first is weekday 1 of a request."""

_MAX_SPANS: Final = 32
_Clock = Annotated[str, msgspec.Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z")]
_Zone = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}\Z")]


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


class Span(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of some days.

    Attributes:
        begins: The first minute, ``HH:MM``; ``from`` in a file.
        ends: The first minute that is not of it; ``to`` in a file.
        days: On which days it begins; empty for all.
    """

    begins: _Clock = msgspec.field(name="from")
    ends: _Clock = msgspec.field(name="to")
    days: Annotated[tuple[_Day, ...], msgspec.Meta(max_length=7)] = ()

    def holds(self, time: Time) -> bool:
        """Tell whether a local time lies within it."""
        minute, first, last = time.hour * 60 + time.minute, _minute(self.begins), _minute(self.ends)
        if first < last:
            return self._is_on(time.weekday) and first <= minute < last
        before = (time.weekday - 2) % 7 + 1
        return (self._is_on(time.weekday) and minute >= first) or (self._is_on(before) and minute < last)

    def _is_on(self, weekday: int) -> bool:
        return not self.days or DAYS[weekday - 1] in self.days


class Hours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a job is done.

    Attributes:
        zone: IANA zone that the spans are in.
        spans: When.
    """

    zone: _Zone
    spans: Annotated[tuple[Span, ...], msgspec.Meta(min_length=1, max_length=_MAX_SPANS)]

    def hold(self, time: Time) -> bool:
        """Tell whether a call was made within these hours; of a time in another zone nobody can say it."""
        return time.zone == self.zone and any(span.holds(time) for span in self.spans)


def check_hours(hours: Hours, window: str) -> None:
    """Refuse hours that can be read in two ways.

    Args:
        hours: The hours.
        window: Name of the window that they are of.

    Raises:
        PolicySyntaxError: A span has no length, begins at the end of a day, or names a day twice.
    """
    for span in hours.spans:
        told = f"{span.begins} to {span.ends}"
        if span.begins == span.ends:
            raise PolicySyntaxError(f"the hours of the window {window} have a span of no length: {told}")
        if span.begins == "24:00":
            raise PolicySyntaxError(f"the hours of the window {window} have a span that begins at the end of a day")
        if len(set(span.days)) != len(span.days):
            raise PolicySyntaxError(f"the hours of the window {window} name a day twice: {told}")
