"""The bundles that ship: their tests pass, reach every rule, and say what the demonstration needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.directories import library_names, read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_format import format_cedar
from policies.engines.cedar_lint import lint_cedar
from policies.engines.rego import RegoEngine
from policies.engines.rego_lint import lint_rego
from policies.evaluate import Evaluator
from policies.linting import lint_bundle
from policies.model import Effect, Obligation
from policies.testing import TestReport, run_cases
from tests.support.policies import make_request
from tests.support.scenarios import told

EXTENDED = "demo-extended-hours"


# The demonstration's bundles are its own; the others come in pairs.
PAIRS = sorted({name.removesuffix("-rego") for name in library_names() if not name.startswith("demo")})


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[str, TestReport]]:
    made = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()})
    yield {name: asyncio.run(run_cases(read_library_bundle(name), made)) for name in library_names()}
    made.close()


@pytest.mark.parametrize("name", library_names())
def test_every_case_of_the_library_passes(reports, name):
    assert [(item.case.file, item.case.name, item.differences) for item in reports[name].failures] == []
    assert reports[name].passed


@pytest.mark.parametrize("name", library_names())
def test_every_rule_of_the_library_is_reached_by_some_case(reports, name):
    assert reports[name].uncovered == ()


@pytest.mark.parametrize("name", [name for name in library_names() if not name.startswith("demo")])
def test_every_rule_of_the_library_is_also_kept_silent_by_some_case(reports, name):
    report = reports[name]
    for rule in report.covered:
        assert any(rule not in result.decision.rules for result in report.results), rule


@pytest.mark.parametrize("name", PAIRS)
def test_a_bundle_in_cedar_has_the_same_rules_cases_and_declarations_in_rego(reports, name):
    cedar, rego = read_library_bundle(name), read_library_bundle(f"{name}-rego")
    assert (cedar.manifest.engine, rego.manifest.engine) == ("cedar", "rego")
    assert cedar.manifest.description == rego.manifest.description
    assert set(reports[name].covered) == set(reports[f"{name}-rego"].covered)
    shared = {"parameters.json", "windows.json", "boundaries.json"}
    for path in [path for path in cedar.files | rego.files if path in shared or path.startswith("tests/")]:
        assert cedar.files.get(path) == rego.files.get(path), path


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_decide_every_case_alike(reports, name):
    one, other = ([told(result.decision) for result in reports[item].results] for item in (name, f"{name}-rego"))
    assert one == other


@pytest.mark.parametrize("name", PAIRS)
def test_the_library_is_free_of_findings_and_its_cedar_laid_out(reports, name):
    bundle = read_library_bundle(name)
    assert lint_bundle(bundle, reports[name], lint_cedar) == ()
    assert lint_bundle(read_library_bundle(f"{name}-rego"), reports[f"{name}-rego"], lint_rego) == ()
    for path in bundle.manifest.policies:
        assert format_cedar(path, bundle.text(path)) == bundle.text(path), path


def test_every_bundle_is_named_as_its_directory_and_described():
    for name in library_names():
        manifest = read_library_bundle(name).manifest
        assert manifest.name == name
        assert manifest.description


def test_the_page_about_policies_names_every_bundle():
    page = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
    table = page.partition("## Policies that ship")[2].partition("\n## ")[0]
    assert {name for name in library_names() if f"`{name.removesuffix('-rego')}`" not in table} == set()


@pytest.mark.parametrize("name", [name for name in library_names() if not name.startswith("demo")])
def test_every_readme_says_how_to_make_the_bundle_ones_own_and_names_every_rule_and_what_it_supports(reports, name):
    bundle = read_library_bundle(name)
    readme = bundle.text("README.md")
    assert f"tallystick policy library copy {name} " in readme
    assert "## To make it yours" in readme
    assert "\nSupports: " in readme
    assert [rule for rule in reports[name].covered if f"| `{rule}` |" not in readme] == []


@pytest.mark.parametrize("path", ["common.cedar", "facts.rego"])
def test_what_every_bundle_has_is_the_same_in_each(path):
    bundles = [read_library_bundle(name) for name in library_names() if not name.startswith("demo")]
    assert len({bundle.files[path] for bundle in bundles if path in bundle.files}) <= 1


def test_the_demonstrations_bundles_are_there():
    assert {"demo", EXTENDED} <= set(library_names())


def test_the_changed_bundle_differs_from_the_demonstrations_by_one_rule(evaluator):
    demo, changed = read_library_bundle("demo"), read_library_bundle(EXTENDED)
    differing = {path for path in demo.files | changed.files if demo.files.get(path) != changed.files.get(path)}
    assert differing == {"README.md", "finance.cedar", "tests/finance.yaml"}
    rules = [asyncio.run(evaluator.check(bundle)) for bundle in (demo, changed)]
    assert set(rules[0]) - set(rules[1]) == {"finance-business-hours"}
    assert set(rules[1]) <= set(rules[0])


def payroll(hour: int):
    members = {"agent": "Finance-Bot", "roles": ("finance",), "mfa": True, "server": "finance", "name": "Payroll-DB"}
    return make_request(**members, hour=hour)


def test_payroll_at_three_is_denied_and_under_the_changed_bundle_permitted(evaluator):
    for name, effect in (("demo", Effect.DENY), (EXTENDED, Effect.PERMIT)):
        (result,) = asyncio.run(evaluator.evaluate_many(read_library_bundle(name), [payroll(3)]))
        assert result.decision.effect is effect
        (result,) = asyncio.run(evaluator.evaluate_many(read_library_bundle(name), [payroll(10)]))
        assert result.decision.effect is Effect.PERMIT


@pytest.mark.parametrize(
    ("one", "fair"),
    [
        ("1.00", "999.00"),
        ('"1.00"', '"999.00"'),
        ("1e0", "9.99e2"),
        ("1.0", "999.0"),
        ("1", "999"),
        ("10e-1", "9990e-1"),
    ],
)
@pytest.mark.parametrize("shape", ['{{"sku": "laptop", "price": {}}}', '{{"item": {{"price": {}}}}}'])
def test_laptop_for_one_is_denied_by_name_in_every_encoding(decide, one, fair, shape):
    bundle = read_library_bundle("demo")
    members = {"roles": ("merchandiser",), "server": "retail", "name": "update_price"}
    decision = decide(bundle, **members, arguments=shape.format(one))
    assert (decision.effect, decision.failed_condition) == (Effect.DENY, "price-floor")
    assert decide(bundle, **members, arguments=shape.format(fair)).permitted


@pytest.mark.parametrize("network", ["office", "coffee-shop"])
@pytest.mark.parametrize("hour", [10, 23])
@pytest.mark.parametrize("limit", [100, 101])
def test_export_is_stopped_only_where_all_conditions_meet(decide, network, hour, limit):
    decision = decide(
        read_library_bundle("demo"),
        roles=("support",),
        server="support",
        name="export_customers",
        network=network,
        hour=hour,
        arguments=f'{{"limit": {limit}}}',
    )
    if (network, hour, limit) == ("coffee-shop", 23, 101):
        assert decision.failed_condition == "support-exfiltration-4d"
        assert decision.obligations == (Obligation.END_SESSION,)
    else:
        assert decision.permitted
