"""What an enforcement point needs from the service: a place for its records, the bundle in force, what is stopped.

`enforcement.ledger_client` has both over HTTP; tests have them in memory. What can happen is a value, not an exception,
because every one of these cases is part of normal operation and each caller must handle each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from enforcement.batches import QueuedRecord

__all__ = [
    "ActiveBundle",
    "ApprovalChannel",
    "BundleAnswer",
    "BundleSource",
    "CanarySource",
    "LedgerClient",
    "NewRestrictions",
    "NewToolVerdicts",
    "NewVerdicts",
    "NoBundle",
    "PostResult",
    "Posted",
    "Refused",
    "RestrictionAnswer",
    "RestrictionChannel",
    "SameRestrictions",
    "SameToolVerdicts",
    "SameVerdicts",
    "ToolVerdictAnswer",
    "ToolVerdictChannel",
    "Unavailable",
    "UnchangedBundle",
    "VerdictAnswer",
]


@dataclass(frozen=True, slots=True)
class Posted:
    """The ledger has the records, durably; each has its index for ever."""

    leaf_indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The ledger will never take these records as they are.

    Attributes:
        status: HTTP status.
        conflict: It knows another record under an id or sequence number of theirs.
    """

    status: int
    conflict: bool


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The ledger did not answer, cannot serve now, or does not let us in; the same records may be posted again.

    Attributes:
        reason: Machine-readable: ``unreachable``, ``timeout``, ``http_503``, …
        retry_after_seconds: The ledger asked for this pause.
    """

    reason: str
    retry_after_seconds: float | None = None


PostResult: TypeAlias = Posted | Refused | Unavailable


class LedgerClient(Protocol):
    """Hands records to the ledger."""

    async def post(self, records: Sequence[QueuedRecord]) -> PostResult:
        """Post records as one atomic batch, in order.

        Durability: if the result is `Posted`, the ledger has synced them. Idempotence: a record that it has already is
        acknowledged again. Nothing is raised but cancellation.
        """
        ...


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """The bundle in force: its revision as the service names it, and its archive, not yet checked.

    Attributes:
        revision: Its digest.
        archive: Its bytes.
        may_ask_again: The service holds such questions, so that the next may follow at once.
        canary: Revision of the bundle that is evaluated beside it and decides nothing, or None.
    """

    revision: str
    archive: bytes
    may_ask_again: bool = False
    canary: str | None = None


@dataclass(frozen=True, slots=True)
class UnchangedBundle:
    """The bundle that the caller has is still in force.

    Attributes:
        may_ask_again: The service held the question, so that the next may follow at once.
        canary: Revision of the bundle that is evaluated beside it and decides nothing, or None.
    """

    may_ask_again: bool = False
    canary: str | None = None


@dataclass(frozen=True, slots=True)
class NoBundle:
    """The service says that no bundle is in force."""


BundleAnswer: TypeAlias = ActiveBundle | UnchangedBundle | NoBundle | Unavailable


class BundleSource(Protocol):
    """Says which bundle is in force."""

    async def fetch(self, known_revision: str | None, *, wait_seconds: float = 0.0) -> BundleAnswer:
        """Ask for the bundle in force, given the one that is at hand. Nothing is raised but cancellation.

        Args:
            known_revision: The one at hand.
            wait_seconds: How long the service may wait for another one before it answers.
        """
        ...

    async def signature(self, revision: str) -> bytes | Unavailable:
        """Return the envelope with a bundle's signatures, not yet checked. Nothing is raised but cancellation."""
        ...


@runtime_checkable
class CanarySource(Protocol):
    """Hands out the bundle that is evaluated beside the one in force."""

    async def canary(self) -> bytes | Unavailable:
        """Return the canary's archive, not yet checked. Nothing is raised but cancellation."""
        ...

    async def signature(self, revision: str) -> bytes | Unavailable:
        """See `BundleSource.signature`."""
        ...


@dataclass(frozen=True, slots=True)
class NewRestrictions:
    """Another set of restrictions is in force: its document, not yet read.

    Attributes:
        document: Its bytes; see `ledger.restrictions`.
        may_ask_again: The service holds such questions, so that the next may follow at once.
    """

    document: bytes
    may_ask_again: bool = False


@dataclass(frozen=True, slots=True)
class SameRestrictions:
    """The set that the caller has is still in force.

    Attributes:
        may_ask_again: The service held the question, so that the next may follow at once.
    """

    may_ask_again: bool = False


RestrictionAnswer: TypeAlias = NewRestrictions | SameRestrictions | Unavailable


@runtime_checkable
class RestrictionChannel(Protocol):
    """Hands out the set of restrictions in force."""

    async def restrictions(self, version: int, digest: str, *, wait_seconds: float = 0.0) -> RestrictionAnswer:
        """Ask for the set in force, and say which one is in force here. Nothing is raised but cancellation.

        Args:
            version: Version of the set at hand.
            digest: Its digest.
            wait_seconds: How long the service may wait for another one before it answers.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewToolVerdicts:
    """Another set of verdicts on tools' definitions is in force: its document, not yet read.

    Attributes:
        document: Its bytes; see `ledger.tool_verdicts`.
    """

    document: bytes


@dataclass(frozen=True, slots=True)
class SameToolVerdicts:
    """The set that the caller has is still in force."""


ToolVerdictAnswer: TypeAlias = NewToolVerdicts | SameToolVerdicts | Unavailable


@runtime_checkable
class ToolVerdictChannel(Protocol):
    """Hands out what people said of tools' definitions, and what other gateways saw of them."""

    async def tool_verdicts(self, digest: str) -> ToolVerdictAnswer:
        """Ask for the set in force. Nothing is raised but cancellation.

        Args:
            digest: Of the set at hand.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewVerdicts:
    """People have said something of held calls: a document, not yet read.

    Attributes:
        document: Its bytes; see `ledger.approvals.VerdictSet`.
    """

    document: bytes


@dataclass(frozen=True, slots=True)
class SameVerdicts:
    """Nobody has said anything since.

    Attributes:
        may_ask_again: The service held the question, so that the next may follow at once.
    """

    may_ask_again: bool = False


VerdictAnswer: TypeAlias = NewVerdicts | SameVerdicts | Unavailable


@runtime_checkable
class ApprovalChannel(Protocol):
    """Hands out what people have said of the calls that this enforcement point holds."""

    async def verdicts(self, version: int, *, wait_seconds: float = 0.0) -> VerdictAnswer:
        """Ask what people have said. Nothing is raised but cancellation.

        Args:
            version: Of what was heard last; -1 for nothing.
            wait_seconds: How long the service may wait for more before it answers.
        """
        ...
