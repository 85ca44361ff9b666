"""Succession: a log whose keys are lost ends, and another begins that commits to its last checkpoint.

Pure. A log that cannot sign any more cannot say so. Its operator opens a new one, with a new origin and new keys, whose
opening holds a `Succession`: origin, size and root of the old log, and the SHA-256 of its whole last checkpoint. The
record stands right behind the key records that open the new log, and the registrar signs it; a log has one
predecessor at most (`ledger.keyring` refuses every other place).

What that proves, and what not: from then on the old log cannot be shown with another history of that size, nor with a
longer one, without contradicting the new log. That both logs are one operator's, the new log alone says; who trusts the
new log's keys believes it. Two new logs that claim the same predecessor contradict one another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from ledger.bodies import KeyEvent, Succession
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConfigError, RollbackError, SplitViewError, StateError, TrustPolicyError
from ledger.records import Record
from ledger.trust import TrustPolicy, VerifiedCheckpoint

__all__ = ["commit_to", "commitment_of", "find_succession", "refuse_two_successors", "verify_predecessor"]

_MAX_OPENING_RECORDS: Final = 1_000


def commit_to(checkpoint: bytes, trust: TrustPolicy, *, reason: str) -> Succession:
    """Return the record by which a new log commits to the last checkpoint of an old one.

    Args:
        checkpoint: The old log's last checkpoint.
        trust: Whose signatures counted for the old log.
        reason: Why, as a name.

    Raises:
        MalformedError: Not a checkpoint.
        VerificationError: It does not meet the policy.
        ConfigError: The old log was empty: there is nothing to succeed to.
    """
    verified = trust.verify(checkpoint)
    if verified.head.size == 0:
        raise ConfigError("the old log was empty: a new log has nothing to commit to")
    return commitment_of(checkpoint, reason=reason)


def commitment_of(checkpoint: bytes, *, reason: str) -> Succession:
    """Return the same of a checkpoint that was verified before.

    Raises:
        MalformedError: Not a checkpoint.
    """
    claim = parse_unverified_checkpoint(checkpoint).claim
    return Succession(
        origin=claim.origin,
        size=claim.size,
        root=claim.root.hex(),
        checkpoint_sha256=hashlib.sha256(checkpoint).hexdigest(),
        reason=reason,
    )


def find_succession(record_at: Callable[[int], Record], size: int) -> tuple[int, Succession] | None:
    """Return which log another says it succeeds, with the leaf that says so, or None.

    Args:
        record_at: Returns the log's record at a leaf.
        size: How many there are.
    """
    for leaf in range(min(size, _MAX_OPENING_RECORDS)):
        body = record_at(leaf).body
        if isinstance(body, Succession):
            return leaf, body
        if not isinstance(body, KeyEvent):
            return None
    return None


def verify_predecessor(succession: Succession, known: VerifiedCheckpoint) -> None:
    """Check a checkpoint of the old log against what the new log commits to.

    Raises:
        TrustPolicyError: It is of another log.
        SplitViewError: It has the size of the last one, and another root.
        RollbackError: It is of more leaves: the new log commits to less than was shown.
        StateError: It is of fewer leaves: whether it is of the same history, a copy of the old log must show.
    """
    if known.checkpoint.origin != succession.origin:
        raise TrustPolicyError(f"this log succeeds {succession.origin}, not {known.checkpoint.origin}")
    size = known.head.size
    if size > succession.size:
        raise RollbackError(
            f"{succession.origin} was signed with {size} leaves, and its successor commits to {succession.size} of them"
        )
    if size < succession.size:
        raise StateError(f"consistency of {size} with {succession.size} leaves of {succession.origin} needs that log")
    if known.head.root.hex() != succession.root:
        raise SplitViewError(
            f"two roots for size {size} of {succession.origin}: {known.head.root.hex()} was signed, its successor "
            f"commits to {succession.root}"
        )


def refuse_two_successors(one: tuple[str, Succession], other: tuple[str, Succession]) -> None:
    """Check that two logs do not both claim to succeed one, given their origins and what they say.

    Raises:
        SplitViewError: They do: at most one of them tells the truth, and neither can be believed without more.
    """
    (origin, succession), (other_origin, other_succession) = one, other
    if origin != other_origin and succession.origin == other_succession.origin:
        raise SplitViewError(
            f"{origin} and {other_origin} both claim to succeed {succession.origin}, "
            f"at {succession.size} and {other_succession.size} leaves"
        )
    if origin == other_origin and succession != other_succession:
        raise SplitViewError(f"{origin} was shown with two predecessors")
