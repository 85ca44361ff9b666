"""``python -m benchmarks.run``: measure every subject and write ``benchmarks/results.md``.

``--full`` measures more, with no limit of time; ``--only SUBJECT`` measures some, and shows them without writing.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from types import FrameType

from benchmarks import behaviour, checks, decisions, engines, gateway, history, ingest, inspection, tools, tree
from benchmarks.machine import Steadiness, describe, steadiness, steadiness_table, today
from benchmarks.measure import BenchmarkError, Plan, Section
from ledger.clock import SystemClock

__all__ = ["main"]

_SUBJECTS: dict[str, Callable[[Plan], Section]] = {
    "ingest": ingest.run,
    "tree": tree.run,
    "checks": checks.run,
    "decisions": decisions.run,
    "engines": engines.run,
    "history": history.run,
    "gateway": gateway.run,
    "tools": tools.run,
    "behaviour": behaviour.run,
    "inspection": inspection.run,
}
_HERE = Path(__file__).resolve().parent
_OUT = _HERE / "out"
_RESULTS = _HERE / "results.md"
_ROUNDS, _FULL_ROUNDS = 3, 7

_TITLE = "# Benchmark results"
_PREFACE = """Written by `make bench`; what they mean is said in [performance](../docs/performance.md). Machines
differ and are noisy: read the ratios, which are formed between neighbours in one run. A figure is min · **median** ·
max over interleaved rounds; where the three lie far apart, the machine was busy with something else. *Processor time*
is what a process itself used, which others on the machine disturb less."""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure Tallystick on this machine.")
    parser.add_argument("--full", action="store_true", help="measure more and longer, with no limit of time")
    parser.add_argument("--only", action="append", choices=_SUBJECTS, metavar="SUBJECT", help=", ".join(_SUBJECTS))
    parser.add_argument("--rounds", type=int, help=f"{_ROUNDS}, or {_FULL_ROUNDS} with --full")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("there is at least one round")
    return options


def _say(text: str) -> None:
    print(text, flush=True)


def _measure(names: Sequence[str], plan_of: Callable[[Path], Plan], work: Path) -> Iterator[Section]:
    for number, name in enumerate(names, 1):
        _say(f"[{number}/{len(names)}] {name}")
        folder = work / name
        folder.mkdir()
        started = perf_counter()
        yield _SUBJECTS[name](plan_of(folder))
        # A run may fill the disk with what the next subject does not need.
        shutil.rmtree(folder)
        _say(f"      done in {perf_counter() - started:.0f} s")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _work() -> Iterator[Path]:
    """Yield a folder that is gone afterwards, whatever happens; whoever asks us to end gets what Ctrl-C gets.

    It stands beside the sources: what is measured is the disk that the repository is on, and no file system in memory.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    _OUT.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=_OUT) as name:
            yield Path(name)
    finally:
        # Another run may be at work in there.
        with suppress(OSError):
            _OUT.rmdir()
        for number, handler in before.items():
            signal.signal(number, handler)


def _page(heading: str, before: Steadiness, after: Steadiness, sections: Sequence[Section]) -> str:
    lines = [_TITLE, "", _PREFACE, "", heading, "", "## The machine", ""]
    lines += [f"- {line}" for line in describe()]
    lines += ["", *steadiness_table(before, after).lines(), ""]
    for section in sections:
        lines += section.lines()
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit status: 1 if a subject did not do what was to be measured, 130 if interrupted."""
    options = _arguments(arguments)
    rounds = options.rounds or (_FULL_ROUNDS if options.full else _ROUNDS)
    names = [name for name in _SUBJECTS if not options.only or name in options.only]
    when, started = today(SystemClock()), perf_counter()

    def plan_of(folder: Path) -> Plan:
        return Plan(full=options.full, rounds=rounds, work=folder, say=lambda text: _say(f"      {text}"))

    try:
        with _work() as work:
            before = steadiness(work)
            sections = list(_measure(names, plan_of, work))
            after = steadiness(work)
    except BenchmarkError as error:
        _say(f"benchmark failed: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; nothing was written")
        return 130
    minutes = (perf_counter() - started) / 60
    kind = "full" if options.full else "default"
    heading = f"Measured {when} ({kind} run, {rounds} rounds, {minutes:.1f} minutes)."
    page = _page(heading, before, after, sections)
    if options.only:
        _say(f"\n{page}")
        return 0
    _RESULTS.write_text(page, encoding="utf-8")
    _say(f"{_RESULTS.name} written in {minutes:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
