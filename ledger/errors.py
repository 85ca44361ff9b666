"""The error tree of Tallystick's core.

Every failure that the project raises on purpose descends from `TallystickError`. Adapters translate: no SQLAlchemy,
boto3 or HTTP exception crosses a port, and the cause is chained with ``from``.

Two distinctions carry the design:

* *Bad* differs from *could not check*. A signature that is wrong (`SignatureInvalidError`) and one whose algorithm or
  key is not at hand (`SignatureUncheckedError`) are different errors, and neither passes.
* A verifier raises; it never returns a bool that a caller could forget to read.

::

    TallystickError
    ├─ LedgerError
    │  ├─ MalformedError
    │  ├─ VerificationError
    │  │  ├─ ProofError
    │  │  ├─ RootMismatchError
    │  │  ├─ RollbackError
    │  │  ├─ SplitViewError
    │  │  ├─ SignatureError ── SignatureInvalidError, SignatureUncheckedError
    │  │  ├─ TrustPolicyError
    │  │  └─ CommitmentError
    │  ├─ StateError ── NotFoundError, OverloadedError, ErasedError, HeldError, PrunedError
    │  │  └─ ConflictError ── SwapLostError, StaleKeysError
    │  └─ DependencyError ── StorageError, AnchorError, TimestampError, UpstreamError
    │     └─ WitnessError ── WitnessSizeError
    ├─ PolicyError ── PolicySyntaxError, UnknownBundleError
    ├─ EvidenceError ── IncompletePopulationError
    └─ ConfigError
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = [
    "AnchorError",
    "CommitmentError",
    "ConfigError",
    "ConflictError",
    "DependencyError",
    "ErasedError",
    "EvidenceError",
    "HeldError",
    "IncompletePopulationError",
    "LedgerError",
    "MalformedError",
    "NotFoundError",
    "OverloadedError",
    "PolicyError",
    "PolicySyntaxError",
    "ProofError",
    "PrunedError",
    "RollbackError",
    "RootMismatchError",
    "SignatureError",
    "SignatureInvalidError",
    "SignatureUncheckedError",
    "SplitViewError",
    "StaleKeysError",
    "StateError",
    "StorageError",
    "SwapLostError",
    "TallystickError",
    "TimestampError",
    "TrustPolicyError",
    "UnknownBundleError",
    "UpstreamError",
    "VerificationError",
    "WitnessError",
    "WitnessSizeError",
]


class TallystickError(Exception):
    """Anything that Tallystick raises on purpose."""


class LedgerError(TallystickError):
    """The log, its bytes or its parts are not as they must be."""


class MalformedError(LedgerError):
    """Bytes are not a valid note, checkpoint, tile, record or pack; the only error that leaves a parser."""


class VerificationError(LedgerError):
    """Well-formed, but does not prove what it claims."""


class ProofError(VerificationError):
    """A proof has the wrong number or length of hashes, or speaks of a leaf outside its tree."""


class RootMismatchError(VerificationError):
    """The hashes lead to another root than the one claimed.

    Attributes:
        expected: The 32-byte root that was claimed.
        calculated: The 32-byte root that the hashes lead to.
    """

    def __init__(self, message: str, *, expected: bytes, calculated: bytes) -> None:
        super().__init__(f"{message}: expected root {expected.hex()}, calculated {calculated.hex()}")
        self.expected = expected
        self.calculated = calculated


class RollbackError(VerificationError):
    """An older or smaller tree is shown where a newer one is known."""


class SplitViewError(VerificationError):
    """Two checkpoints of one log that no single append-only log can both have published."""


class SignatureError(VerificationError):
    """A signature that must be there does not hold, or could not be checked."""


class SignatureInvalidError(SignatureError):
    """A known key's signature is wrong."""


class SignatureUncheckedError(SignatureError):
    """A required signature could not be checked: its key or algorithm is not at hand."""


class TrustPolicyError(VerificationError):
    """Valid, but not signed by whom the trust policy demands."""


class CommitmentError(VerificationError):
    """A salt and payload do not open the commitment in a leaf."""


class StateError(LedgerError):
    """The request is sound but the present state forbids it."""


class ConflictError(StateError):
    """A compare-and-swap was lost, or the same id arrived with other content: stop, do not retry blindly."""


class SwapLostError(ConflictError):
    """Somebody else has published this log meanwhile: take up what is published, and go on from there."""


class StaleKeysError(ConflictError):
    """A record was judged by keys that a newer key record may have ended: judge it again."""


class NotFoundError(StateError):
    """No such log, record, tile, checkpoint or bundle."""


class OverloadedError(StateError):
    """A bounded queue is full: nothing was taken, try again later."""


class ErasedError(StateError):
    """The payload's key was destroyed; the leaf stays, what it commits to is gone.

    Attributes:
        subjects: Whose keys are gone, as tombstones name them.
    """

    def __init__(self, message: str, subjects: Collection[str] = ()) -> None:
        super().__init__(message)
        self.subjects = frozenset(subjects)


class HeldError(StateError):
    """A legal hold forbids it.

    Attributes:
        holds: Ids of the holds.
    """

    def __init__(self, message: str, holds: Collection[str] = ()) -> None:
        super().__init__(message)
        self.holds = tuple(holds)


class PrunedError(StateError):
    """The log was pruned: the entry is below its published minimum index and no longer served.

    Attributes:
        minimum: The minimum index.
    """

    def __init__(self, message: str, *, minimum: int = 0) -> None:
        super().__init__(message)
        self.minimum = minimum


class DependencyError(LedgerError):
    """Something that the log stands on failed."""


class StorageError(DependencyError):
    """A log or tile store failed; nothing that it did not confirm may be relied on."""


class AnchorError(DependencyError):
    """An anchor failed, or holds other bytes than it was given."""


class WitnessError(DependencyError):
    """A witness failed or refused."""


class WitnessSizeError(WitnessError):
    """A witness has cosigned another tree size than the request said.

    Attributes:
        size: The tree size that it has cosigned last, as it says.
    """

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class TimestampError(DependencyError):
    """A time-stamping authority failed, refused, or answered something else than was asked."""


class UpstreamError(DependencyError):
    """An HTTP peer (MCP server, ledger service) failed or could not be reached."""


class PolicyError(TallystickError):
    """A policy bundle cannot be used."""


class PolicySyntaxError(PolicyError):
    """Policy text, schema or manifest does not parse or validate."""


class UnknownBundleError(PolicyError):
    """No bundle of that revision is at hand."""


class EvidenceError(TallystickError):
    """Evidence cannot be produced as asked."""


class IncompletePopulationError(EvidenceError):
    """The population has gaps where the caller demanded none."""


class ConfigError(TallystickError):
    """A setting, key or file of the installation is missing or unusable."""
