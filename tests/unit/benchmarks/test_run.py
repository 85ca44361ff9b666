"""A run writes its page whole or not at all, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.measure import BenchmarkError, Plan, Section, Table
from benchmarks.processes import child

RESULTS = Path(run.__file__).with_name("results.md")


def works(plan: Plan) -> Section:
    (plan.work / "data").write_bytes(b"data")
    plan.say("round 1")
    return Section(title="A subject", method="How.", tables=[Table(("what", "÷ floor"), [("append", "2.00")])])


def fails(plan: Plan) -> Section:
    (plan.work / "data").write_bytes(b"data")
    raise BenchmarkError("it refused a batch")


def interrupted(plan: Plan) -> Section:
    (plan.work / "data").write_bytes(b"data")
    raise KeyboardInterrupt


def terminated(_plan: Plan) -> Section:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the signal did not interrupt")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_OUT", tmp_path / "out")
    monkeypatch.setattr(run, "_RESULTS", tmp_path / "results.md")
    monkeypatch.setattr(run, "_SUBJECTS", {"first": works})
    return tmp_path


def test_a_run_writes_a_page_that_names_its_subjects_and_nothing_else(place, capsys):
    assert run.main([]) == 0
    assert [path.name for path in place.iterdir()] == ["results.md"]
    page = (place / "results.md").read_text(encoding="utf-8")
    assert page.startswith("# Benchmark results\n\nWritten by `make bench`;")
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == ["The machine", "A subject"]
    assert "\n\n| what | ÷ floor |\n|---|---:|\n| append | 2.00 |\n" in page
    assert "(default run, 3 rounds, " in page
    assert str(place) not in page
    assert "[1/1] first\n      round 1\n" in capsys.readouterr().out


def test_a_full_run_has_more_rounds_and_says_so(place):
    assert run.main(["--full"]) == 0
    assert "(full run, 7 rounds, " in (place / "results.md").read_text(encoding="utf-8")


def test_some_subjects_alone_are_shown_and_not_written(place, capsys):
    assert run.main(["--only", "first", "--rounds", "1"]) == 0
    assert "## A subject" in capsys.readouterr().out
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("subject", "status"), [(fails, 1), (interrupted, 130), (terminated, 130)])
def test_a_run_that_fails_or_is_interrupted_writes_and_leaves_nothing(place, monkeypatch, subject, status):
    monkeypatch.setattr(run, "_SUBJECTS", {"first": works, "second": subject})
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert run.main([]) == status
    assert list(place.iterdir()) == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == handlers


def test_what_another_run_is_at_work_on_is_left_alone(place):
    (place / "out" / "other").mkdir(parents=True)
    assert run.main([]) == 0
    assert [path.name for path in (place / "out").iterdir()] == ["other"]


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--rounds", "0"], ["--rounds", "many"]])
def test_what_cannot_be_measured_is_refused(place, arguments):
    with pytest.raises(SystemExit):
        run.main(arguments)
    assert list(place.iterdir()) == []


def test_a_child_is_ended_whatever_ends_the_block(tmp_path):
    block = child([sys.executable, "-c", "import time; time.sleep(600)"], log=tmp_path / "log")
    process = block.__enter__()
    assert process.poll() is None
    assert not block.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert process.returncode == -signal.SIGTERM


def test_the_settings_of_the_caller_do_not_reach_a_child(tmp_path, monkeypatch):
    monkeypatch.setenv("TALLYSTICK_DATA_DIR", "/elsewhere")
    code = "import os; print(sorted(name for name in os.environ if name.startswith('TALLYSTICK_')), flush=True)"
    command = [sys.executable, "-c", code]
    with child(command, log=tmp_path / "log", environment={"TALLYSTICK_LOG_ID": "acme"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"['TALLYSTICK_LOG_ID']\n"


def test_the_committed_results_are_a_page_of_every_subject():
    page = RESULTS.read_text(encoding="utf-8")
    assert page.startswith("# Benchmark results\n\n")
    assert len(re.findall("^## ", page, flags=re.MULTILINE)) == 1 + len(run._SUBJECTS)
    assert not re.search(r"/(home|tmp|work|root|usr)/", page)
