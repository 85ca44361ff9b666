"""What policies say about signals and do not mean: each finding in both languages, and what looks like one."""

from __future__ import annotations

import pytest

from policies.bundles import Bundle
from policies.engines.cedar_lint import lint_cedar, signals_of_cedar
from policies.engines.rego_lint import lint_rego, signals_of_rego
from policies.signal_lint import MadeSignals, gateway_findings
from policies.signal_reads import ALL_SIGNALS
from tests.unit.policies.test_signals import cedar, rego_bundle

CODES = {"unknown-signal", "unasked-signal", "unread-signal", "unmade-signal"}
PERMIT = '@id("any") permit(principal, action, resource) when { context.identity.mfa };\n'
ALLOW = "default allow := false\nallow if input.principal.mfa\n"


def of_cedar(conditions: str) -> Bundle:
    return cedar(PERMIT + f'@id("f") forbid(principal, action, resource) {conditions};')


def of_rego(body: str) -> Bundle:
    return rego_bundle(ALLOW + f'denies contains "f" if {body}\n')


def found(bundle: Bundle) -> list[tuple[str, str]]:
    lint = lint_cedar if bundle.manifest.engine == "cedar" else lint_rego
    return [(finding.place, finding.code) for finding in lint(bundle) if finding.code in CODES]


@pytest.mark.parametrize(
    "condition",
    [
        'context.signals.tool_state == "quarantine"',
        '"quarantine" != context.signals.tool_state',
        'context.signals.baseline == "done"',
        'context.signals.inspected == "yes"',
        'context.signals.kinds.contains("secrets") && context.signals.inspected == "complete"',
        'context.signals.kinds.containsAny(["secret", "pii"]) && context.signals.inspected == "complete"',
        '["pinned", "fixed"].contains(context.signals.tool_state)',
        'context.signals.findings.contains("secret") && context.signals.inspected == "complete"',
        'context.signals.findings.contains("secrets/aws") && context.signals.inspected == "complete"',
    ],
)
def test_a_value_that_no_safeguard_says_is_found_in_cedar(condition: str) -> None:
    assert found(of_cedar(f"when {{ {condition} }}")) == [("policy.cedar:2", "unknown-signal")]


@pytest.mark.parametrize(
    "body",
    [
        'input.signals.tool_state == "quarantine"',
        '"quarantine" != input.signals.tool_state',
        'input.signals.tool_state in {"pinned", "fixed"}',
        '{ "secrets" in input.signals.kinds; input.signals.inspected }',
        '{ input.signals.findings[_] == "secrets/aws"; input.signals.inspected }',
        'input.signals["baseline"] == "done"',
        "input.signals.quarantined",
    ],
)
def test_a_value_or_signal_that_there_is_not_is_found_in_rego(body: str) -> None:
    assert [code for _, code in found(of_rego(body))] == ["unknown-signal"]


@pytest.mark.parametrize(
    "bundle",
    [
        of_cedar('when { context.signals.kinds.contains("secret") }'),
        of_cedar('when { context.signals.findings.contains("secret/aws") }'),
        of_cedar("when { context.signals.finding_count > 0 }"),
        of_cedar('when { context.signals.deviations.contains("hour") }'),
        of_rego('"secret" in input.signals.kinds'),
        of_rego("count(input.signals.findings) > 0"),
        of_rego("{ some kind in input.signals.kinds; kind }"),
        of_rego("{ found := input.signals.deviations; count(found) > 0 }"),
    ],
)
def test_a_rule_that_takes_for_clean_what_nobody_looked_at_is_found(bundle: Bundle) -> None:
    assert [code for _, code in found(bundle)] == ["unasked-signal"]


@pytest.mark.parametrize(
    "bundle",
    [
        of_cedar(
            'when { context.signals.kinds.contains("secret") } unless { context.signals.inspected == "complete" }'
        ),
        of_cedar('unless { context.signals.baseline == "ready" && context.signals.deviations.isEmpty() }'),
        of_cedar('when { context.signals.tool_state == "quarantined" }'),
        of_cedar('when { context.signals.inspector == "whatever" }'),
        of_cedar('when { context.signals.deviations.contains("of our own") || context.signals.baseline == "none" }'),
        of_rego('{ "secret" in input.signals.kinds; input.signals.inspected == "complete" }'),
        of_rego("clean(input.signals)\nclean(signals) if signals.finding_count == 0"),
        of_rego('input.args.tool_state == "quarantine"'),
        of_rego('{ tool_state := "x"; tool_state == "quarantine" }'),
        of_rego("input.time.hour > 22"),
    ],
)
def test_rules_that_mean_what_they_say_have_no_finding(bundle: Bundle) -> None:
    assert found(bundle) == []


def test_signals_that_are_declared_and_never_read_are_found() -> None:
    assert found(of_cedar("when { context.time.hour > 22 }")) == [("schema.cedarschema", "unread-signal")]


def test_one_rule_that_asks_is_enough_for_all() -> None:
    asks = '@id("g") forbid(principal, action, resource) unless { context.signals.inspected == "complete" };'
    assert found(cedar(PERMIT + '@id("f") forbid(principal, action, resource) when {'
                       ' context.signals.kinds.contains("ansi") };' + asks)) == []  # fmt: skip


@pytest.mark.parametrize(
    "bundle",
    [
        of_cedar("when { context.signals == context.signals }"),
        of_rego('{ some name; input.signals[name] == "x" }'),
        of_rego("{ all := input.signals; all.kinds }"),
    ],
)
def test_signals_that_are_read_as_a_whole_are_all_read(bundle: Bundle) -> None:
    read = signals_of_cedar(bundle) if bundle.manifest.engine == "cedar" else signals_of_rego(bundle)
    assert ALL_SIGNALS in {one.name for one in read}


# --- at a gateway

READS_KINDS = 'when { context.signals.kinds.contains("tenant") } unless { context.signals.inspected == "complete" }'
READS_STATE = 'when { context.signals.tool_state == "quarantined" }'
READS_BASELINE = 'unless { context.signals.baseline == "ready" }'


@pytest.mark.parametrize(
    ("conditions", "safeguards", "kinds", "expected"),
    [
        (READS_KINDS, {"inspection"}, {"secret", "tenant"}, []),
        (READS_KINDS, {"inspection"}, {"secret"}, ["unmade-signal"]),
        (READS_KINDS, set(), set(), ["unmade-signal", "unmade-signal"]),
        (READS_STATE, {"pins"}, set(), []),
        (READS_STATE, {"profiles"}, set(), ["unread-signal", "unmade-signal"]),
        (READS_BASELINE, {"profiles"}, set(), []),
        (READS_BASELINE, {"pins", "inspection"}, {"secret"}, ["unread-signal", "unread-signal", "unmade-signal"]),
        ("when { context.signals == context.signals }", {"pins", "inspection", "profiles"}, {"secret"}, []),
        ("when { context.time.hour > 22 }", set(), set(), []),
        ("when { context.time.hour > 22 }", {"inspection"}, {"secret"}, ["unread-signal"]),
    ],
)
def test_what_a_gateway_does_not_say_is_found_and_what_it_says_in_vain(
    conditions: str, safeguards: set[str], kinds: set[str], expected: list[str]
) -> None:
    made = MadeSignals(safeguards=frozenset(safeguards), kinds=frozenset(kinds))
    told = list(gateway_findings(signals_of_cedar(of_cedar(conditions)), made, gateway="gateway.yaml"))
    assert sorted(finding.code for finding in told) == sorted(expected)
    assert all(finding.place in {"gateway.yaml", "policy.cedar:2"} for finding in told)
