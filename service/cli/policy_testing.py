"""``tallystick policy test``: a bundle's own cases, once or again at every change; asks no service."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from ledger.errors import ConfigError, PolicyError
from policies.bundles import Bundle
from policies.junit import junit_xml
from policies.testing import TestReport, run_cases
from service.cli.options import BUNDLE_DIRECTORY
from service.cli.output import ExitCode, echo_json, json_option, say, with_exit_codes
from service.settings import load_settings

__all__ = ["run_tests", "test"]

_WATCH_SECONDS: Final = 0.3


@click.command(short_help="Run a bundle's test cases.")
@BUNDLE_DIRECTORY
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write a report in JUnit's XML as well.")
@click.option("--coverage", is_flag=True, help="Fail as well if no case reaches some rule.")
@click.option("--watch", is_flag=True, help="Run again whenever a file changes, until interrupted.")
@json_option
@with_exit_codes
def test(directory: Path, junit: Path | None, *, coverage: bool, watch: bool, as_json: bool) -> None:
    """Run the test cases of the bundle in DIRECTORY and say which rules they reach.

    Exit status 1 if a case fails, 2 if the bundle or its tests cannot be read, 4 if the bundle has no case at all.
    """
    if watch:
        if as_json or junit:
            raise ConfigError("--watch is for people: it goes with neither --json nor --junit")
        _watch(directory)
        return
    bundle, report = run_tests(directory)
    if junit is not None:
        junit.write_bytes(junit_xml(bundle.manifest.name, bundle.revision, report))
    if as_json:
        echo_json(_as_json(report))
    else:
        _tell(report)
    if report.failures or (coverage and report.uncovered):
        sys.exit(ExitCode.FAILED)
    if not report.results:
        sys.exit(ExitCode.UNCHECKED)


def run_tests(directory: Path) -> tuple[Bundle, TestReport]:
    """Return the bundle of a directory, and what became of its test cases.

    Raises:
        PolicySyntaxError: The bundle or its tests cannot be used.
        ConfigError: The bundle wants an OPA server, and the settings for one cannot be used.
    """
    from policies.directories import read_bundle_directory
    from service.wiring.engines import make_evaluator, make_opa_server

    bundle = read_bundle_directory(directory)
    opa = None
    if bundle.manifest.engine == "opa_server":
        settings = load_settings()
        opa = make_opa_server(settings.opa_url, settings.opa_token, settings.opa_seconds)
    evaluator = make_evaluator(opa=opa)
    try:
        return bundle, asyncio.run(run_cases(bundle, evaluator))
    finally:
        evaluator.close()


def _as_json(report: TestReport) -> dict[str, object]:
    return {
        "cases": len(report.results),
        "failures": [
            {"file": result.case.file, "case": result.case.name, "differences": result.differences}
            for result in report.failures
        ],
        "covered": report.covered,
        "uncovered": report.uncovered,
    }


def _tell(report: TestReport) -> None:
    for result in report.failures:
        say(f"FAILED {result.case.file}: {result.case.name}")
        for line in result.differences:
            say(f"  {line}")
    say(f"{len(report.results) - len(report.failures)} of {len(report.results)} cases pass")
    say(f"{len(report.covered)} of {len(report.covered) + len(report.uncovered)} rules reached")
    for rule in report.uncovered:
        say(f"  not reached: {rule}")


def _stamps(directory: Path) -> frozenset[tuple[str, int, int]]:
    """Return what changes when a file below a directory does; one that vanishes meanwhile is not among them."""
    found = set()
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            try:
                status = path.stat()
            except OSError:
                continue
            found.add((str(path), status.st_mtime_ns, status.st_size))
    return frozenset(found)


def _changes(directory: Path) -> Iterator[None]:
    """Yield once, and again whenever a file of the directory has changed."""
    seen = None
    while True:
        if (now := _stamps(directory)) != seen:
            seen = now
            yield
        time.sleep(_WATCH_SECONDS)


def _watch(directory: Path) -> None:
    try:
        for _ in _changes(directory):
            try:
                _, report = run_tests(directory)
            except PolicyError as error:  # half a change is no reason to leave: the next one may mend it
                say(f"REFUSED {error}")
            else:
                _tell(report)
            say("waiting for a change; Ctrl-C ends")
    except KeyboardInterrupt:
        say()
