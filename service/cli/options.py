"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import click

__all__ = ["DECISION_ID", "REVISION", "SESSION_ID", "Hexadecimal", "milliseconds", "utc"]


def utc(time_ms: int) -> str:
    """Return POSIX milliseconds as a UTC time, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


class Hexadecimal(click.ParamType[str]):
    """So many hexadecimal digits, in lower case, as ids and digests are written."""

    name = "hexadecimal"

    def __init__(self, digits: int) -> None:
        """Take exactly ``digits`` digits."""
        self._pattern = re.compile(f"[0-9a-f]{{{digits}}}")
        self._told = f"{digits} hexadecimal digits, in lower case"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse everything else."""
        if self._pattern.fullmatch(value) is None:
            self.fail(f"it has {self._told}", param, ctx)
        return value


DECISION_ID: Final = Hexadecimal(32)
SESSION_ID: Final = Hexadecimal(32)
REVISION: Final = Hexadecimal(64)
"""A bundle's digest, by which it is known."""


def milliseconds(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read an ISO 8601 time as POSIX milliseconds; without an offset it is UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("an ISO 8601 time, such as 2026-11-18T10:00Z", param=parameter) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
