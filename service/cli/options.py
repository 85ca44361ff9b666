"""Options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime

import click

__all__ = ["milliseconds"]


def milliseconds(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read an ISO 8601 time as POSIX milliseconds; without an offset it is UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("an ISO 8601 time, such as 2026-11-18T10:00Z", param=parameter) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
