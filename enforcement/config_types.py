"""What the gateway's settings are made of: names, addresses, secrets by URI, and the rules that all of them share.

Pure, but for the look-up of time zones.
"""

from __future__ import annotations

import ipaddress
import zoneinfo
from typing import Annotated, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ledger import body_fields

__all__ = [
    "CIDR",
    "URL",
    "Bytes",
    "LogId",
    "Mode",
    "Names",
    "RecordName",
    "Recording",
    "Seconds",
    "SecretURI",
    "Settings",
    "Tell",
    "Zone",
    "not_empty",
    "refuse_twice",
]


_T = TypeVar("_T")


def _as_record_name(value: str) -> str:
    """Accept what a record's public name may be, and nothing else: one definition for both."""
    try:
        return msgspec.convert(value, body_fields.Name)
    except msgspec.ValidationError:
        raise ValueError("is not a name: letters, digits and _ . : / @ + -, at most 128, no space") from None


def _as_log_id(value: str) -> str:
    try:
        return msgspec.convert(value, body_fields.LogId)
    except msgspec.ValidationError:
        raise ValueError("is not a log id: lower-case letters, digits and -, at most 63") from None


def _as_zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
        return msgspec.convert(value, body_fields.Zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, msgspec.ValidationError):
        raise ValueError("is not a time zone of the IANA database, such as Europe/Berlin") from None


def _as_network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("is not a network in CIDR notation, such as 10.0.0.0/8") from None


def _as_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not carry credentials, a query or a fragment")
    return value


def _as_secret_uri(value: str) -> str:
    scheme, _, place = value.partition(":")
    if scheme not in ("file", "env") or not place:
        raise ValueError("starts with file: or env:")
    return value


def not_empty(items: tuple[_T, ...]) -> tuple[_T, ...]:
    """Refuse an empty list; a length constraint would also count items that are wrong, and complain twice."""
    if not items:
        raise ValueError("is empty")
    return items


RecordName: TypeAlias = Annotated[str, AfterValidator(_as_record_name)]
LogId: TypeAlias = Annotated[str, AfterValidator(_as_log_id)]
Zone: TypeAlias = Annotated[str, AfterValidator(_as_zone)]
CIDR: TypeAlias = Annotated[str, AfterValidator(_as_network)]
SecretURI: TypeAlias = Annotated[str, AfterValidator(_as_secret_uri)]
URL: TypeAlias = Annotated[str, AfterValidator(_as_url)]
Names: TypeAlias = Annotated[tuple[RecordName, ...], Field(max_length=32)]
Mode: TypeAlias = Literal["enforce", "observe"]
Tell: TypeAlias = Literal["full", "reason", "nothing"]
Recording: TypeAlias = Literal["by_kind", "strict", "available"]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400 * 366)]
Bytes: TypeAlias = Annotated[int, Field(ge=1024, le=1 << 40)]


class Settings(BaseModel):
    """Common rules: unknown keys refused, values never shown in an error, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


def refuse_twice(values: list[str], message: str) -> None:
    """Refuse a list in which something stands twice.

    Raises:
        ValueError: With the message.
    """
    if len(set(values)) != len(values):
        raise ValueError(message)
