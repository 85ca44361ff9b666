"""Judging what an anchor keeps: every copy re-read, with its lock, and compared with what it must be.

Pure: the copies come from an `ledger.anchoring.InspectableAnchor`; whether the log's published tree begins with that of
a copy, and which keys the log itself had, is told by whoever can read the log (`ledger.published_tree`). A copy is as
it must be if

* it is a checkpoint of the size that its name says, signed by whom the trust policy demands, or by the keys that the
  log itself had for that size (`ledger.own_keys`): a policy of today does not list what was replaced since;
* its tree is the one with which the published tree begins;
* it is locked in COMPLIANCE mode (a file: read-only), not for less than its writer asked;
* nothing was put over it, and nothing hides it;
* the copy that its writer knew before it is still there.

Copies that a version before this one made name neither a date nor a predecessor; that is told, and is no drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from ledger.anchoring import KeptCopy, Protection
from ledger.errors import MalformedError, NotFoundError, VerificationError
from ledger.keyring import Keyring
from ledger.own_keys import recognise
from ledger.proofs import TreeHead
from ledger.trust import TrustPolicy

__all__ = ["AnchorCheck", "Drift", "PublishedTree", "check_copies", "check_protection"]

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


class PublishedTree(Protocol):
    """What a log shows, for comparing what is anchored with it."""

    def require_begins_with(self, head: TreeHead) -> None:
        """Check that the published tree begins with another.

        Raises:
            VerificationError: It does not, or is smaller.
            NotFoundError: A tile is missing.
            MalformedError: A tile is damaged.
            DependencyError: The log could not be read.
        """
        ...

    def keyring(self) -> Keyring:
        """Return what the published tree says of its keys.

        Raises:
            VerificationError: What the log's bundles say is not in its tree.
            DependencyError: The log could not be read.
        """
        ...


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
    tree: PublishedTree | None = None,
) -> AnchorCheck:
    """Judge copies.

    Args:
        copies: In the order of sizes.
        policy: Whose signatures count; from outside the anchor.
        now_ms: For locks that have ended.
        above: The copies are those beyond this size; predecessors up to it are not asked for.
        tree: The log, if that is to be compared.

    Returns:
        The result.

    Raises:
        DependencyError: A copy, or the log, could not be read.
    """
    check = AnchorCheck()
    seen: set[int] = set()
    silent = ended = former = 0
    for copy in copies:
        check.copies += 1
        check.newest = copy.size
        seen.add(copy.size)
        found, met = _bytes(copy, policy, tree)
        check.drift += found
        former += met is not None and met is not policy
        kept, until = copy.protection, copy.protection.retain_until_ms
        check.drift += check_protection(kept, _place(copy.size), copy.location)
        check.drift += _predecessor(copy, seen, above)
        silent += kept.mode == "COMPLIANCE" and kept.promised_until_ms is None
        if until is not None:
            ended += until <= now_ms
            check.earliest_end_ms = until if check.earliest_end_ms is None else min(check.earliest_end_ms, until)
    if former:
        told = f"{former} copies do not meet the trust policy of today"
        check.notices.append(f"{told}; they are signed by the keys that the log itself had at their sizes")
    if silent:
        check.notices.append(f"{silent} copies do not say for how long they were locked: a date cannot be compared")
    if ended:
        check.notices.append(f"the locks of {ended} copies have ended, as was decided when they were made")
    return check


def _bytes(copy: KeptCopy, policy: TrustPolicy, tree: PublishedTree | None) -> tuple[list[Drift], TrustPolicy | None]:
    """Return what is wrong with a copy's bytes, and the policy that they meet."""
    try:
        if tree is None:
            verified, met = policy.verify(copy.data), policy
        else:
            # INVARIANT: read by the log's own keys alone where the tree is compared with the log's.
            verified, met = recognise(copy.data, policy, tree.keyring)
    except (MalformedError, VerificationError) as error:
        return [_drift("bytes", copy, f"what was written there first is not a checkpoint of this log: {error}")], None
    head = verified.head
    if head.size != copy.size:
        return [_drift("bytes", copy, f"it is the checkpoint of size {head.size}")], met
    if tree is None:
        return [], met
    try:
        tree.require_begins_with(head)
    except (MalformedError, NotFoundError, VerificationError) as error:
        told = f"the log shows another tree than that of root {head.root.hex()}, which the copy says: {error}"
        return [_drift("root", copy, told)], met
    return [], met


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
