"""The revisions of the Model Context Protocol: which there are, and in what they differ for a gateway.

Pure. Which of them pass is the operator's choice (`enforcement.config_protocol`).

* The *stateful* ones begin with ``initialize``, have sessions named by ``Mcp-Session-Id``, streams that a client opens
  with GET, and requests of the server's own inside of streams.
* The *stateless* one carries its revision in every message, and has none of these.

Source: Model Context Protocol, the changelogs of each revision; 2025-06-18 "Protocol Version Header".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

__all__ = [
    "ASSUMED_REVISION",
    "BATCHING",
    "DEFAULT_REVISIONS",
    "STATEFUL",
    "STATELESS",
    "Direction",
    "Era",
    "Revision",
    "era_of",
]

Revision: TypeAlias = Literal["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]
Era: TypeAlias = Literal["stateful", "stateless"]
Direction: TypeAlias = Literal["client", "server"]
"""Who sent a message."""

STATEFUL: Final = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
STATELESS: Final = frozenset({"2026-07-28"})

BATCHING: Final = frozenset({"2025-03-26"})
"""Where a client may post several messages as one. 2024-11-05 knew batches too, but not this transport."""

ASSUMED_REVISION: Final = "2025-03-26"
"""Revision of a message that names none and belongs to no session that has agreed on one: the header came later."""

DEFAULT_REVISIONS: Final[Sequence[Revision]] = ("2025-11-25", "2026-07-28")
"""What passes unless the operator says otherwise."""


def era_of(revision: str) -> Era:
    """Return the era of a revision; one that is not known counts as stateful, and is refused for what it is."""
    return "stateless" if revision in STATELESS else "stateful"
