"""The shared scenario table: every fact by itself decides something, and both languages decide every row alike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from ledger.errors import MalformedError
from policies.boundaries import boundary_facts, read_boundaries
from policies.directories import read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.model import Decision, DecisionRequest
from policies.parameters import parse_parameters
from policies.windows import read_windows
from tests.support.scenarios import CEDAR, REGO, Scenario, facts_of, scenarios, told

ROWS = list(scenarios())
PAIR = (CEDAR, REGO)

FACTS = {
    *("principal.agent", "principal.user", "principal.roles", "principal.authn", "principal.mfa"),
    *("action", "resource.server", "resource.name", "resource.tags"),
    *("time.now_ms", "time.zone", "time.local_date", "time.hour", "time.minute", "time.weekday"),
    *("environment.address", "environment.network"),
    *("state.session", "state.calls", "state.denied", "state.started_ms"),
    *("state.windows.calls_minute", "state.windows.refused", "state.windows.rows_session"),
    *("state.windows.spent_day", "state.windows.tainted"),
}
PARAMETERS = {"amount": "decimal", "count": "long", "region": "string", "dry_run": "bool", "path": "path"}


@pytest.fixture(scope="module")
def decisions() -> Iterator[dict[str, list[Decision]]]:
    evaluator = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()})
    requests = [row.request for row in ROWS]
    try:
        yield {
            name: [
                evaluation.decision
                for evaluation in asyncio.run(evaluator.evaluate_many(read_library_bundle(name), requests))
            ]
            for name in PAIR
        }
    finally:
        evaluator.close()


def differing(one: DecisionRequest, other: DecisionRequest) -> set[str]:
    """Return the facts in which two requests differ; a window of the call's own amount belongs to its arguments."""
    facts = [facts_of(request) for request in (one, other)]
    found = {path for path in facts[0].keys() | facts[1].keys() if facts[0].get(path) != facts[1].get(path)}
    if "arguments" in found:
        found -= {"state.windows.rows_session", "state.windows.spent_day"}
    return found


def flips(decided: list[Decision]) -> Iterator[tuple[str, Scenario, Scenario]]:
    """Yield pairs of rows that differ in one fact alone, with that fact, and are decided differently."""
    for (one, first), (other, second) in itertools.combinations(zip(ROWS, decided, strict=True), 2):
        facts = differing(one.request, other.request)
        if len(facts) == 1 and told(first) != told(second):
            yield facts.pop(), one, other


@pytest.mark.parametrize("name", PAIR)
def test_every_row_is_decided_as_the_table_says(decisions, name):
    wrong = {
        row.name: row.expected.differences(decision)
        for row, decision in zip(ROWS, decisions[name], strict=True)
        if row.expected.differences(decision)
    }
    assert wrong == {}


def test_both_languages_decide_every_row_alike(decisions):
    tables = [[told(decision) for decision in decided] for decided in decisions.values()]
    different = [row.name for row, *answers in zip(ROWS, *tables, strict=True) if len(set(answers)) > 1]
    assert different == []


def test_the_table_is_the_same_in_both_bundles():
    assert len({read_library_bundle(name).files["tests/scenarios.yaml"] for name in PAIR}) == 1
    assert [(row.request, row.expected) for row in scenarios(PAIR[-1])] == [(row.request, row.expected) for row in ROWS]


def test_the_table_has_at_least_forty_rows_that_say_all_of_the_decision():
    assert len(ROWS) >= 40
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.expected.obligations is not None
        assert row.expected.reason is not None
        assert (row.expected.failed_condition is not None) == (row.expected.effect == "DENY")


def test_every_fact_alone_makes_a_difference_to_the_first_row(decisions):
    assert {fact for fact, one, _ in flips(decisions[CEDAR]) if one is ROWS[0]} == FACTS | {"arguments"}


def test_no_fact_of_a_request_is_left_out():
    """What says how windows were measured is no fact for policies, nor is the version."""
    every = {path for path in facts_of(ROWS[0].request) if not path.startswith("state.measured_by")}
    assert every == FACTS | {"arguments", "version"}


def arguments_of(row: Scenario) -> dict[str, object] | None:
    try:
        value = row.request.parsed_arguments()
    except MalformedError:
        return None
    return value if isinstance(value, dict) else None


@pytest.mark.parametrize(("parameter", "kind"), PARAMETERS.items())
def test_every_parameter_alone_makes_a_difference(decisions, parameter, kind):
    declared = parse_parameters(read_library_bundle(CEDAR).files["parameters.json"])
    assert declared.types == PARAMETERS
    alone = []
    for fact, one, other in flips(decisions[CEDAR]):
        if fact == "arguments":
            first, second = arguments_of(one), arguments_of(other)
            if first is not None and second is not None:
                names = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
                alone.append(names)
    assert {parameter} in alone, kind


def test_drift_alone_makes_a_difference(decisions):
    bundle = read_library_bundle(CEDAR)
    boundaries = read_boundaries(bundle)
    drifting = {row.name: boundary_facts(boundaries, row.request).drift for row in ROWS}
    alone = [
        row.name
        for row, decision in zip(ROWS, decisions[CEDAR], strict=True)
        if decision.rules == ("boundary-drift",) and drifting[row.name]
    ]
    assert len(alone) >= 3
    assert drifting[ROWS[0].name] == ()


def test_every_kind_of_window_is_in_the_table():
    windows = read_windows(read_library_bundle(CEDAR)).windows.values()
    assert {window.measure for window in windows} == {"sum", "count", "seen"}
    assert {window.per for window in windows} == {"agent", "user", "session", "agent+tool"}
    assert {window.of for window in windows} >= {"permitted", "denied"}
    assert {window.over for window in windows} == {"session", "day", None}
