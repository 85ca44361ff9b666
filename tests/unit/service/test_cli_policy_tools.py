"""The tools for those who write policies, as they are typed."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from service.cli.main import cli
from service.cli.output import ExitCode
from tests.support.commands import PROGRAM, Started
from tests.support.gateway import config_of
from tests.support.policies import cedar_files
from tests.unit.policies.test_signals import SIGNALLED

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
    # As a terminal starts it: whoever runs this in the background hands an ignored SIGINT down.
    command = ["env", "--default-signal=INT", PROGRAM, "policy", "test", directory, "--watch"]
    with Started(command, cwd=directory, variables={}) as started:
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


# --- lint and fmt


def test_findings_are_told_with_place_and_code_and_the_status_is_1(directory):
    (directory / "policy.cedar").write_text('@id("work") permit(principal, action, resource);\n')
    done = policy("lint", directory)
    assert done.exit_code == 1
    assert "policy.cedar:1: unbounded-permit: work permits every call that no other rule forbids\n" in done.output
    assert done.output.endswith(" findings\n")


def gateway_of(directory: Path, **members: object) -> Path:
    config = config_of(directory / "state", "http://127.0.0.1:1", "http://127.0.0.1:1", **members)
    path = directory / "gateway.yaml"
    path.write_text(config.model_dump_json(exclude_unset=True, by_alias=True))
    return path


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"inspection": {}}, []),
        ({}, ["unmade-signal"]),
        ({"inspection": {}, "profiles": {}}, ["unread-signal"]),
        ({"inspection": {"kinds": ["ansi"]}}, ["unmade-signal"]),
    ],
)
def test_a_bundle_is_held_against_what_a_gateway_makes(
    members: dict[str, object], expected: list[str], directory: Path, tmp_path: Path
) -> None:
    reads = """@id("no") forbid(principal, action, resource)
when { context.signals.kinds.contains("secret") } unless { context.signals.inspected == "complete" };"""
    write(directory, cedar_files(POLICY + reads, schema=SIGNALLED) | {"tests/cases.yaml": CASES.encode()})
    alone = policy("lint", directory, "--json")
    done = policy("lint", directory, "--config", gateway_of(tmp_path, **members), "--json")
    known = json.loads(alone.output)["findings"]
    told = [finding for finding in json.loads(done.output)["findings"] if finding not in known]
    assert sorted({finding["code"] for finding in told}) == expected


def test_a_configuration_that_is_none_is_said_in_one_line(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("servers: [")
    done = policy("lint", directory, "--config", tmp_path / "gateway.yaml")
    assert done.exit_code == ExitCode.USAGE
    assert "not YAML" in done.output
    assert "Traceback" not in done.output
    assert policy("lint", directory, "--config", tmp_path / "missing.yaml").exit_code == 2


def test_findings_that_are_ignored_are_not_told(directory):
    told = json.loads(policy("lint", directory, "--json").output)["findings"]
    codes = {finding["code"] for finding in told}
    assert codes == {"unused-parameter", "only-permits"}
    ignored = [option for code in codes for option in ("--ignore", code)]
    done = policy("lint", directory, *ignored)
    assert (done.exit_code, done.output) == (0, "0 findings\n")


def test_a_bundle_that_does_not_load_is_not_linted(directory):
    (directory / "policy.cedar").write_text("permit(")
    assert policy("lint", directory).exit_code == 2


UGLY = '@id("work")permit(principal in Role::"staff",action,resource); // why\n'


def test_a_file_is_laid_out_in_place_once_and_keeps_its_rights(directory):
    path = directory / "policy.cedar"
    path.write_text(UGLY)
    path.chmod(0o640)
    assert policy("fmt", directory).output == "laid out policy.cedar\n"
    assert "// why" in path.read_text()
    assert path.read_text() != UGLY
    assert path.stat().st_mode & 0o777 == 0o640
    done = policy("fmt", directory, "--check")
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.parametrize(("option", "status", "told"), [("--check", 1, "would lay out"), ("--diff", 0, "+permit (")])
def test_checking_and_comparing_write_nothing(directory, option, status, told):
    path = directory / "policy.cedar"
    path.write_text(UGLY)
    done = policy("fmt", directory, option)
    assert done.exit_code == status
    assert told in done.output
    assert path.read_text() == UGLY


def test_nothing_is_written_if_one_file_of_several_does_not_parse(directory):
    (directory / "policy.cedar").write_text(UGLY)
    (directory / "more.cedar").write_text("permit(")
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"policies": ["policy.cedar", "more.cedar"]}))
    done = policy("fmt", directory)
    assert done.exit_code == 2
    assert done.stderr.startswith("tallystick: more.cedar:1")
    assert (directory / "policy.cedar").read_text() == UGLY


# --- explain


def test_a_case_is_explained_rule_by_rule(directory):
    done = policy("explain", directory, "--case", "work")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "PERMIT (policy) by work",
        "permit work (policy.cedar:1): applies",
        '  yes    principal principal in Role::"staff"',
    ]


def test_a_request_is_explained_with_what_stands_against_it(directory):
    (directory / "policy.cedar").write_text(
        POLICY + '@id("day") forbid(principal, action, resource) unless { context.time.hour > 6 && true };\n'
        '@id("list") permit(principal, action == Action::"tools/list", resource);\n'
    )
    request = "{agent: Bot, server: shop, tool: sell, at: 2026-11-17T03:00:00}"
    done = policy("explain", directory, "--given", request)
    assert done.output.splitlines() == [
        "DENY (policy) by day",
        "  stood against it first: day",
        "permit work (policy.cedar:1): does not apply",
        '  NO     principal principal in Role::"staff"',
        "forbid day (policy.cedar:2): applies",
        "  NO     unless    context.time.hour > 6",
        "  -      unless    true",
        "1 rule about other calls; --all shows them",
    ]
    assert "permit list" in policy("explain", directory, "--given", request, "--all").output
    rules = json.loads(policy("explain", directory, "--given", request, "--json").output)["rules"]
    assert [rule["applies"] for rule in rules] == [False, True]


def test_a_request_that_reaches_no_rule_says_what_was_wrong_with_it(directory):
    request = '{agent: Bot, server: shop, tool: sell, at: 2026-11-17T03:00:00, arguments: "{\\"amount\\": 0.5}"}'
    done = policy("explain", directory, "--given", request)
    assert done.output.splitlines() == [
        "INDETERMINATE (parameter_error) by no rule",
        "  amount",
        "  no rule was asked",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ((), 64, "name one request"),
        (("--case", "work", "--given", "{}"), 64, "name one request"),
        (("--case", "rest"), 64, "0 cases of the bundle are named like 'rest'"),
        (("--given", "{agent: a}"), 2, "the request"),
        (("--given", "{agent: a, agent: b}"), 2, "a key is there twice"),
        (("--given", "{agent: a, server: s, at: 2026-11-17T03:00:00Z}"), 2, "a case's time is local"),
        (("--decision", "01234567-89ab-7cde-8f01-23456789abcd"), 64, "a token is needed"),
    ],
)
def test_a_request_that_cannot_be_told_is_refused(directory, arguments, status, told, monkeypatch):
    monkeypatch.delenv("TALLYSTICK_TOKEN", raising=False)
    done = policy("explain", directory, *arguments)
    assert done.exit_code == status
    assert told in done.stderr


def test_a_bundle_must_be_named_where_no_decision_names_it():
    done = policy("explain", "--case", "work")
    assert (done.exit_code, done.stderr) == (64, "tallystick: name the bundle's DIRECTORY\n")
