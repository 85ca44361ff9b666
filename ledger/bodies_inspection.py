"""What records say of inspection: how much was looked through, by which rules, and what they found.

Pure. No record of its own: decisions and outcomes (`ledger.bodies`) have one as a member.

INVARIANT 6: what is named is a rule, never what it found.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from ledger.body_fields import PUBLIC, Count, Name, Names, Struct

__all__ = ["Inspection", "ToolState"]

ToolState: TypeAlias = Annotated[
    Literal["unpinned", "first_use", "pinned", "quarantined"] | None, msgspec.Meta(extra=PUBLIC)
]
"""What was known of a tool's definition; None if nobody looks after it."""


class Inspection(Struct, frozen=True):
    """What an inspection found.

    Attributes:
        extent: Whether all of it was looked through, or a part.
        inspector: Digest of the rules and thresholds that it was looked through by.
        findings: Different findings, ``kind/rule``, sorted.
        count: How often anything was found.
    """

    extent: Annotated[Literal["partial", "complete"], msgspec.Meta(extra=PUBLIC)]
    inspector: Name
    findings: Names = ()
    count: Count = 0
