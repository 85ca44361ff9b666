"""How long things are kept: the policy, its classes, what it makes of a record's age.

Pure. There is a class for each record type, with a default, apart for what is in the vault (payloads), in the log
(entry bundles) and at the anchor (locked copies). A policy counts from its record in the log on (`RetentionEvent`).

A policy as its file has it (YAML, read elsewhere)::

    vault: {decision: 90d, outcome: 30d, default: 365d}
    log: {default: 7y}
    anchor: {default: 7y}
    tenants:
      acme: {vault: {decision: 30d}}

What is absent is kept for ever. A payload's age counts from the end of the UTC day of its record's own time; a record
whose clock ran ahead counts from the day on which the ledger made that day's key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ledger.bodies import Body
from ledger.canonical import canonical_bytes
from ledger.errors import ConfigError
from ledger.subjects import DAY_MS, Bucket

__all__ = ["PLACES", "RetentionPolicy", "parse_retention"]

PLACES: Final = ("vault", "log", "anchor")
_DEFAULT: Final = "default"
_TENANTS: Final = "tenants"
_TIME: Final = re.compile(r"([1-9]\d{0,4})([dy])")
_DAYS: Final = {"d": 1, "y": 366}
"""A year has 366 days here: nothing is gone before its time."""
_MAX_DAYS: Final = 36_600
_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in Body.__args__)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how many days each class is kept; what is absent is kept for ever.

    Attributes:
        vault: Days by record type, and by ``default``.
        log: The same, for entries.
        anchor: The same, for what is anchored.
    """

    vault: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    log: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    anchor: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def classes(self) -> tuple[str, ...]:
        """The policy as names, as its record states it: ``vault:decision:90d``."""
        return tuple(
            f"{place}:{kind}:{days}d" for place in PLACES for kind, days in sorted(getattr(self, place).items())
        )

    @property
    def digest(self) -> str:
        """SHA-256 over its classes in canonical JSON, in hexadecimal."""
        return hashlib.sha256(canonical_bytes(list(self.classes))).hexdigest()

    def days(self, place: str, record_type: str) -> int | None:
        """Return for how many days a type is kept at a place, or None: for ever."""
        classes: Mapping[str, int] = getattr(self, place)
        return classes.get(record_type, classes.get(_DEFAULT))

    def expired(self, bucket: Bucket, *, made_ms: int, now_ms: int) -> bool:
        """Whether a bucket's payloads are past their time.

        Args:
            bucket: Type and day.
            made_ms: When its key was made, POSIX milliseconds.
            now_ms: The present time.
        """
        days = self.days("vault", bucket.record_type)
        if days is None:
            return False
        end_ms = min(bucket.end_ms, (made_ms // DAY_MS + 1) * DAY_MS)
        return now_ms >= end_ms + days * DAY_MS


def _days(place: str, kind: object, told: object) -> int:
    where = f"{place}.{kind}"
    if kind != _DEFAULT and kind not in _TYPES:
        raise ConfigError(f"{where}: there is no such record type")
    spelt = _TIME.fullmatch(told) if isinstance(told, str) else None
    if spelt is None:
        raise ConfigError(f"{where}: a time is written as 90d or 7y")
    days = int(spelt[1]) * _DAYS[spelt[2]]
    if days > _MAX_DAYS:
        raise ConfigError(f"{where}: at most {_MAX_DAYS} days; what is absent is kept for ever")
    return days


def _places(value: object, where: str) -> dict[str, dict[str, int]]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: the places are {', '.join(PLACES)}")
    unknown = sorted(str(name) for name in value if name not in PLACES)
    if unknown:
        raise ConfigError(f"{where}: there is no place {', '.join(unknown)}")
    found = {}
    for place, classes in value.items():
        if not isinstance(classes, Mapping):
            raise ConfigError(f"{where}: {place} has record types with their times")
        found[place] = {str(kind): _days(place, kind, told) for kind, told in classes.items()}
    return found


def parse_retention(value: object, tenant: str) -> RetentionPolicy:
    """Read a policy as it applies to one tenant.

    Args:
        value: The file's content.
        tenant: Whose.

    Raises:
        ConfigError: It is no policy; the message names the place.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"a retention policy has the members {', '.join((*PLACES, _TENANTS))}")
    tenants = value.get(_TENANTS, {})
    if not isinstance(tenants, Mapping):
        raise ConfigError(f"{_TENANTS}: tenants by name")
    common = _places({name: item for name, item in value.items() if name != _TENANTS}, "retention")
    # Every tenant's part is read: a fault in another's is found before that one's service starts.
    special = {str(name): _places(item, f"{_TENANTS}.{name}") for name, item in tenants.items()}
    own = special.get(tenant, {})
    merged = {place: MappingProxyType({**common.get(place, {}), **own.get(place, {})}) for place in PLACES}
    return RetentionPolicy(**merged)
