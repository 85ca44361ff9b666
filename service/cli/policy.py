"""``tallystick policy``: testing, publishing and activating bundles."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from policies.testing import TestReport, run_cases
from service.cli.client import ServiceClient, service_options
from service.cli.options import REVISION
from service.cli.output import ExitCode, echo_json, json_option, say, table, with_exit_codes

__all__ = ["policy"]

_DIRECTORY = click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def policy() -> None:
    """Policy bundles: test, publish, activate, roll back."""


@policy.command(short_help="Run a bundle's test cases.")
@_DIRECTORY
@json_option
@with_exit_codes
def test(directory: Path, *, as_json: bool) -> None:
    """Run the test cases of the bundle in DIRECTORY and say which rules they reach.

    Exit status 1 if a case fails, 4 if the bundle has no case at all.
    """
    from policies.directories import read_bundle_directory
    from service.wiring import make_evaluator

    evaluator = make_evaluator()
    try:
        report = asyncio.run(run_cases(read_bundle_directory(directory), evaluator))
    finally:
        evaluator.close()
    if as_json:
        echo_json(
            {
                "cases": len(report.results),
                "failures": [
                    {"file": result.case.file, "case": result.case.name, "differences": result.differences}
                    for result in report.failures
                ],
                "covered": report.covered,
                "uncovered": report.uncovered,
            }
        )
    else:
        _tell(report)
    if report.failures:
        sys.exit(ExitCode.FAILED)
    if not report.results:
        sys.exit(ExitCode.UNCHECKED)


def _tell(report: TestReport) -> None:
    for result in report.failures:
        say(f"FAILED {result.case.file}: {result.case.name}")
        for line in result.differences:
            say(f"  {line}")
    say(f"{len(report.results) - len(report.failures)} of {len(report.results)} cases pass")
    say(f"{len(report.covered)} of {len(report.covered) + len(report.uncovered)} rules reached")
    for rule in report.uncovered:
        say(f"  not reached: {rule}")


@policy.command(short_help="Print a bundle's revision.")
@_DIRECTORY
@json_option
@with_exit_codes
def revision(directory: Path, *, as_json: bool) -> None:
    """Print the revision of the bundle in DIRECTORY: its digest."""
    from policies.directories import read_bundle_directory

    found = read_bundle_directory(directory).revision
    if as_json:
        echo_json({"revision": found})
    else:
        say(found)


@policy.command(short_help="Publish a bundle; it is not active yet.")
@_DIRECTORY
@service_options
@json_option
@with_exit_codes
def publish(directory: Path, url: str, token: str | None, *, as_json: bool) -> None:
    """Publish the bundle in DIRECTORY; it is checked, kept, recorded, and not yet active."""
    from policies.directories import read_bundle_directory

    bundle = read_bundle_directory(directory)
    answer = ServiceClient(url, token).post("/v1/bundles", content=bundle.archive())
    if as_json:
        echo_json(answer)
    else:
        say(f"published {answer['name']} {answer['revision']}")


@policy.command()
@click.argument("bundle_revision", metavar="REVISION", type=REVISION)
@click.option("--comment", default=None, help="Why; recorded.")
@service_options
@json_option
@with_exit_codes
def activate(bundle_revision: str, comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Make the published bundle REVISION the active one."""
    answer = ServiceClient(url, token).post(f"/v1/bundles/{bundle_revision}/activation", {"comment": comment})
    if as_json:
        echo_json(answer)
    else:
        say(f"active: {answer['active']}")


@policy.command()
@click.option("--comment", default=None, help="Why; recorded.")
@service_options
@json_option
@with_exit_codes
def rollback(comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Make the bundle active again that was so before the present one."""
    answer = ServiceClient(url, token).post("/v1/bundles/rollback", {"comment": comment})
    if as_json:
        echo_json(answer)
    else:
        say(f"active: {answer['active']}")


@policy.command("list")
@service_options
@json_option
@with_exit_codes
def list_bundles(url: str, token: str | None, *, as_json: bool) -> None:
    """List published bundles and every recorded step."""
    answer = ServiceClient(url, token).get("/v1/bundles")
    if as_json:
        echo_json(answer)
        return
    say(f"active: {answer['active'] or 'none'}")
    table(
        ("leaf", "step", "name", "revision", "by role"),
        [
            (item["leaf_index"], item["action"], item["name"], item["revision"], item["actor_role"])
            for item in answer["history"]
        ],
    )
