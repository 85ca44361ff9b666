"""``tallystick profile``: a declared job is told in words, and one that cannot be used is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli.main import cli

JOB: dict[str, Any] = {
    "roles": ["clerk"],
    "tools": ["crm/lookup", "crm/note", "shop/refund"],
    "first": ["crm/lookup"],
    "next": {"crm/lookup": ["crm/note", "shop/refund"], "shop/refund": []},
    "hours": {
        "zone": "Europe/Zurich",
        "spans": [{"days": ["mon", "tue"], "from": "08:00", "to": "18:00"}, {"from": "22:00", "to": "02:00"}],
    },
    "at_most": {"calls_per_hour": 60, "targets_per_day": 1200},
}
WINDOW = {"name": "outside", "measure": "off_profile", "per": "user", "over": "day", "profile": JOB}
SUM = {"name": "spent", "measure": "sum", "parameter": "amount", "per": "user", "over": "day"}


def run(tmp_path: Path, command: str, content: object, *options: str, code: int = 0) -> Result:
    file = tmp_path / "job.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    result = CliRunner().invoke(cli, ["profile", command, str(file), *options])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def test_a_job_is_told_in_words(tmp_path):
    said = run(tmp_path, "show", JOB).output.splitlines()
    assert said == [
        "job: the work of whoever has one of the roles clerk",
        "tools: crm/lookup, crm/note, shop/refund",
        "a session begins with: crm/lookup",
        "after crm/lookup: crm/note, shop/refund",
        "after shop/refund: nothing more",
        "after crm/note: any of them",
        "hours, in Europe/Zurich: mon tue 08:00 to 18:00; every day 22:00 to 02:00 of the next day",
        "a gateway whose zone is not Europe/Zurich finds every call outside",
        "at most 60 calls in the last hour",
        "at most 1,200 different things called about in a day",
    ]


def test_what_is_not_declared_is_said_to_be_open(tmp_path):
    said = run(tmp_path, "show", {"tools": ["crm/lookup"]}).output
    for sentence in ("the work of everybody", "begins with: any of them", "hours: always", "volumes: not limited"):
        assert sentence in said


def test_the_windows_of_a_bundle_are_read_for_their_jobs_alone(tmp_path):
    windows = {"windows": [SUM, WINDOW, {**WINDOW, "name": "other"}]}
    assert run(tmp_path, "check", windows).output == "2 jobs, each of which can be used: other, outside\n"
    assert json.loads(run(tmp_path, "check", windows, "--json").output) == {"jobs": ["other", "outside"]}
    shown = json.loads(run(tmp_path, "show", windows, "--json").output)
    assert shown["jobs"]["outside"] == JOB


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no windows, and no job profile"),
        (b"\xff", "no windows, and no job profile"),
        (b'{"tools":["a/b"],"tools":["c/d"]}', "no windows, and no job profile"),
        ([], "no windows, and no job profile"),
        ({}, "no windows, and no job profile"),
        ({"tools": []}, "no windows, and no job profile"),
        ({**JOB, "users": ["jane"]}, "unknown field `users`"),
        ({**JOB, "first": ["crm/lokup"]}, "says 'crm/lokup', which is none of its tools"),
        ({**JOB, "at_most": {}}, "says at_most, and limits nothing"),
        ({**JOB, "at_most": {"calls_per_week": 1}}, "calls_per_week"),
        ({**JOB, "hours": {"zone": "UTC", "spans": [{"from": "08:00", "to": "08:00"}]}}, "a span of no length"),
        ({**JOB, "hours": {"zone": "UTC", "spans": [{"from": "8", "to": "18:00"}]}}, "no windows, and no job"),
        ({"windows": []}, "none of its windows has a job profile"),
        ({"windows": [SUM]}, "none of its windows has a job profile"),
        ({"windows": [{**WINDOW, "per": "session"}]}, "limits volumes, so it is per agent"),
        ({"windows": [{**WINDOW, "profile": None}]}, "a profile if, and only if"),
        ({"windows": [WINDOW, WINDOW]}, "two of its windows have one name"),
        ({"windows": {}}, "no windows, and no job profile"),
        (b"[" * 100_000, "no windows, and no job profile"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_with_its_reason(tmp_path, command, content, reason):
    result = run(tmp_path, command, content, code=2)
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_file_that_is_too_long_or_not_there_is_refused(tmp_path):
    assert "longer than" in run(tmp_path, "check", b" " * ((4 << 20) + 1), code=2).stderr
    missing = CliRunner().invoke(cli, ["profile", "check", str(tmp_path / "nothing.json")])
    assert missing.exit_code == 2  # click's own, which `main` makes 64
    assert "does not exist" in missing.stderr
