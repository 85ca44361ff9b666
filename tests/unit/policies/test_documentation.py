"""docs/policies.md: the bundle that it writes loads, its tests pass, and its Python runs."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from policies.bundles import MAX_FILES, Bundle, bundle_from_files
from policies.engines import cedar_policies, cedar_requests, cedar_text
from policies.evaluate import Reason
from policies.replay import ReplayClass
from policies.testing import run_cases
from tests.support.policies import make_request

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def bundle() -> Bundle:
    return bundle_from_files({path: text.encode() for path, text in FILES.items()})


def test_page_writes_a_whole_bundle(bundle):
    assert set(FILES) == {
        "manifest.json",
        "schema.cedarschema",
        "parameters.json",
        "policy.cedar",
        "tests/refunds.yaml",
    }
    assert bundle.manifest.name == "refunds"


def test_cases_of_the_page_pass_and_reach_every_rule(bundle, evaluator):
    report = asyncio.run(run_cases(bundle, evaluator))
    assert [(item.case.name, item.differences) for item in report.failures] == []
    assert report.passed
    assert report.uncovered == ()


def test_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    for path, text in FILES.items():
        file = tmp_path / "refunds" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    (script,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(script, "docs/policies.md", "exec"), {})  # our own page
    assert capsys.readouterr().out == "8 cases; rules that none of them reaches: ()\n"


@pytest.mark.parametrize("text", ["500", "500.00", "5e2", '"500"', '"5e2"'])
def test_spellings_that_the_page_calls_one_number_are_permitted(bundle, evaluator, text):
    assert text in PAGE
    (result,) = decide(bundle, evaluator, text)
    assert (result.decision.effect, result.decision.rules) == ("PERMIT", ("refunds",))


@pytest.mark.parametrize("text", ['" 500"', '"0x1f4"', "true", "null"])
def test_spellings_that_the_page_calls_errors_are(bundle, evaluator, text):
    assert text in PAGE
    (result,) = decide(bundle, evaluator, text)
    assert (result.decision.reason, result.decision.detail) == ("parameter_error", "amount")


def decide(bundle, evaluator, amount: str):
    request = make_request(roles=("finance",), server="finance", name="refund", arguments=f'{{"amount": {amount}}}')
    return asyncio.run(evaluator.evaluate_many(bundle, [request]))


def test_page_names_every_reason_and_every_class_of_replay_that_occurs():
    for reason in Reason:
        assert f"`{reason}`" in PAGE
    for name in set(ReplayClass) - {ReplayClass.MASKED, ReplayClass.DOWNSTREAM}:
        assert f"| `{name}` |" in PAGE


def test_page_states_the_limits_that_hold():
    assert f"nested more than {cedar_text.MAX_NESTING} deep" in PAGE
    assert f"{cedar_text.MAX_OPERATORS} operators in one policy" in PAGE
    assert f"{cedar_text.MAX_EXPANDED_SCHEMA:,} tokens" in PAGE
    assert f"{cedar_policies.MAX_RULES:,} policies" in PAGE
    assert f"{cedar_requests.MAX_ENTITIES:,} static entities" in PAGE
    assert f"more than {MAX_FILES} files" in PAGE


# --- what went before


def windowed(tests: str = "cases: []") -> Bundle:
    """The page's bundle with the windows, the state and the rules of its section on them."""
    section = PAGE.split("\n## What went before\n", 1)[1].split("\n## ", 1)[0]
    windows, state, rules = (
        re.findall(rf"^```{kind}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0]
        for kind in ("json", "cedarschema", "cedar")
    )
    files = dict(FILES)
    manifest = json.loads(files["manifest.json"]) | {"windows": "windows.json"}
    schema = re.sub(r"^type Session = .*?;$", lambda _: state, files["schema.cedarschema"], flags=re.MULTILINE)
    changed = {
        "manifest.json": json.dumps(manifest),
        "schema.cedarschema": schema,
        "policy.cedar": files["policy.cedar"] + rules,
        "windows.json": windows,
        "tests/refunds.yaml": tests,
    }
    return bundle_from_files({path: text.encode() for path, text in (files | changed).items()})


def test_windows_of_the_page_decide_as_it_says(evaluator):
    given = re.findall(r"`(given: \{windows: .*?\}\})`", PAGE)
    assert len(given) == 1
    cases = f"""
defaults: {{agent: Bot, roles: [finance], server: finance, tool: refund, at: 2026-11-17T10:00:00}}
cases:
  - {{name: stated, {given[0]}, expect: {{effect: DENY, rules: [refund-limit]}}}}
  - name: too much for the day
    given: {{arguments: '{{"amount": 20}}', windows: {{refunded_today: "2000.01"}}}}
    expect: {{effect: DENY, rules: [daily-cap]}}
  - name: too many
    given: {{arguments: '{{"amount": 20}}', windows: {{calls_last_minute: 61}}}}
    expect: {{effect: DENY, rules: [burst]}}
  - name: read before
    given: {{arguments: '{{"amount": 20}}', tags: [external], windows: {{read_sensitive: true}}}}
    expect: {{effect: DENY, rules: [confused-deputy]}}
  - name: nothing before
    given: {{arguments: '{{"amount": 20}}', tags: [external]}}
    expect: {{effect: PERMIT, rules: [refunds]}}
"""
    report = asyncio.run(run_cases(windowed(cases), evaluator))
    assert [(item.case.name, item.differences) for item in report.failures] == []
    assert len(report.results) == 5
