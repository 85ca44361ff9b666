"""What is known of an anchor beyond its port: whether its locks were tried, and what it keeps under each size.

An anchor is only worth what its bucket refuses. `ProbedAnchor` stands in front of one that can be tried and lets
nothing through until it was: a bucket that gives way where it must not stops the start, unless the operator named that
very weakness and accepted it. A bucket that does not answer at the start is lag, as at any other time: records are
taken, and nothing is signed until it has answered (docs/adr/0010).

How a bucket is tried is in `ledger.anchors.probe`; what an anchor keeps is judged in `ledger.anchor_checks`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from ledger.errors import AnchorError, ConfigError
from ledger.ports import Anchor, AnchorReceipt

__all__ = [
    "ATTEMPTS",
    "HoldableStore",
    "InspectableAnchor",
    "InspectableTiles",
    "KeptCopy",
    "ProbeAttempt",
    "ProbeReport",
    "ProbedAnchor",
    "Protection",
    "TriableAnchor",
]

ATTEMPTS: Final = {
    "delete": "deleting a locked version",
    "delete-bypass": "deleting it with the header that lifts governance locks",
    "hide": "deleting without a version must only hide it",
    "overwrite": "writing over it must only add a version",
    "shorten": "setting an earlier date",
    "downgrade": "changing COMPLIANCE to GOVERNANCE",
    "downgrade-bypass": "the same with the header that lifts governance locks",
    "remove": "setting an empty retention",
    "legal-hold": "setting a legal hold, lifting it, and deleting then",
    "versioning": "the bucket must keep versions",
}
"""What is tried of a bucket, by the name under which a weakness can be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAttempt:
    """Something that was tried, and what came of it.

    Attributes:
        name: One of `ATTEMPTS`.
        held: The locked version stood there afterwards as before, bytes, mode and date.
        answer: What the server said: the code of its refusal, or ``accepted``.
    """

    name: str
    held: bool
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What a bucket refuses.

    Attributes:
        place: Which bucket.
        probed_ms: When it was tried, POSIX milliseconds.
        lock_seconds: The shortest lock that it took; the throw-away object stays that long.
        skew_ms: How far the server's clock is ahead of ours, or None if it does not tell.
        attempts: Everything that was tried.
    """

    place: str
    probed_ms: int
    lock_seconds: int
    skew_ms: int | None
    attempts: tuple[ProbeAttempt, ...]

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """The names of what the bucket did not refuse."""
        return tuple(attempt.name for attempt in self.attempts if not attempt.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What keeps an object as it was written first.

    Attributes:
        mode: ``COMPLIANCE``, ``GOVERNANCE``, ``read-only`` for a file, or None if nothing protects it.
        retain_until_ms: Until when it is locked, or None.
        promised_until_ms: Until when its writer locked it, or None if nothing says.
        later_versions: How many versions were put over it.
        hidden: A delete marker hides it.
    """

    mode: str | None
    retain_until_ms: int | None = None
    promised_until_ms: int | None = None
    later_versions: int = 0
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCopy:
    """What an anchor keeps under one size.

    Attributes:
        size: Tree size that the name says.
        location: Where it is.
        data: The bytes that were there first.
        protection: What keeps them so.
        previous_size: Size of the copy that its writer knew before it, -1 if it was the first, or None if nothing says.
    """

    size: int
    location: str
    data: bytes
    protection: Protection
    previous_size: int | None = None


class InspectableAnchor(Protocol):
    """An anchor whose copies can be looked at with everything that protects them."""

    def copies(self, log_id: str, *, above: int = -1) -> Iterator[KeptCopy]:
        """Yield what is kept, in the order of sizes.

        Args:
            log_id: Which log.
            above: Only larger sizes.

        Raises:
            AnchorError: The anchor failed.
        """
        ...


@runtime_checkable
class HoldableStore(Protocol):
    """An anchor or tile store whose locked copies can be held beyond their retention."""

    def hold(self, log_id: str, *, on: bool, anew: bool = False) -> int:
        """Put a legal hold over everything of a log that is locked, or end all holds; returns how many it changed.

        Idempotent; what is written later is held by the next application.

        Args:
            log_id: Which log.
            on: Whether it is to be held.
            anew: Somebody else may have ended holds since the last application: nothing of it is taken for granted.

        Raises:
            DependencyError: The store failed; some may have been changed.
        """
        ...


@runtime_checkable
class InspectableTiles(Protocol):
    """A tile store whose full tiles and bundles are locked."""

    def protection(self, log_id: str, path: str) -> Protection:
        """Return what keeps a tile or bundle.

        Raises:
            NotFoundError: There is no such file.
            StorageError: The store failed.
        """
        ...


@runtime_checkable
class TriableAnchor(Anchor, HoldableStore, Protocol):
    """An anchor that can be tried."""

    def probe(self) -> ProbeReport:
        """Try everything that must be refused, on something made for it.

        Raises:
            ConfigError: It cannot lock at all.
            AnchorError: It could not be tried.
        """
        ...


class ProbedAnchor:
    """`ledger.ports.Anchor` that was tried before it is used; safe for any thread."""

    def __init__(self, anchor: TriableAnchor, *, accepted: Sequence[str] = ()) -> None:
        """Stand in front of an anchor.

        Args:
            anchor: The anchor.
            accepted: Weaknesses that the operator accepts, by their names in `ATTEMPTS`.

        Raises:
            ConfigError: There is no such weakness.
        """
        unknown = sorted(set(accepted) - ATTEMPTS.keys())
        if unknown:
            raise ConfigError(f"nothing is tried of an anchor under the name {', '.join(unknown)}")
        self._anchor = anchor
        self._accepted = frozenset(accepted)
        self._lock = threading.Lock()
        self._report: ProbeReport | None = None

    @property
    def report(self) -> ProbeReport | None:
        """What was found, or None as long as the bucket could not be tried."""
        return self._report

    def start(self) -> None:
        """Try the bucket; one that does not answer is tried again at the next use.

        Raises:
            ConfigError: The bucket does not refuse what it must, and nobody accepted that.
        """
        try:
            self._probe()
        except AnchorError:
            return
        if refusal := self._refusal():
            raise ConfigError(refusal)

    def _probe(self) -> None:
        with self._lock:
            if self._report is None:
                self._report = self._anchor.probe()

    def _refusal(self) -> str | None:
        report = self._report
        weak = [name for name in report.weaknesses if name not in self._accepted] if report else []
        if not weak:
            return None
        told = "; ".join(f"{name} ({ATTEMPTS[name]})" for name in weak)
        return f"the anchor's bucket does not hold what it locks: {told}"

    def _tried(self) -> TriableAnchor:
        # INVARIANT: no checkpoint counts as anchored in a bucket that was not tried, or that gave way unaccepted.
        try:
            self._probe()
        except ConfigError as error:
            raise AnchorError(str(error)) from error
        if refusal := self._refusal():
            raise AnchorError(refusal)
        return self._anchor

    def put(self, log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        """See `Anchor.put`."""
        return self._tried().put(log_id, size, checkpoint)

    def get(self, log_id: str, size: int) -> bytes:
        """See `Anchor.get`."""
        return self._tried().get(log_id, size)

    def sizes(self, log_id: str, *, above: int = -1) -> list[int]:
        """See `Anchor.sizes`."""
        return self._tried().sizes(log_id, above=above)

    def hold(self, log_id: str, *, on: bool, anew: bool = False) -> int:
        """See `HoldableStore.hold`."""
        return self._tried().hold(log_id, on=on, anew=anew)
