"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from ledger.errors import ConfigError
from ledger.notes import KeyId
from ledger.trust import KeyValidity, TrustPolicy

__all__ = [
    "APPROVAL_ID",
    "BUNDLE_DIRECTORY",
    "CONTAINMENT_ID",
    "DECISION_ID",
    "DRIFT_ID",
    "HOLD_ID",
    "JOB_ID",
    "REVISION",
    "SESSION_ID",
    "Spelt",
    "compromised_option",
    "duration",
    "log_id_option",
    "milliseconds",
    "utc",
    "without_compromised",
]

log_id_option = click.option(
    "--log-id", default=None, help="Which log, where TALLYSTICK_LOGS names several; or TALLYSTICK_LOG_ID."
)
"""For commands that work on an installation; `service.settings.load_settings` takes it."""


BUNDLE_DIRECTORY = click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
"""A bundle's directory."""


_COMPROMISED: Final = re.compile(r"([0-9a-f]{8}):(0|[1-9][0-9]{0,15})")


def _compromised(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[KeyId, int]:
    found: dict[KeyId, int] = {}
    for value in values:
        if (spelt := _COMPROMISED.fullmatch(value)) is None:
            raise click.BadParameter("KEY_ID:SIZE, 8 hexadecimal digits in lower case and the last size that counts")
        key_id, size = KeyId(bytes.fromhex(spelt[1])), int(spelt[2])
        found[key_id] = min(size, found.get(key_id, size))
    return found


compromised_option = click.option(
    "--compromised",
    multiple=True,
    metavar="KEY_ID:SIZE",
    callback=_compromised,
    help="A log key of --trust that counts for trees up to this size alone; may be repeated.",
)
"""For what somebody was told of a key, where the log does not say it or is not at hand."""


def without_compromised(policy: TrustPolicy | None, told: Mapping[KeyId, int]) -> TrustPolicy | None:
    """Return a policy whose compromised keys count up to the sizes told.

    Raises:
        ConfigError: There is no policy, or it does not list such a key: nobody should believe that it was looked at.
    """
    if not told:
        return policy
    if policy is None:
        raise ConfigError("--compromised needs --trust: it narrows what that trusts")
    listed = {key.key_id for key in policy.logs}
    if unknown := [key_id.hex() for key_id in told if key_id not in listed]:
        raise ConfigError(f"--compromised: the trust policy lists no log key {', '.join(unknown)}")
    return policy.narrowed({key_id: KeyValidity(last_size=size) for key_id, size in told.items()})


def utc(time_ms: int) -> str:
    """Return POSIX milliseconds as a UTC time, to the second; a hold may name one that no calendar has."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{time_ms} ms after 1970"


class Spelt(click.ParamType[str]):
    """An id or a digest, which is written in one way only."""

    def __init__(self, name: str, pattern: str, told: str) -> None:
        """Take what fits a regular expression.

        Args:
            name: What it is called in help texts.
            pattern: The expression.
            told: The form in words.
        """
        self.name = name
        self._pattern = re.compile(pattern)
        self._told = told

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse everything else."""
        if not self.fits(value):
            self.fail(f"it is written as {self._told}", param, ctx)
        return value

    def fits(self, value: str) -> bool:
        """Return whether a text is written so."""
        return self._pattern.fullmatch(value) is not None


_UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DECISION_ID: Final = Spelt("decision id", _UUID, "`find` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
HOLD_ID: Final = Spelt("hold id", _UUID, "`hold list` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
JOB_ID: Final = Spelt("job id", _UUID, "`evidence list` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
SESSION_ID: Final = Spelt("session id", "[0-9a-f]{32}", "`find` shows it, 32 hexadecimal digits in lower case")
APPROVAL_ID: Final = Spelt("approval id", _UUID, "`approvals list` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
DRIFT_ID: Final = Spelt("departure id", _UUID, "`drift list` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
CONTAINMENT_ID: Final = Spelt("containment id", _UUID, "`contain list` shows it, 01234567-89ab-7cde-8f01-23456789abcd")
REVISION: Final = Spelt("revision", "[0-9a-f]{64}", "64 hexadecimal digits in lower case")


def milliseconds(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read an ISO 8601 time as POSIX milliseconds; without an offset it is UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("an ISO 8601 time, such as 2026-11-18T10:00Z", param=parameter) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


_UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")


def duration(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read a duration such as ``90m`` as milliseconds."""
    if value is None:
        return None
    if (spelt := _DURATION.fullmatch(value)) is None:
        raise click.BadParameter("a number and s, m, h or d, such as 24h", param=parameter)
    return int(spelt[1]) * _UNITS[spelt[2]]
