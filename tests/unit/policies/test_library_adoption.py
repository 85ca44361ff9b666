"""A library bundle is adopted by editing data: with every name of the example replaced, it decides the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import msgspec
import pytest

from policies.bundles import MANIFEST_PATH, Bundle, bundle_from_files
from policies.directories import library_names, read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.testing import run_cases
from tests.support.scenarios import CEDAR, told

# The names that an operator replaces by those of the house: roles, servers, tools, tags, items, folders.
EXAMPLES = {
    "amount-bounds": "finance treasury merchandiser retail refund update_price laptop monitor cable EUR USD",
    "approval": "sre treasury host run_command cloud terraform_apply list_instances bank transfer exec",
    "bulk-export": "support crm export_customers export_orders",
    "business-hours": "finance incident payroll personal-data",
    "confused-deputy": "helper",
    "context-4d": "support crm export_customers customer-data coffee-shop",
    "cumulative-caps": "finance refund transfer Trial-Bot",
    "least-privilege": "engineer intern files read_file write_file sync touch crm get_customer customer-data",
    "path-allow-list": "analyst editor files read_file read_files write_file move_file data reports out Report-Bot",
    "rate-limits": "staff search query reindex",
}
DATA = {"entities.json", "data.json", "parameters.json", "windows.json"}


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()}, threads=1)
    yield made
    made.close()


def words(name: str) -> re.Pattern[str]:
    """Return what finds an example's names as whole words."""
    names = "|".join(map(re.escape, EXAMPLES[name.removesuffix("-rego")].split()))
    return re.compile(rf"(?<![\w.-])(?:{names})(?![\w.-])")


def adopted(bundle: Bundle) -> Bundle:
    """Return a bundle with the names of its example replaced in data and tests."""
    found = words(bundle.manifest.name)
    files = {
        path: found.sub("our-\\g<0>", bundle.text(path)).encode() if path in DATA or path.startswith("tests/") else data
        for path, data in bundle.files.items()
    }
    return bundle_from_files({**files, MANIFEST_PATH: msgspec.json.encode(bundle.manifest)})


NAMES = [name for name in library_names() if not name.startswith(("demo", CEDAR))]


def test_every_bundle_that_is_adopted_is_tried_here():
    assert {name.removesuffix("-rego") for name in NAMES} == set(EXAMPLES)


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_knows_a_name_of_the_example(name):
    bundle = read_library_bundle(name)
    for path in bundle.manifest.policies:
        assert words(name).findall(re.sub(r"//.*|#.*|@description\(.*\)", "", bundle.text(path))) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_whose_data_are_edited_decides_the_same_of_other_names(name, evaluator):
    shipped = read_library_bundle(name)
    ours = adopted(shipped)
    assert {path for path in ours.files if ours.files[path] != shipped.files[path]} & {"entities.json", "data.json"}
    before, after = (asyncio.run(run_cases(bundle, evaluator)) for bundle in (shipped, ours))
    assert [(item.case.name, item.differences) for item in after.failures] == []
    assert [told(item.decision) for item in after.results] == [told(item.decision) for item in before.results]
    assert after.uncovered == ()
