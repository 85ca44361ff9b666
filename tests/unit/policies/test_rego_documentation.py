"""docs/rego.md: the bundles that it writes load, their tests pass, and what it says of functions and limits is so."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from policies.bundles import MAX_FILE_BYTES, Bundle, bundle_from_files
from policies.engines import rego_builtins, rego_checks, rego_text
from policies.engines.opa_server import OPAServerEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.testing import run_cases
from tests.support.policies import make_request

PAGE = (Path(__file__).parents[3] / "docs" / "rego.md").read_text()
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
MANIFEST, OUTSIDE_MANIFEST = re.findall(
    r"^```json\n(\{\n  \"format\": \"tallystick\.bundle/1\".*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)


@pytest.fixture
def bundle() -> Bundle:
    return bundle_from_files({path: text.encode() for path, text in FILES.items()})


def test_cases_of_the_page_pass_and_reach_every_rule(bundle):
    evaluator = Evaluator({"rego": RegoEngine()})
    report = asyncio.run(run_cases(bundle, evaluator))
    evaluator.close()
    assert set(FILES) == {"manifest.json", "policy.rego", "data.json", "parameters.json", "tests/refunds.yaml"}
    assert [(item.case.name, item.differences) for item in report.failures] == []
    assert report.passed
    assert report.uncovered == ()


def test_legacy_text_of_the_page_loads_as_it_says():
    (text,) = re.findall(r"^```rego\n(default allow = false.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    manifest = {**json.loads(MANIFEST), "rego_version": 0, "package": "legacy", "policies": ["old.rego"]}
    del manifest["data"], manifest["parameters"]
    files = {"old.rego": text.encode(), "manifest.json": json.dumps(manifest).encode()}
    engine = RegoEngine()
    decisions = engine.evaluate(
        engine.load(bundle_from_files(files)), [make_request(mfa=True), make_request(), make_request(mfa=True, hour=18)]
    )
    assert [decision.permitted for decision in decisions] == [True, False, False]


def test_bundle_for_a_server_of_the_page_loads():
    (names,) = re.findall(
        r"^```json\n(\{\n  \"format\": \"tallystick\.opa/1\".*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    files = {"names.json": names.encode(), "manifest.json": OUTSIDE_MANIFEST.encode()}
    assert OPAServerEngine(None).load(bundle_from_files(files)).rules == ("refunds", "refund-limit")


@pytest.mark.parametrize("name", sorted(rego_builtins.REFUSED))
def test_page_names_every_function_that_is_refused(name):
    assert f"`{name}`" in PAGE or f"`{name.split('.')[0]}.*`" in PAGE


def test_page_names_what_is_bound_and_the_limits():
    for name in rego_builtins.BOUND:
        assert f"`{name}" in PAGE
    for figure in (
        f"{rego_checks.MAX_RULES:,} rules",
        f"more than {rego_text.MAX_NESTING} deep",
        f"more than {rego_text.MAX_CHAIN} operators",
        f"{rego_text.MAX_TOKENS:,} words and marks",
        f"{MAX_FILE_BYTES >> 20} MiB in a file",
        f"at most {rego_builtins.MAX_RANGE:,} numbers",
        f"at most {rego_builtins.MAX_WIDTH:,} wide",
    ):
        assert figure in PAGE, figure
