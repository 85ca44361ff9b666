"""What the demonstration says of an answer and of its own claims."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from service.cli.main import cli
from service.cli.output import counted, program
from service.demo.clients import Answer
from service.demo.stage import Checks


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("allow"), "allowed"),
        (Answer("deny", "policy", "refund-limit"), "denied by refund-limit"),
        (Answer("kill", "policy", "phi-minimum-necessary"), "killed by phi-minimum-necessary"),
        (Answer("deny", "malformed"), "denied (malformed)"),
        (Answer("ask", "policy"), "held for approval"),
        (Answer("a tool error"), "a tool error"),
    ],
)
def test_an_answer_names_the_rule_that_gave_it_or_else_the_reason(answer, told):
    assert answer.told() == told


@pytest.mark.parametrize(
    ("number", "plural", "expected"),
    [(0, "entries", "0 entries"), (1, "entries", "1 entry"), (1, "roots", "1 root"), (2, "roots", "2 roots")],
)
def test_one_thing_is_not_told_in_the_plural(number, plural, expected):
    assert counted(number, plural) == expected


@pytest.mark.parametrize("status", [0, 1])
def test_for_programs_the_claims_are_on_standard_output_and_the_story_is_not(monkeypatch, status):
    def run(_folder: object, *, once: bool, checks: Checks) -> int:
        checks.expect("something holds", holds=True, detail="seen")
        checks.expect("something else", holds=once and status == 0)
        return status

    monkeypatch.setattr("service.demo.run.run_demo", run)
    # How this process logs is for other tests to rely on.
    monkeypatch.setattr("service.cli.demo.configure_logging", lambda **_: None)
    done = CliRunner().invoke(cli, ["demo", "--once", "--json"])
    assert done.exit_code == status
    value = json.loads(done.stdout)
    assert value["status"] == status
    assert value["claims"] == [
        {"claim": "something holds", "holds": True, "detail": "seen"},
        {"claim": "something else", "holds": status == 0, "detail": ""},
    ]
    assert "✓ something holds (seen)" in done.stderr


@pytest.mark.parametrize(
    ("called", "on_path", "told"),
    [
        ("{here}/bin/tallystick", True, "tallystick"),
        ("{here}/bin/tallystick", False, "bin/tallystick"),
        ("bin/tallystick", True, "bin/tallystick"),
        ("/elsewhere/tallystick", True, "/elsewhere/tallystick"),
    ],
)
def test_a_command_that_is_printed_calls_the_program_as_it_was_called(tmp_path, monkeypatch, called, on_path, told):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tallystick").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") if on_path else "/nowhere")
    monkeypatch.setattr(sys, "argv", [called.format(here=tmp_path)])
    assert program() == told
