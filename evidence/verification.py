"""What came of verifying something offline: what was checked, what was not, what failed, and the exit status.

Pure values, and their rendering as lines and as JSON. The checks are `verify`'s part.

Exit statuses, worst first: 1 a proof or digest fails; 2 malformed; 3 valid, but the trust is not met (or nothing but
the thing itself vouches for it: *self-asserted*); 4 something that was asked for could not be checked; 0 all proven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from evidence.scope import Scope
from ledger.canonical import JSONValue
from ledger.errors import (
    DependencyError,
    EvidenceError,
    LedgerError,
    MalformedError,
    PolicyError,
    SignatureUncheckedError,
    StateError,
    TallystickError,
    TrustPolicyError,
    VerificationError,
)

__all__ = ["Check", "Failure", "Status", "VerificationReport", "status_of"]


class Status(IntEnum):
    """An exit status."""

    PROVEN = 0
    FAILED = 1
    MALFORMED = 2
    TRUST_NOT_MET = 3
    NOT_CHECKED = 4


_WORST_FIRST: Final = (Status.FAILED, Status.MALFORMED, Status.TRUST_NOT_MET, Status.NOT_CHECKED)
_VERDICTS: Final[Mapping[Status, str]] = {
    Status.PROVEN: "PROVEN",
    Status.FAILED: "FAILED: a proof or digest does not hold",
    Status.MALFORMED: "MALFORMED",
    Status.TRUST_NOT_MET: "TRUST NOT MET",
    Status.NOT_CHECKED: "COULD NOT BE CHECKED",
}
_SELF_ASSERTED: Final = "SELF-ASSERTED: it agrees with itself; no trust policy from outside was given"
_BY_ERROR: Final[tuple[tuple[type[TallystickError], Status], ...]] = (
    (SignatureUncheckedError, Status.NOT_CHECKED),
    (TrustPolicyError, Status.TRUST_NOT_MET),
    (VerificationError, Status.FAILED),
    (MalformedError, Status.MALFORMED),
    (StateError, Status.NOT_CHECKED),
    (DependencyError, Status.NOT_CHECKED),
    (LedgerError, Status.FAILED),
    (PolicyError, Status.MALFORMED),
    (EvidenceError, Status.MALFORMED),
)


def status_of(error: TallystickError) -> Status:
    """Return the status that an error means: bad, malformed, not trusted, and not checkable are different things."""
    return next((status for kind, status in _BY_ERROR if isinstance(error, kind)), Status.FAILED)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass(frozen=True, slots=True)
class Check:
    """A check that held.

    Attributes:
        name: Which.
        detail: What was checked, with its count.
    """

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that did not hold.

    Attributes:
        check: Which.
        file: The file that it is about.
        reason: One sentence.
        status: What it means for the exit status.
    """

    check: str
    file: str
    reason: str
    status: Status


@dataclass(slots=True, kw_only=True)
class VerificationReport:
    """The result of one verification.

    Attributes:
        subject: What was verified, in words.
        scope: The pack's scope, if there is one and it could be read; believe it only if the status is 0.
        checked: Checks that held, in order.
        not_checked: What was not looked at, and why.
        failures: Checks that did not hold, in order.
        notes: What else a reader should know.
        self_asserted: No trust policy from outside was given.
        simulated: What was verified says that keys or clocks were simulated, whatever else it proves.
        judgement: The verdict in words, where the status alone would say too little.
        equivocation: A file that proves to anybody that the log's keys signed two histories, if one was met.
    """

    subject: str
    scope: Scope | None = None
    checked: list[Check] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    self_asserted: bool = False
    simulated: bool = False
    judgement: str | None = None
    equivocation: bytes | None = None

    def hold(self, check: str, detail: str) -> None:
        """Note a check that held."""
        self.checked.append(Check(check, detail))

    def fail(self, check: str, file: str, error: TallystickError | str, status: Status | None = None) -> None:
        """Note a check that did not hold.

        Args:
            check: Which.
            file: The file that it is about.
            error: What was raised, or a sentence.
            status: What it means; by default what the error means, for a sentence `Status.FAILED`.
        """
        if status is None:
            status = status_of(error) if isinstance(error, TallystickError) else Status.FAILED
        self.failures.append(Failure(check, file, str(error), status))

    @property
    def status(self) -> Status:
        """The exit status."""
        found = {failure.status for failure in self.failures}
        if self.self_asserted:
            found.add(Status.TRUST_NOT_MET)
        return next((status for status in _WORST_FIRST if status in found), Status.PROVEN)

    @property
    def verdict(self) -> str:
        """The status in words."""
        if self.judgement is not None:
            return self.judgement
        only_self_asserted = self.self_asserted and not any(
            failure.status is not Status.NOT_CHECKED for failure in self.failures
        )
        verdict = _SELF_ASSERTED if only_self_asserted else _VERDICTS[self.status]
        return f"{verdict}, and SIMULATED: evidence of nothing real" if self.simulated else verdict

    def lines(self) -> list[str]:
        """Return the report as lines of text; the last one is the verdict.

        Text that came from the pack cannot steer a terminal: what is not printable is shown as an escape.
        """
        lines = [self.subject, "", "checked"]
        lines += [f"  {check.name}: {check.detail}" for check in self.checked] or ["  nothing"]
        for title, sentences in (("not checked", self.not_checked), ("note", self.notes)):
            lines += ["", title, *(f"  {sentence}" for sentence in sentences)] if sentences else []
        if self.failures:
            lines += ["", "failed"]
            lines += [f"  {failure.check}: {failure.file}: {failure.reason}" for failure in self.failures]
        return [_printable(line) for line in (*lines, "", self.verdict)]

    def value(self) -> dict[str, JSONValue]:
        """Return the report as a JSON value."""
        return {
            "subject": self.subject,
            "status": int(self.status),
            "verdict": self.verdict,
            "self_asserted": self.self_asserted,
            "simulated": self.simulated,
            "pack_id": None if self.scope is None else self.scope.pack_id,
            "checked": [{"check": check.name, "detail": check.detail} for check in self.checked],
            "not_checked": list(self.not_checked),
            "failures": [
                {"check": one.check, "file": one.file, "reason": one.reason, "status": int(one.status)}
                for one in self.failures
            ],
            "notes": list(self.notes),
        }
