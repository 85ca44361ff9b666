"""``tallystick policy generate``: what it writes, what it leaves alone, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from policies.directories import read_bundle_directory
from service.cli.main import cli
from service.demo import tools
from tests.support.descriptions import as_bytes, openapi
from tests.support.repository import ROOT


def generate(form: str, document: Path, *options: str | Path) -> Result:
    return CliRunner().invoke(cli, ["policy", "generate", form, str(document), "--server", "shop", *map(str, options)])


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "shop.json"
    path.write_bytes(as_bytes(openapi()))
    return path


def changed(path: Path) -> Path:
    value: Any = openapi()
    value["paths"]["/orders/{id}"]["get"]["operationId"] = "fetchOrder"
    other = path.with_name("newer.json")
    other.write_bytes(as_bytes(value))
    return other


def test_a_bundle_is_written_once_compared_and_updated_without_touching_its_rules(document: Path, tmp_path: Path):
    bundle = tmp_path / "bundle"
    done = generate("openapi", document, "-o", bundle)
    assert done.exit_code == 0, done.output
    assert re.search(r"5 operations \(2 read, 3 write\).*\n(\d+) of \1 cases pass\n", done.output)
    assert generate("openapi", document, "--against", bundle, "--fail-on-change").output.endswith("nothing changed\n")

    again = generate("openapi", document, "-o", bundle)
    assert again.exit_code == 64
    assert "is not empty" in again.output

    rules = (bundle / "policy.cedar").read_text() + "\n// ours\n"
    (bundle / "policy.cedar").write_text(rules)
    (bundle / "tests" / "ours.yaml").write_text("cases: []\n")
    newer = changed(document)
    told = generate("openapi", newer, "--against", bundle, "--fail-on-change", "--json")
    assert told.exit_code == 5
    assert json.loads(told.output)["comparison"] == {"added": ["fetchOrder"], "removed": ["getOrder"], "changed": {}}
    updated = generate("openapi", newer, "-o", bundle, "--update")
    assert updated.exit_code == 0, updated.output
    assert (bundle / "policy.cedar").read_text() == rules
    assert "tests/ours.yaml" in read_bundle_directory(bundle).files
    assert "fetchOrder" in (bundle / "entities.json").read_text()


def test_a_generated_test_that_your_rules_fail_is_told(document: Path, tmp_path: Path):
    bundle = tmp_path / "bundle"
    assert generate("openapi", document, "-o", bundle).exit_code == 0
    policy = bundle / "policy.cedar"
    policy.write_text(policy.read_text().replace("shop-reader", "other-reader"))
    done = generate("openapi", document, "-o", bundle, "--update")
    assert done.exit_code == 1
    assert "FAILED listOrders, with the examples of its description" in done.output


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 64),
        (("--fail-on-change", "-o", "new"), 64),
        (("--update", "-o", "new"), 2),
        (("--against", "."), 2),
        (("--only", "nothing*", "-o", "new"), 2),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(document: Path, options, status, monkeypatch):
    monkeypatch.chdir(document.parent)
    assert generate("openapi", document, *options).exit_code == status
    assert not Path("new").exists()


def test_a_document_that_is_none_is_one_line_and_status_2(tmp_path: Path):
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"a: [\xff")
    done = generate("openapi", broken, "-o", tmp_path / "new")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "not UTF-8" in done.output


def test_the_documented_example_prints_what_the_page_says(tmp_path: Path):
    page = (ROOT / "docs" / "boundaries.md").read_text()
    (listed,) = re.findall(r"```json\n(\{\n  \"tools\".*?)```", page, re.DOTALL)
    (printed,) = re.findall(r"agrees:\n\n```\n(.*?)```", page, re.DOTALL)
    (tmp_path / "tools.json").write_text(listed)
    done = generate("mcp", tmp_path / "tools.json", "-o", tmp_path / "shop-bundle")
    assert done.output.startswith(printed), done.output
    tested = CliRunner().invoke(cli, ["policy", "test", str(tmp_path / "shop-bundle")])
    assert tested.output.startswith(printed.splitlines()[1]), tested.output


@pytest.mark.parametrize("name", ["finance", "support", "healthcare", "retail"])
def test_each_server_of_the_demonstration_makes_a_bundle_whose_tests_pass(name: str, tmp_path: Path):
    server = getattr(tools, f"_{name}")(Counter())
    listed = [
        tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in asyncio.run(server.list_tools())
    ]
    (tmp_path / "tools.json").write_text(json.dumps({"tools": listed}))
    done = generate("mcp", tmp_path / "tools.json", "-o", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{len(listed)} operations"), done.output


def test_drift_is_told_where_a_decision_is_explained(document: Path, tmp_path: Path):
    assert generate("openapi", document, "-o", tmp_path / "bundle").exit_code == 0
    asked = ["policy", "explain", str(tmp_path / "bundle"), "--case", "refund, an unknown argument"]
    told = CliRunner().invoke(cli, asked).output
    assert told.startswith("DENY (policy) by boundary\n")
    assert "  outside the tool's description: unknown_argument\n" in told
