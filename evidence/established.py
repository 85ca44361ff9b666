"""What a verification has established so far: the state that the checks of a pack share.

A part that is None could not be established; a check that needs it says that it was not made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from evidence.population import Survey
from evidence.scope import Scope
from evidence.start_range import StartRange
from evidence.summary import HeldBundle
from evidence.verification import VerificationReport
from ledger.envelopes import EnvelopeKey
from ledger.errors import EvidenceError, LedgerError, MalformedError, PolicyError
from ledger.trust import TrustPolicy, VerifiedCheckpoint

__all__ = ["Established"]

_MAX_FILE_BYTES: Final = 256 << 20
"""Largest file of a pack that is read whole; entries and the report are not."""


@dataclass(slots=True, kw_only=True)
class Established:
    """What has been established; one task owns it.

    Attributes:
        files: The pack's files.
        report: Where checks are noted.
        policy: Whose signatures count.
        scope: What the pack says it is about.
        end: The end checkpoint, verified.
        earlier: The start checkpoint, verified.
        start: What stands before the range, proved under the start checkpoint.
        known: The auditor's own checkpoint, verified.
        predecessor: The auditor's own checkpoint, verified, where it is of another log: perhaps the one before.
        survey: The walk over the entries, whose root is the signed one.
        pack_keys: Keys that signed the pack, each introduced by the log.
        bundles: The policy bundles whose digests hold, by revision.
    """

    files: Mapping[str, memoryview]
    report: VerificationReport
    policy: TrustPolicy | None = None
    scope: Scope | None = None
    end: VerifiedCheckpoint | None = None
    earlier: VerifiedCheckpoint | None = None
    start: StartRange | None = None
    known: VerifiedCheckpoint | None = None
    predecessor: VerifiedCheckpoint | None = None
    survey: Survey | None = None
    pack_keys: Sequence[EnvelopeKey] | None = None
    bundles: dict[str, HeldBundle] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        view = self.files.get(path)
        if view is None:
            raise MalformedError("the pack has no such file")
        if len(view) > _MAX_FILE_BYTES:
            raise MalformedError(f"a file of a pack that is read whole has at most {_MAX_FILE_BYTES} bytes")
        return bytes(view)

    @contextmanager
    def step(self, check: str, file: str) -> Iterator[None]:
        """Turn what a check raises into a failure that names the file."""
        try:
            yield
        except (LedgerError, PolicyError, EvidenceError) as error:
            self.report.fail(check, file, error)

    def skip(self, what: str, because: str) -> None:
        """Note what was not looked at, and why."""
        self.report.not_checked.append(f"{what}: {because}")
