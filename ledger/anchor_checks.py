"""Judging what an anchor keeps: every copy re-read, with its lock, and compared with what it must be.

Pure: the copies come from an `ledger.anchoring.InspectableAnchor`, the roots from whoever can derive them. A copy is as
it must be if

* it is a checkpoint of the size that its name says, signed by whom the trust policy demands;
* its root is the one that the log has at that size;
* it is locked in COMPLIANCE mode (a file: read-only), not for less than its writer asked;
* nothing was put over it, and nothing hides it;
* the copy that its writer knew before it is still there.

Copies that a version before this one made name neither a date nor a predecessor; that is told, and is no drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ledger.anchoring import KeptCopy, Protection
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.merkle import RootHash
from ledger.trust import TrustPolicy

__all__ = ["AnchorCheck", "Drift", "check_copies", "check_protection"]

_PROTECTED: Final = ("COMPLIANCE", "read-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A copy that is not as it must be.

    Attributes:
        kind: ``missing``, ``bytes``, ``root``, ``unlocked``, ``shortened``, ``overwritten`` or ``hidden``.
        place: What it is about: ``checkpoint 300``, or the path of a tile.
        reason: One sentence.
        location: Where it is, or empty if it is nowhere.
    """

    kind: str
    place: str
    reason: str
    location: str = ""


@dataclass(slots=True, kw_only=True)
class AnchorCheck:
    """What was looked at and what was found.

    Attributes:
        copies: How many copies were read.
        newest: The largest size that is kept, or None.
        earliest_end_ms: When the first of the locks ends, or None if nothing is locked until a date.
        drift: Everything that is not as it must be.
        notices: What a reader must know though it is no drift.
    """

    copies: int = 0
    newest: int | None = None
    earliest_end_ms: int | None = None
    drift: list[Drift] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check_copies(
    copies: Iterable[KeptCopy],
    policy: TrustPolicy,
    *,
    now_ms: int,
    above: int = -1,
    root_at: Callable[[int], RootHash] | None = None,
) -> AnchorCheck:
    """Judge copies.

    Args:
        copies: In the order of sizes.
        policy: Whose signatures count; from outside the anchor.
        now_ms: For locks that have ended.
        above: The copies are those beyond this size; predecessors up to it are not asked for.
        root_at: Returns the log's root at a size; a `LedgerError` of it says that it cannot.

    Returns:
        The result; an unreadable copy ends the check with the anchor's own error instead.
    """
    check = AnchorCheck()
    seen: set[int] = set()
    silent = ended = 0
    for copy in copies:
        check.copies += 1
        check.newest = copy.size
        seen.add(copy.size)
        check.drift += _bytes(copy, policy, root_at)
        kept, until = copy.protection, copy.protection.retain_until_ms
        check.drift += check_protection(kept, _place(copy.size), copy.location)
        check.drift += _predecessor(copy, seen, above)
        silent += kept.mode == "COMPLIANCE" and kept.promised_until_ms is None
        if until is not None:
            ended += until <= now_ms
            check.earliest_end_ms = until if check.earliest_end_ms is None else min(check.earliest_end_ms, until)
    if silent:
        check.notices.append(f"{silent} copies do not say for how long they were locked: a date cannot be compared")
    if ended:
        check.notices.append(f"the locks of {ended} copies have ended, as was decided when they were made")
    return check


def _bytes(copy: KeptCopy, policy: TrustPolicy, root_at: Callable[[int], RootHash] | None) -> Iterator[Drift]:
    try:
        head = policy.verify(copy.data).head
    except (MalformedError, VerificationError) as error:
        yield _drift("bytes", copy, f"what was written there first is not a checkpoint of this log: {error}")
        return
    if head.size != copy.size:
        yield _drift("bytes", copy, f"it is the checkpoint of size {head.size}")
        return
    if root_at is None:
        return
    try:
        root = root_at(copy.size)
    except LedgerError as error:
        yield _drift("root", copy, f"the log has no root at this size: {error}")
        return
    if root != head.root:
        yield _drift("root", copy, f"the log's root at this size is {root.hex()}, the copy says {head.root.hex()}")


def check_protection(kept: Protection, place: str, location: str = "") -> list[Drift]:
    """Judge what protects an object that is to be locked.

    Args:
        kept: What protects it.
        place: How findings call it.
        location: Where it is.
    """
    found = []
    if kept.mode not in _PROTECTED:
        found.append(("unlocked", f"it is not locked ({kept.mode or 'no mode'})"))
    promised, until = kept.promised_until_ms, kept.retain_until_ms
    if promised is not None and until is not None and until < promised:
        found.append(("shortened", f"its lock ends {(promised - until) // 1000} s before the date it was made for"))
    if kept.later_versions:
        found.append(("overwritten", f"{kept.later_versions} later versions lie over it; the first is still there"))
    if kept.hidden:
        found.append(("hidden", "a delete marker was put over it; the first version is still there"))
    return [Drift(kind=kind, place=place, reason=reason, location=location) for kind, reason in found]


def _predecessor(copy: KeptCopy, seen: set[int], above: int) -> Iterator[Drift]:
    previous = copy.previous_size
    if previous is not None and previous > above and previous not in seen:
        reason = f"the copy of size {copy.size} was made after it, and it is not there"
        yield Drift(kind="missing", place=_place(previous), reason=reason)


def _drift(kind: str, copy: KeptCopy, reason: str) -> Drift:
    return Drift(kind=kind, place=_place(copy.size), reason=reason, location=copy.location)


def _place(size: int) -> str:
    return f"checkpoint {size}"
