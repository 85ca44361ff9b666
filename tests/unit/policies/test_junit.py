"""JUnit's XML of policy tests: read back by a parser, and by what CI systems look for."""

from __future__ import annotations

import asyncio
from xml.etree import ElementTree as ET

from policies.bundles import bundle_from_files
from policies.evaluate import Evaluator
from policies.junit import junit_xml
from policies.testing import run_cases
from tests.support.policies import cedar_files

POLICY = """
@id("work") permit(principal in Role::"staff", action, resource);
@id("never") forbid(principal, action, resource) when { context.identity.mfa };
"""
PASSES = """
cases:
  - name: %s
    given: {agent: Bot, roles: [staff], server: shop, tool: sell, at: 2026-11-17T10:00:00}
    expect: {effect: PERMIT, rules: [work]}
"""
FAILS = PASSES.replace("PERMIT", "DENY").replace("[work]", "[never]")


def document(evaluator: Evaluator, *files: str) -> ET.Element:
    tests = {f"tests/{number}.yaml": text.encode() for number, text in enumerate(files)}
    bundle = bundle_from_files(cedar_files(POLICY) | tests)
    report = asyncio.run(run_cases(bundle, evaluator))
    return ET.fromstring(junit_xml("test", bundle.revision, report))


def test_each_file_is_a_suite_and_each_case_a_case(evaluator):
    root = document(evaluator, PASSES % "one", PASSES % "two")
    assert root.tag == "testsuites"
    assert [suite.get("name") for suite in root] == ["tests/0.yaml", "tests/1.yaml"]
    assert [case.get("name") for case in root.iter("testcase")] == ["one", "two"]
    assert {case.get("classname") for case in root.iter("testcase")} == {"test.tests/0.yaml", "test.tests/1.yaml"}
    assert not list(root.iter("failure"))


def test_a_failure_is_counted_and_says_every_difference(evaluator):
    root = document(evaluator, PASSES % "one", FAILS % "two")
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "0")
    assert [suite.get("failures") for suite in root] == ["0", "1"]
    (failure,) = root.iter("failure")
    assert failure.get("message") == "effect: expected DENY, got PERMIT"
    assert failure.text == "effect: expected DENY, got PERMIT\nrules: expected never, got work"


def test_rules_that_no_case_reaches_and_the_revision_stand_among_the_properties(evaluator):
    (suite,) = document(evaluator, PASSES % "one")
    found = [(item.get("name"), item.get("value")) for item in suite.iter("property")]
    assert ("rule_not_reached", "never") in found
    assert ("rule_not_reached", "work") not in found
    assert (
        dict(found)["bundle_revision"]
        == bundle_from_files(cedar_files(POLICY) | {"tests/0.yaml": (PASSES % "one").encode()}).revision
    )


def test_names_with_markup_and_characters_that_xml_lacks_are_kept_legibly(evaluator):
    root = document(evaluator, PASSES % r'"<b>&\"\u0000\e[31m\ufffe ä 😀"')
    (case,) = root.iter("testcase")
    assert case.get("name") == '<b>&"\\u0000\\u001b[31m\\ufffe ä 😀'


def test_a_bundle_without_cases_is_an_empty_document(evaluator):
    root = document(evaluator)
    assert (root.get("tests"), list(root)) == ("0", [])
