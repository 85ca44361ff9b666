"""What is legal Rego and probably not meant: each finding, and what looks like one and is none."""

from __future__ import annotations

import json

import pytest

from policies.bundles import bundle_from_files
from policies.engines.rego_lint import lint_rego
from tests.support.policies import PARAMETERS, rego_files

READS_ALL = 'package test\npermits contains "all" if { a := input.args; count(a) > 0; input.principal.mfa }\n'


def codes(policy: str, **options: object) -> list[tuple[str, str]]:
    bundle = bundle_from_files(rego_files(READS_ALL + policy, **options))
    return [(finding.place, finding.code) for finding in lint_rego(bundle)]


def test_a_bundle_that_says_what_it_means_has_no_finding():
    assert codes("default allow := false\nallow if count(permits) > 0\n") == []


@pytest.mark.parametrize("rule", ["allow := true", "default allow := true", "default allow = true"])
def test_an_allow_without_any_bound_is_found_with_its_place(rule):
    found = codes(f"{rule}\n" + ("allow if input.principal.mfa\n" if "default" in rule else ""))
    assert found == [("policy.rego:3", "unbounded-permit")]


@pytest.mark.parametrize("rule", ["allow := false", "default allow := false\nallow if true", "allow if 1 == 1"])
def test_an_allow_with_a_body_or_that_is_false_is_none(rule):
    assert codes(rule) == []


@pytest.mark.parametrize(
    "body",
    [
        "input.args.amount > 3",
        "{ input.principal.mfa; input.args.amount > 3 }",
        "{ n := input.arguments.amount; n > 3 }",
    ],
)
def test_a_limit_that_a_call_escapes_by_saying_nothing_is_found(body):
    assert codes(f'allow if input.principal.mfa\ndenies contains "x" if {body}\n') == [
        ("policy.rego:4", "escapable-limit")
    ]


@pytest.mark.parametrize(
    "rule",
    [
        'denies contains "x" if not input.args.amount <= 3',
        'denies contains "x" if not small\nsmall if input.args.amount <= 3',
        'denies contains "x" if input.time.hour > 3',
        'denies contains "x" if { input.args.amount; not small }\nsmall if input.args.amount <= 3',
        'permits contains "x" if input.args.amount <= 3',
    ],
)
def test_limits_that_hold_without_the_value_are_none(rule):
    assert codes(f"allow if input.principal.mfa\n{rule}\n") == []


@pytest.mark.parametrize("name", ["\u0440ayroll", "payroll ", "\uff50ayroll"])
def test_a_text_that_looks_like_another_is_found(name):
    assert codes(f'allow if input.resource.name == "{name}"\n') == [("policy.rego:3", "hidden-character")]


def test_a_parameter_that_no_policy_reads_is_found():
    bundle = bundle_from_files(rego_files("allow if input.args.amount < 3\n"))
    found = [(finding.code, finding.message.rsplit(" ", 1)[1]) for finding in lint_rego(bundle)]
    assert found == [("unused-parameter", item["name"]) for item in PARAMETERS if item["name"] != "amount"]


@pytest.mark.parametrize("reads", ["input.args[name]", "input[name]"])
def test_a_parameter_that_may_be_read_by_a_name_known_later_is_none(reads):
    text = f'package test\nallow if {{ some name in ["amount"]; {reads} == 3 }}\n'
    assert lint_rego(bundle_from_files(rego_files(text))) == ()


WINDOWS = {
    "windows": [
        {"name": "spent", "measure": "sum", "parameter": "amount", "per": "session"},
        {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60},
    ]
}


def test_a_window_that_no_policy_reads_is_found_and_what_it_sums_is_read():
    parameters = [item for item in PARAMETERS if item["name"] == "amount"]
    text = "package test\nallow if input.state.windows.spent < 3\n"
    files = rego_files(text, parameters=parameters, windows="windows.json")
    bundle = bundle_from_files(files | {"windows.json": json.dumps(WINDOWS).encode()})
    found = [(finding.place, finding.code, finding.message) for finding in lint_rego(bundle)]
    assert found == [("windows.json", "unread-window", "no policy reads the window calls")]


def test_boundaries_that_no_policy_looks_at_are_found():
    described = {"boundaries.json": b'{"format": "tallystick.boundaries/1", "servers": {}}'}
    for rule, expected in (("input.principal.mfa", ["unread-boundary"]), ("count(input.boundary.drift) == 0", [])):
        files = rego_files(READS_ALL + f"allow if {rule}\n", boundaries="boundaries.json") | described
        assert [finding.code for finding in lint_rego(bundle_from_files(files))] == expected
