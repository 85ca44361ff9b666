"""How times, ages, sizes and kinds are written on the pages. Pure; times are UTC, in POSIX milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = [
    "DIGEST_DIGITS",
    "END_WORDS",
    "ENFORCEMENT_WORDS",
    "OUTCOME_WORDS",
    "PACK_WORDS",
    "WEEKDAYS",
    "age",
    "iso",
    "moment",
    "number",
    "quantity",
    "short",
    "size",
]

DIGEST_DIGITS: Final = 12
"""Hexadecimal digits of a digest where it is not given in full."""

ENFORCEMENT_WORDS: Final = {"allow": "Allowed", "deny": "Denied", "ask": "Held", "kill": "Killed"}

OUTCOME_WORDS: Final = {
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "not_forwarded": "Not forwarded",
    "unknown": "Unknown: found at restart",
}

END_WORDS: Final = {
    "client": "its client said so",
    "idle": "it was silent for too long",
    "killed": "a decision ended it",
    "shutdown": "its enforcer stopped",
}
"""Why a session ended."""

PACK_WORDS: Final = {"queued": "Waiting", "running": "Being made", "done": "Ready", "failed": "Failed"}

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_SOON_SECONDS: Final = 10
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_KIB: Final = 1024


def _utc(time_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return None


def moment(time_ms: int) -> str:
    """Return a time to the second; a record may claim one outside the calendar."""
    found = _utc(time_ms)
    return f"{time_ms} ms after 1970" if found is None else f"{found:%Y-%m-%d %H:%M:%S}"


def iso(time_ms: int) -> str:
    """Return a time for a ``datetime`` attribute, empty if it lies outside the calendar."""
    found = _utc(time_ms)
    return "" if found is None else found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(milliseconds: int) -> str:
    """Return an age in words, coarse on purpose: a page that is fetched again has changed only if something did."""
    seconds = max(0, milliseconds) // 1000
    if seconds < _SOON_SECONDS:
        return "under 10 s"
    if seconds < _MINUTE:
        return f"{seconds // _SOON_SECONDS * _SOON_SECONDS} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR} h"
    return f"{number(seconds // _DAY)} days"


def number(value: int) -> str:
    """Return a count with its thousands set apart."""
    return f"{value:,}"


def quantity(value: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{number(value)} {noun}" if value == 1 else f"{number(value)} {noun}s"


def size(size_bytes: int) -> str:
    """Return a size in bytes or KiB."""
    return f"{number(size_bytes)} B" if size_bytes < _KIB else f"{size_bytes / _KIB:,.1f} KiB"


def short(digest: str) -> str:
    """Return the first digits of a digest."""
    return digest[:DIGEST_DIGITS]
