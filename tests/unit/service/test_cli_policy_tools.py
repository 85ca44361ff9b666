"""The tools for those who write policies, as they are typed."""

from __future__ import annotations

import signal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from service.cli.main import cli
from tests.support.commands import PROGRAM, Started
from tests.support.policies import cedar_files

POLICY = '@id("work") permit(principal in Role::"staff", action, resource);\n'
CASES = """
cases:
  - name: work
    given: {agent: Bot, roles: [staff], server: shop, tool: sell, at: 2026-11-17T10:00:00}
    expect: {effect: PERMIT, rules: [work]}
"""


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "bundle", cedar_files(POLICY) | {"tests/cases.yaml": CASES.encode()})


def policy(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["policy", *map(str, arguments)])


# --- test


def test_cases_that_pass_are_counted_and_the_status_is_0(directory):
    done = policy("test", directory)
    assert (done.exit_code, done.output) == (0, "1 of 1 cases pass\n1 of 1 rules reached\n")


def test_a_case_that_fails_is_named_with_what_differs_and_the_status_is_1(directory):
    (directory / "tests/cases.yaml").write_text(CASES.replace("PERMIT", "DENY"))
    done = policy("test", directory)
    assert done.exit_code == 1
    assert "FAILED tests/cases.yaml: work\n  effect: expected DENY, got PERMIT\n" in done.output


def test_a_bundle_without_cases_has_status_4(directory):
    (directory / "tests/cases.yaml").unlink()
    assert policy("test", directory).exit_code == 4


def test_a_bundle_that_does_not_load_is_told_in_one_line_with_its_place(directory):
    (directory / "policy.cedar").write_text("permit(principal, action, resource);")
    done = policy("test", directory)
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ['tallystick: policy.cedar:1: a policy needs an @id("…")']


def test_rules_that_no_case_reaches_fail_only_where_coverage_is_asked_for(directory):
    with (directory / "policy.cedar").open("a") as file:
        file.write('@id("idle") forbid(principal, action, resource) when { context.identity.mfa };\n')
    assert policy("test", directory).exit_code == 0
    done = policy("test", directory, "--coverage")
    assert done.exit_code == 1
    assert "not reached: idle" in done.output


def test_the_junit_report_is_written_whether_cases_pass_or_fail(directory, tmp_path):
    target = tmp_path / "report.xml"
    assert policy("test", directory, "--junit", target).exit_code == 0
    assert ET.parse(target).getroot().get("failures") == "0"
    (directory / "tests/cases.yaml").write_text(CASES.replace("PERMIT", "DENY"))
    assert policy("test", directory, "--junit", target).exit_code == 1
    assert ET.parse(target).getroot().get("failures") == "1"


@pytest.mark.parametrize("option", [("--json",), ("--junit", "report.xml")])
def test_watching_goes_with_no_report_for_programs(directory, option):
    done = policy("test", directory, "--watch", *option)
    assert done.exit_code == 64
    assert not Path("report.xml").exists()


def test_watching_runs_again_at_each_change_and_survives_a_bundle_that_does_not_load(directory):
    cases = directory / "tests/cases.yaml"
    with Started([PROGRAM, "policy", "test", directory, "--watch"], cwd=directory, variables={}) as started:
        started.wait_for_line("1 of 1 cases pass")
        started.wait_for_line("waiting for a change")
        cases.write_text(CASES.replace("PERMIT", "DENY"))
        started.wait_for_line("FAILED tests/cases.yaml: work")
        started.wait_for_line("0 of 1 cases pass")
        (directory / "policy.cedar").write_text("permit(")
        started.wait_for_line("REFUSED policy.cedar:1")
        (directory / "policy.cedar").write_text(POLICY + '@id("more") permit(principal, action, resource);\n')
        started.wait_for_line("2 of 2 rules reached")
        started.signal(signal.SIGINT)
        assert started.wait() == 0
