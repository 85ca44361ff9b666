"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import click

__all__ = ["DECISION_ID", "REVISION", "SESSION_ID", "Spelt", "log_id_option", "milliseconds", "utc"]

log_id_option = click.option(
    "--log-id", default=None, help="Which log, where TALLYSTICK_LOGS names several; or TALLYSTICK_LOG_ID."
)
"""For commands that work on an installation; `service.settings.load_settings` takes it."""


def utc(time_ms: int) -> str:
    """Return POSIX milliseconds as a UTC time, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


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
        if self._pattern.fullmatch(value) is None:
            self.fail(f"it is written as {self._told}", param, ctx)
        return value


DECISION_ID: Final = Spelt(
    "decision id", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "`find` shows it, 01234567-89ab-7cde-8f01-23456789abcd"
)
SESSION_ID: Final = Spelt("session id", "[0-9a-f]{32}", "`find` shows it, 32 hexadecimal digits in lower case")
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
