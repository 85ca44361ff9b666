"""A library bundle is adopted by editing data: with every name of the example replaced, it decides the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import msgspec
import pytest

from ledger.errors import PolicySyntaxError
from policies.bundles import MANIFEST_PATH, Bundle, bundle_from_files
from policies.directories import library_names, read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.testing import run_cases
from tests.support.scenarios import CEDAR

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
    "safeguards": "assistant deployer mail search_mail read_mail send_mail keys store_key money",
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
    report = asyncio.run(run_cases(ours, evaluator))
    assert [(item.case.name, item.differences) for item in report.failures] == []
    assert report.uncovered == ()


# --- data that are forgotten, or of another type


def with_data(bundle: Bundle, path: str, document: object) -> Bundle:
    files = {**bundle.files, path: json.dumps(document).encode(), MANIFEST_PATH: msgspec.json.encode(bundle.manifest)}
    return bundle_from_files(files)


def spoilt(value: object) -> Iterator[object]:
    """Yield a document with one value in it, at any depth, of another type."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from ({**value, name: other} for other in spoilt(member))
    yield 5 if isinstance(value, str) else "none"


def mistakes(settings: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield settings with one of them left out, and with one value in them of another type."""
    for name, value in settings.items():
        rest = {key: member for key, member in settings.items() if key != name}
        yield rest
        yield from ({**rest, name: other} for other in spoilt(value))


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-rego")])
def test_settings_that_are_forgotten_or_of_another_type_open_nothing_in_rego(name, evaluator):
    """Rego takes every number for less than every text: a limit in quotation marks would be none."""
    shipped = read_library_bundle(name)
    results = [item for item in asyncio.run(run_cases(shipped, evaluator)).results if not item.decision.permitted]
    denied = list({item.decision.rules: item.case for item in results}.values())  # one for each reason is enough
    for settings in mistakes(json.loads(shipped.text("data.json"))["settings"]):
        bundle = with_data(shipped, "data.json", {"settings": settings})
        results = asyncio.run(run_cases(bundle, evaluator, denied)).results
        assert [result.case.name for result in results if result.decision.permitted] == [], settings


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("-rego")])
def test_settings_that_are_forgotten_are_told_at_once_in_cedar(name, evaluator):
    shipped = read_library_bundle(name)
    entities = json.loads(shipped.text("entities.json"))
    for place, entity in enumerate(entities):
        if entity["uid"]["type"] == "Settings":
            for key in entity["attrs"]:
                attrs = {name: value for name, value in entity["attrs"].items() if name != key}
                changed = [*entities[:place], {**entity, "attrs": attrs}, *entities[place + 1 :]]
                with pytest.raises(PolicySyntaxError, match=r"entities\.json"):
                    asyncio.run(evaluator.check(with_data(shipped, "entities.json", changed)))
