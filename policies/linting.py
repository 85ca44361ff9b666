"""What is allowed in a bundle and probably not meant: findings, and those that hold for every engine.

Pure. What an engine refuses is no finding but an error, and said at load. Each engine has its own linter behind
`Linter`; here is what concerns the bundle as a whole: its tests and what they reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from policies.bundles import Bundle
from policies.testing import TestReport

__all__ = ["Finding", "Linter", "lint_bundle"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that is probably not meant.

    Attributes:
        place: ``file:line``, or the file.
        code: Its kind, such as ``rule-not-tested``.
        message: One sentence on what stands there and what it leads to.
    """

    place: str
    code: str
    message: str


class Linter(Protocol):
    """Looks into bundles of one engine."""

    def __call__(self, bundle: Bundle) -> Sequence[Finding]:
        """Return the findings of a bundle that its engine accepts.

        Raises:
            PolicySyntaxError: The bundle cannot be read.
        """
        ...


def _same_cases(report: TestReport) -> Iterator[Finding]:
    seen: dict[bytes, str] = {}
    for result in report.results:
        case = result.case
        key = msgspec.json.encode(case.given)
        if key in seen:
            told = f"the case {case.name!a} asks what {seen[key]!a} asks"
            yield Finding(case.file, "same-case", told)
        seen.setdefault(key, case.name)


def _untried(report: TestReport) -> Iterator[Finding]:
    """Return what a suite that only shows what is permitted, or only what is not, leaves open."""
    effects = {result.decision.permitted for result in report.results}
    if effects == {True}:
        yield Finding("tests", "only-permits", "no case shows a call that is denied")
    elif effects == {False}:
        yield Finding("tests", "only-denials", "no case shows a call that is permitted")


def lint_bundle(bundle: Bundle, report: TestReport, linter: Linter | None) -> tuple[Finding, ...]:
    """Return all findings of a bundle, by place.

    Args:
        bundle: The bundle.
        report: What became of its tests.
        linter: Its engine's, if it has one.

    Raises:
        PolicySyntaxError: The bundle cannot be read.
    """
    found = list(linter(bundle)) if linter is not None else []
    if not report.results:
        found.append(Finding("tests", "no-tests", "the bundle has no test case; it cannot be activated without any"))
    found += [
        Finding("tests", "rule-not-tested", f"no case shows the rule {rule} at work") for rule in report.uncovered
    ]
    found += [*_same_cases(report), *_untried(report)]
    return tuple(sorted(set(found)))
