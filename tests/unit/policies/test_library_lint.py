"""The bundles that ship say what they mean: the linters find nothing in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from policies.directories import library_names, read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_lint import lint_cedar
from policies.engines.rego import RegoEngine
from policies.engines.rego_lint import lint_rego
from policies.evaluate import Evaluator
from policies.linting import lint_bundle
from policies.testing import run_cases


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()})
    yield made
    made.close()


@pytest.mark.parametrize("name", library_names())
def test_the_bundles_that_ship_have_no_finding(evaluator, name):
    bundle = read_library_bundle(name)
    linter = {"cedar": lint_cedar, "rego": lint_rego}[bundle.manifest.engine]
    assert lint_bundle(bundle, asyncio.run(run_cases(bundle, evaluator)), linter) == ()
