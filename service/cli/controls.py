"""``tallystick controls``: the control catalogues that ship, and one control with the tests behind its verdict."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from evidence.catalogue import framework_names, load_crosswalk, load_framework
from evidence.controls import Control, ControlTest, Framework
from ledger.errors import EvidenceError
from service.cli.output import echo_json, json_option, say, table, with_exit_codes

__all__ = ["controls"]


@click.group(short_help="Control catalogues, and what each control is tested by.")
def controls() -> None:
    """Control catalogues: which controls there are, and what their verdicts are computed from."""


def _tests_in_words(control: Control) -> str:
    return f"{len(control.tests)} + {len(control.conditional_tests)}" if control.tests else "not tested"


def _overview(framework: Framework) -> dict[str, Any]:
    return {
        "framework": framework.id,
        "title": framework.title,
        "version": framework.version,
        "mapping_version": framework.mapping_version,
        "controls": len(framework.controls),
        "direct": sum(control.strength.value == "direct" for control in framework.controls),
        "not_tested": sum(not control.tests for control in framework.controls),
    }


def _test_value(test: ControlTest, *, conditional: bool) -> dict[str, Any]:
    return {
        **test.members,
        "conditional": conditional,
        "population": "every item" if test.where is None else test.where.describe(),
        "asked": test.must.describe(),
    }


@controls.command("list", short_help="The frameworks, or the controls of one.")
@click.argument("framework", required=False)
@json_option
@with_exit_codes
def list_controls(framework: str | None, *, as_json: bool) -> None:
    """List the frameworks that ship, or the controls of FRAMEWORK.

    Of each control: how far the ledger is its evidence, and how many tests compute its verdict, those about what need
    not happen behind the plus sign.
    """
    if framework is None:
        shown = [_overview(load_framework(name)) for name in framework_names()]
        if as_json:
            echo_json({"frameworks": shown})
            return
        header = ("framework", "version", "mapping", "controls", "direct", "not tested", "title")
        columns = ("framework", "version", "mapping_version", "controls", "direct", "not_tested", "title")
        table(header, [[one[column] for column in columns] for one in shown])
        return
    catalogue = load_framework(framework)
    if as_json:
        echo_json({**_overview(catalogue), "controls": [msgspec.to_builtins(one) for one in catalogue.controls]})
        return
    table(
        ("control", "evidence", "strength", "tests", "in our words"),
        [
            (one.id, " ".join(one.evidence), one.strength.value, _tests_in_words(one), one.title)
            for one in catalogue.controls
        ],
    )


def _find(framework: Framework, control: str) -> Control:
    for one in framework.controls:
        if one.id == control:
            return one
    raise EvidenceError(f"{framework.id} has no control {control[:80]!a}; see tallystick controls list {framework.id}")


@controls.command(short_help="One control with its tests.")
@click.argument("framework")
@click.argument("control")
@json_option
@with_exit_codes
def show(framework: str, control: str, *, as_json: bool) -> None:
    """Show CONTROL of FRAMEWORK: what it rests on, what you must add, and each test that computes its verdict."""
    catalogue = load_framework(framework)
    found = _find(catalogue, control)
    tests = [(catalogue.tests[test], test in found.conditional_tests) for test in found.all_tests]
    related = list(load_crosswalk().related(catalogue.id, found.id))
    if as_json:
        told = [_test_value(test, conditional=conditional) for test, conditional in tests]
        echo_json(
            {
                "framework": catalogue.id,
                **msgspec.to_builtins(found),
                "computed": told,
                "related": msgspec.to_builtins(related),
            }
        )
        return
    say(f"{catalogue.title} ({catalogue.version}), {found.id}: {found.title}")
    say(f"  evidence     {', '.join(found.evidence)}, {found.strength.value}")
    say(f"  rationale    {found.rationale}")
    say(f"  you add      {found.customer_adds}")
    say(f"  procedure    {found.procedure}")
    if found.not_tested is not None:
        say(f"  not tested   {found.not_tested}")
    for test, conditional in tests:
        say()
        say(f"  {test.id}{' (if it occurs)' if conditional else ''}: {test.sentence}")
        say(f"    of each {test.subject} with: {'anything' if test.where is None else test.where.describe()}")
        wanted = {"every": "must", "none": "must not"}.get(test.quantifier, f"at least {test.needed} must")
        say(f"    {wanted} be so: {test.must.describe()}")
    for one in related:
        say()
        say(f"  {one.relation} {one.end.framework} {one.end.control}, confidence {one.confidence}: {one.rationale}")
