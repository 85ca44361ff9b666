"""The shared scenario table: every fact of a request by itself, and what must be decided.

The table is written once, as test cases of the shipped bundles `scenarios` (Cedar) and `scenarios-rego` (Rego), whose
test files are the same byte for byte. Whoever compares another engine with ours takes its rows from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from policies.directories import read_library_bundle
from policies.model import Decision, DecisionRequest
from policies.testing import Expected, case_requests, read_cases

__all__ = ["CEDAR", "REGO", "Scenario", "facts_of", "scenarios", "told"]

CEDAR: Final = "scenarios"
REGO: Final = "scenarios-rego"


class Scenario(NamedTuple):
    """One row of the table.

    Attributes:
        name: What is particular about it.
        request: The request, with the windows that the bundles declare.
        expected: The decision; every member is stated but `failed_condition` where nothing stood against the call.
    """

    name: str
    request: DecisionRequest
    expected: Expected


def scenarios(bundle: str = CEDAR) -> Iterator[Scenario]:
    """Yield every row in order.

    Args:
        bundle: Whose copy of the table is read; they are the same.
    """
    found = read_library_bundle(bundle)
    cases = read_cases(found)
    for case, request in zip(cases, case_requests(found, cases), strict=True):
        yield Scenario(case.name, request, case.expect)


def facts_of(request: DecisionRequest) -> dict[str, object]:
    """Return every fact of a request by its path, such as ``time.hour`` and ``state.windows.tainted``."""
    facts: dict[str, object] = {}

    def read(path: str, value: object) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                read(f"{path}.{name}" if path else name, member)
        else:
            facts[path] = value

    read("", msgspec.to_builtins(request))
    return facts


def told(decision: Decision) -> tuple[object, ...]:
    """Return what two engines must agree on."""
    return (
        decision.effect,
        decision.rules,
        decision.failed_condition,
        decision.obligations,
        decision.reason,
        decision.drift,
    )
