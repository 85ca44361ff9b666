"""``tallystick policy generate``: bundles made from what servers say of themselves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.errors import ConfigError, MalformedError
from service.cli.output import ExitCode, counted, echo_json, json_option, say, with_exit_codes

if TYPE_CHECKING:
    from policies.bundles import Bundle
    from policies.generate.bundle import Generated
    from policies.generate.compare import Comparison
    from policies.testing import TestReport

__all__ = ["generate"]


@click.command(short_help="Make a bundle of what a server says of its tools.")
@click.argument("form", type=click.Choice(["openapi", "postman", "mcp"]))
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--server", required=True, help="The server's name, as the gateway knows it.")
@click.option(
    "-o", "--output", "directory", type=click.Path(file_okay=False, path_type=Path), help="Where to write it."
)
@click.option(
    "--engine", type=click.Choice(["cedar", "rego"]), default="cedar", show_default=True, help="Language of the rules."
)
@click.option("--only", multiple=True, metavar="GLOB", help="Only tools of such a name; may be repeated.")
@click.option("--update", is_flag=True, help="Write into a bundle that is there; leave its rules and schema alone.")
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Say what the document changes in the bundle of this directory.",
)
@click.option("--fail-on-change", is_flag=True, help="With --against: exit status 5 if anything changed.")
@json_option
@with_exit_codes
def generate(  # the options of one command
    form: str,
    document: Path,
    server: str,
    directory: Path | None,
    engine: str,
    only: tuple[str, ...],
    against: Path | None,
    *,
    update: bool,
    fail_on_change: bool,
    as_json: bool,
) -> None:
    """Make a bundle of DOCUMENT: an OpenAPI document, a Postman collection, or an answer to MCP's tools/list.

    The bundle has a JSON Schema of each tool's arguments, rules to start with, and tests made of the document's own
    examples, which are run. Its README.md says what was left out, what is not enforced, and what was guessed.

    Exit status 1 if a generated test fails, 2 if the document cannot be read, 5 with --fail-on-change if it changed.
    """
    from policies.generate.bundle import generate as make

    if directory is None and against is None:
        raise ConfigError("-o says where to write the bundle, --against what to compare it with; one is needed")
    if fail_on_change and against is None:
        raise ConfigError("--fail-on-change needs --against")
    older = None if against is None else _boundaries_of(against)
    made = make(form, _read(document), server=server, engine="rego" if engine == "rego" else "cedar", only=only)
    comparison = None if older is None else _compare(older, made, server)
    tests = None
    if directory is not None:
        _write(directory, made, server, update=update)
        tests = _try(directory)
    if as_json:
        echo_json(_document(made, comparison, tests))
    else:
        _tell(made, comparison, tests, directory)
    if tests is not None and tests.failures:
        sys.exit(ExitCode.FAILED)
    if fail_on_change and comparison is not None and not comparison.same:
        sys.exit(ExitCode.CONDITION_HIT)


def _read(path: Path) -> bytes:
    from policies.generate.documents import MAX_DOCUMENT_BYTES

    with path.open("rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedError(f"a description has at most {MAX_DOCUMENT_BYTES} bytes")
    return data


def _bundle(directory: Path) -> Bundle:
    from policies.directories import read_bundle_directory

    return read_bundle_directory(directory)


def _boundaries_of(directory: Path) -> Bundle:
    bundle = _bundle(directory)
    if bundle.manifest.boundaries is None:
        raise ConfigError(f"the bundle in {directory} has no boundaries to compare with")
    return bundle


def _compare(older: Bundle, made: Generated, server: str) -> Comparison:
    from policies.boundaries import read_boundaries
    from policies.generate.compare import compare

    before = read_boundaries(older)
    assert before is not None  # the bundle has been asked for them
    return compare(before.document, made.boundary.compiled.document, server)


def _write(directory: Path, made: Generated, server: str, *, update: bool) -> None:
    """Write a bundle; into one that is there, only what a description says, and never its rules."""
    from policies.generate.bundle import MADE_ANEW

    there = directory.is_dir() and any(directory.iterdir())
    if there and not update:
        raise ConfigError(f"{directory} is not empty; --update replaces what a description says, and leaves the rules")
    if update:
        _boundaries_of(directory)  # what is updated is a bundle, and of this kind
    own_tests = f"{server}-[0-9][0-9].yaml"
    for stale in (directory / "tests").glob(own_tests) if update else ():
        stale.unlink()
    for path, data in made.files.items():
        if update and path not in MADE_ANEW and not path.startswith("tests/"):
            continue
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _try(directory: Path) -> TestReport:
    from policies.testing import run_cases
    from service.wiring.engines import make_evaluator

    evaluator = make_evaluator()
    try:
        return asyncio.run(run_cases(_bundle(directory), evaluator))
    finally:
        evaluator.close()


def _document(made: Generated, comparison: Comparison | None, tests: TestReport | None) -> dict[str, object]:
    found: dict[str, object] = {**made.report.json()}
    if comparison is not None:
        found["comparison"] = comparison.json()
    if tests is not None:
        found["tests"] = {"cases": len(tests.results), "failures": [item.case.name for item in tests.failures]}
    return found


def _tell(made: Generated, comparison: Comparison | None, tests: TestReport | None, directory: Path | None) -> None:
    say(made.report.summary())
    if comparison is not None:
        _tell_changes(comparison)
    if tests is not None:
        say(f"{len(tests.results) - len(tests.failures)} of {counted(len(tests.results), 'cases')} pass")
        for failure in tests.failures:
            say(f"  FAILED {failure.case.name}: {'; '.join(failure.differences)}")
        say(f"written to {directory}; read its README.md")


def _tell_changes(comparison: Comparison) -> None:
    if comparison.same:
        say("nothing changed")
    for word, tools in (("added", comparison.added), ("removed", comparison.removed)):
        for tool in tools:
            say(f"  {word} {tool}")
    for tool, lines in comparison.changed.items():
        say(f"  changed {tool}")
        for line in lines:
            say(f"    {line}")
