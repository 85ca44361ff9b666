"""The usage port: which agent called which tool, how often and when, counted from the rows of a log.

Pure. Rows are a convenience (architecture.md, invariant 3): whoever makes evidence of a count reads the leaves that it
names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["DAY_MS", "UsageCatalog", "UsageTally"]

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTally:
    """The calls of one tool by one agent on one day, of one kind.

    Attributes:
        agent: The agent.
        server: The server.
        tool: The tool.
        day: The UTC day, counted from 1970-01-01.
        enforcement: allow, deny, ask or kill.
        mode: enforce or observe.
        calls: How many.
        first_index: Leaf index of the first of them.
        last_index: Leaf index of the last.
        first_ms: The earliest of their times, POSIX milliseconds.
        last_ms: The latest.
    """

    agent: str
    server: str
    tool: str
    day: int
    enforcement: str
    mode: str
    calls: int
    first_index: int
    last_index: int
    first_ms: int
    last_ms: int


class UsageCatalog(Protocol):
    """Counts calls of tools. Raises `StorageError` if the store failed, and may be called from any thread."""

    def usage(self, log_id: str, start: int, end: int) -> list[UsageTally]:
        """Return the calls of tools among the leaves ``[start, end)``; the work is in proportion to these leaves.

        A call of a tool is a decision on ``tools/call`` that names one.
        """
        ...
