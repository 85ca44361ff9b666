"""``tallystick controls``: the control catalogues that ship, and one control with the tests behind its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
import msgspec

from evidence.catalogue import framework_names, load_crosswalk, load_framework
from evidence.controls import Control, ControlTest, Framework
from evidence.overlays import framework_digest
from ledger.errors import EvidenceError
from service.cli.output import echo_json, json_option, save_new, say, table, with_exit_codes

__all__ = ["controls"]

_KEYS: Final = ("bundle-ed25519.json", "bundle-ml-dsa-44.json")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


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
        "sha256": framework_digest(framework),
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


@controls.command(short_help="Sign an overlay.")
@click.argument("overlay", type=_FILE)
@click.option("--keys", "folder", required=True, type=_FOLDER, help="Where `tallystick policy keygen` made them.")
@click.option("--output", required=True, type=_NEW_FILE, help="A new file.")
@json_option
@with_exit_codes
def sign(overlay: Path, folder: Path, output: Path, *, as_json: bool) -> None:
    """Check the overlay in the YAML file OVERLAY, and sign it; writes a DSSE envelope."""
    from evidence.catalogue import read_overlay
    from evidence.overlays import sign_overlay
    from ledger.keys import load_key
    from service.settings import passphrase
    from service.wiring.signing import bundle_signer

    value, framework = read_overlay(overlay)
    keys = [load_key(f"file:{folder / file}", passphrase()) for file in _KEYS]
    save_new(output, sign_overlay(value, [bundle_signer(key) for key in keys]), "--output")
    if as_json:
        echo_json({"framework": framework.id, "sha256": framework_digest(framework)})
    else:
        say(f"signed {framework.id}, {framework.mapping_version}")


@controls.command(short_help="Check an overlay and its signature.")
@click.argument("overlay", type=_FILE)
@click.option("--signature", required=True, type=_FILE, help="The DSSE envelope.")
@click.option("--trust", required=True, type=_FILE, help="Public keys that must have signed it.")
@click.option("--output", type=_NEW_FILE, help="A new file: the framework that it makes, as packs hold it.")
@json_option
@with_exit_codes
def verify(overlay: Path, signature: Path, trust: Path, output: Path | None, *, as_json: bool) -> None:
    """Check that exactly the trusted keys have signed the overlay in the YAML file OVERLAY, and what it makes."""
    from evidence.catalogue import read_overlay
    from evidence.overlays import verify_overlay
    from evidence.scope import framework_bytes
    from policies.trusted_keys import read_trusted_keys

    value, framework = read_overlay(overlay)
    verify_overlay(value, signature.read_bytes(), read_trusted_keys(trust))
    if output is not None:
        save_new(output, framework_bytes(framework), "--output")
    if as_json:
        echo_json(_overview(framework))
    else:
        say(f"signed by those who must: {framework.id}, {framework.mapping_version}")
        say(f"its file in a pack has SHA-256 {framework_digest(framework)}")
