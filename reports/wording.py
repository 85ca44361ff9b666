"""How figures, times and digests are written, and what the words of the report mean.

Pure. Month names are ours and the time zones are those of the `tzdata` package: neither the locale nor the zone files
of a machine change a byte of a report. Leaves and sequence numbers are names of things and have no thousands set apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from ledger.errors import EvidenceError

__all__ = [
    "DIGEST_DIGITS",
    "EN_DASH",
    "EVIDENCE_CLASSES",
    "GLOSSARY",
    "Times",
    "names",
    "number",
    "percent",
    "quantity",
    "ranges",
    "share",
    "short",
    "target",
]

DIGEST_DIGITS: Final = 12
"""Hexadecimal digits of a digest that are printed outside the appendix."""

EN_DASH: Final = "\u2013"

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

_DIGEST: Final = re.compile(r"[0-9a-f]{32,}")

_DIGEST_TARGETS: Final = frozenset({"bundle", "session", "token"})
"""Kinds of what an access was about whose id is a digest or pseudonym; other ids are names or UUIDs."""

_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")

EVIDENCE_CLASSES: Final = {
    "E1": "decision records",
    "E2": "population proof",
    "E3": "block list",
    "E4": "policy change log",
    "E5": "approval records",
    "E6": "re-performance results",
    "E7": "tool inventory",
    "E8": "access matrix",
    "E9": "detection records",
    "E10": "pipeline health",
    "E11": "access to the evidence",
    "E12": "retention state",
    "E13": "time evidence",
    "E14": "minimisation record",
}
"""Names of the evidence classes."""

GLOSSARY: Final = (
    ("Agent", "A program that acts on a model's output and calls tools over the Model Context Protocol (MCP)."),
    (
        "Anchor",
        "A copy of a checkpoint kept apart from the log; it proves something only where the operator cannot change it.",
    ),
    ("Bundle", "A set of policies, named by the SHA-256 digest of its contents: its revision."),
    ("Checkpoint", "The log's size and root hash at one time, signed. It fixes every record before it."),
    ("Decision", "A policy's answer to one call: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE."),
    (
        "Enforcement",
        "What the gateway did with the call: allow, deny, ask (a person must agree), kill (end the session).",
    ),
    ("Enforcer", "A gateway that decides, enforces and writes signed, numbered records."),
    ("Exception", "A tested item that failed."),
    ("Leaf", "A record's place in the log, counted from zero."),
    ("Observe mode", "Decisions are made and recorded but not enforced; they support no control."),
    ("Outcome", "The record of what became of a permitted call."),
    ("Period", "From its start up to, but not including, its end."),
    ("Population", "Every decision whose time lies in the period; nothing is sampled."),
    ("Proof", "The hashes that lead from one record to a signed root (a .tlog-proof file of the pack)."),
    ("Pseudonym", "A keyed digest in place of a name: the same user, session or address, without saying who."),
    ("Re-performance", "Evaluating a recorded request again under the policy version of that time."),
    ("Root", "The hash at the top of the tree over all records: changing any record changes it."),
    ("Strength", "Direct: the log itself is the evidence. Supports: the customer must add evidence of their own."),
    ("Witness", "A third party that checked that the log only grew, and signed the checkpoint too."),
)
"""The words of the report, for a reader who meets them here first."""


def number(value: int) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{value:,}"


def quantity(value: int, one: str, many: str = "") -> str:
    """Return ``1 record``, ``2 records``; ``many`` where an s does not make the plural."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """Return ``12 of 309``: no number of the report stands without what it is a part of."""
    return f"{part:,} of {whole:,}"


def percent(part: int, whole: int) -> str:
    """Return a percentage with one decimal, rounded half up in whole numbers; a dash if the whole is 0."""
    if whole == 0:
        return EN_DASH
    tenths = (2_000 * part + whole) // (2 * whole)
    return f"{tenths // 10}.{tenths % 10}\u00a0%"


def short(digest: str) -> str:
    """Return the first `DIGEST_DIGITS` digits of a digest or pseudonym and an ellipsis; a shorter key id is whole.

    Only for values that are declared as digests or pseudonyms: an agent chooses the names of what it calls, and two
    names that differ must not be printed alike.
    """
    return f"{digest[:DIGEST_DIGITS]}…" if _DIGEST.fullmatch(digest) else digest


def target(text: str) -> str:
    """Return what an access was about, its id shortened if it is a digest or pseudonym."""
    kind, space, name = text.partition(" ")
    return f"{kind}{space}{short(name)}" if kind in _DIGEST_TARGETS else text


def names(values: Sequence[str], most: int) -> str:
    """Return names after each other; beyond ``most`` of them, how many more there are."""
    shown = list(values[:most])
    if len(values) > most:
        shown.append(f"and {len(values) - most:,} more")
    return ", ".join(shown) or "none"


def ranges(pairs: Sequence[tuple[int, int]], most: int) -> str:
    """Return ``17-19, 400`` for ranges with both ends in them; beyond ``most`` ranges, how many more there are."""
    if not pairs:
        return "none"
    shown = [str(first) if first == last else f"{first}{EN_DASH}{last}" for first, last in pairs[:most]]
    if len(pairs) > most:
        shown.append(f"and {quantity(len(pairs) - most, 'more range')}")
    return ", ".join(shown)


@cache
def _zone(name: str) -> ZoneInfo:
    # The name becomes a path below: nothing but a zone's name may stand in it.
    if not _ZONE_NAME.fullmatch(name):
        raise EvidenceError("the time zone of the report is not an IANA name")
    try:
        with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as stream:
            return ZoneInfo.from_file(stream, key=name)
    except (OSError, ValueError) as error:
        raise EvidenceError("the time zone of the report is unknown") from error


@dataclass(frozen=True, slots=True)
class Times:
    """Writes POSIX milliseconds as times of one zone and of UTC.

    A record may claim a time that no calendar has: it is written as the number that it is. One such record must not
    keep a whole pack from being made.

    Attributes:
        zone: IANA name.
    """

    zone: str

    def __post_init__(self) -> None:
        """Refuse a zone that `tzdata` does not have.

        Raises:
            EvidenceError: There is no such zone.
        """
        _zone(self.zone)

    def _local(self, time_ms: int) -> datetime | None:
        return _at(time_ms, _zone(self.zone))

    def stamp(self, time_ms: int) -> str:
        """Return ``2025-11-19 03:00:12`` in the zone."""
        local = self._local(time_ms)
        return _number(time_ms) if local is None else _clock(local)

    def minute(self, time_ms: int) -> str:
        """Return ``03:00`` in the zone."""
        local = self._local(time_ms)
        return _number(time_ms) if local is None else f"{local:%H:%M}"

    def utc(self, time_ms: int) -> str:
        """Return ``2025-11-19 02:00:12 UTC``."""
        moment = _at(time_ms, UTC)
        return _number(time_ms) if moment is None else f"{_clock(moment)} UTC"

    def both(self, time_ms: int) -> str:
        """Return the time in the zone, and in UTC unless that is the zone."""
        if self.zone in {"UTC", "Etc/UTC"} or self._local(time_ms) is None:
            return self.utc(time_ms)
        return f"{self.stamp(time_ms)} {self.zone} ({self.utc(time_ms)})"

    def date(self, time_ms: int) -> str:
        """Return ``19 November 2025`` in the zone, with the time unless it is midnight."""
        local = self._local(time_ms)
        if local is None:
            return _number(time_ms)
        day = f"{local.day} {_MONTHS[local.month - 1]} {local.year}"
        return day if local.hour == local.minute == local.second == 0 else f"{day}, {local:%H:%M}"


def _at(time_ms: int, zone: tzinfo) -> datetime | None:
    """Return a moment in a zone, or None outside of the years 1 to 9999."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).astimezone(zone)
    except OverflowError:
        return None


def _number(time_ms: int) -> str:
    return f"{time_ms} ms after 1970"


def _clock(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds")[:19]
