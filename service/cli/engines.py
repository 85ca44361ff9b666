"""``tallystick engines``: policy engines of other versions, kept so that old decisions replay exactly."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from ledger.errors import ConfigError
from policies.cellar import KeptEngine, look_into, machine_tag
from policies.programs import EngineKind, installed_version
from service.cli.output import echo_json, json_option, say, table, with_exit_codes
from service.settings import load_installation

__all__ = ["engines"]

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]{1,128})==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})")


@click.group(short_help="Keep engines of other versions.")
def engines() -> None:
    """The engine cellar: policy engines of other versions, so that old decisions replay exactly.

    It lies in TALLYSTICK_ENGINE_CELLAR, or in the folder engines of TALLYSTICK_DATA_DIR.
    """


def _cellar() -> Path:
    return load_installation().settings.effective_engine_cellar


def _requirement(value: str) -> tuple[EngineKind, str]:
    from service.wiring.engines import ENGINE_KINDS

    spelt = _REQUIREMENT.fullmatch(value)
    known = {kind.distribution: kind for kind in ENGINE_KINDS}
    if spelt is None or spelt[1] not in known:
        raise ConfigError(f"name an engine's package and exact version, such as {next(iter(known))}==X.Y.Z")
    return known[spelt[1]], spelt[2]


@engines.command("list", short_help="List the installed and the kept engines.")
@json_option
@with_exit_codes
def list_engines(*, as_json: bool) -> None:
    """List the installed engines and those of the cellar, and whether each can be used here."""
    from service.wiring.engines import ENGINE_KINDS

    rows = [
        {
            "engine": kind.name,
            "requirement": f"{kind.distribution}=={installed_version(kind)}",
            "state": "installed",
            "wheel_sha256": None,
        }
        for kind in ENGINE_KINDS
    ]
    for place in look_into(_cellar()):
        usable = "kept" if place.kept.machine == machine_tag() else f"for {place.kept.machine}"
        rows.append(
            {
                "engine": place.kept.name,
                "requirement": _shown(place.kept),
                "state": usable if place.is_intact() else "CHANGED since it was put here; not used",
                "wheel_sha256": place.kept.wheel_sha256,
            }
        )
    if as_json:
        echo_json({"engines": rows})
        return
    table(
        ("engine", "package", "state", "sha-256 of its wheel"),
        [(row["engine"], row["requirement"], row["state"], row["wheel_sha256"] or "") for row in rows],
    )


@engines.command(short_help="Put an engine's version into the cellar.")
@click.argument("requirement", metavar="PACKAGE==VERSION")
@click.option(
    "--wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file instead of the index."
)
@click.option("--sha256", "expected", metavar="HEX", help="What the wheel's SHA-256 must be.")
@json_option
@with_exit_codes
def add(requirement: str, wheel: Path | None, expected: str | None, *, as_json: bool) -> None:
    """Put PACKAGE==VERSION, such as cedarpy==4.12.1, into the cellar.

    It comes from the index of packages that pip is set up for, unless --wheel names a file; nothing else ever asks the
    network for an engine. Its SHA-256 is printed and kept.
    """
    from policies.cellar_filling import add_wheel, fetch_wheel

    kind, version = _requirement(requirement)
    if expected is not None and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise ConfigError("--sha256 takes 64 hexadecimal digits in lower case")
    with tempfile.TemporaryDirectory() as folder:
        found = wheel or fetch_wheel(kind, version, Path(folder))
        kept = add_wheel(_cellar(), kind, version, found, expected_sha256=expected)
    _tell([kept], as_json=as_json)


@engines.command(short_help="Put the installed engines into the cellar.")
@json_option
@with_exit_codes
def keep(*, as_json: bool) -> None:
    """Put the installed engines into the cellar, so that they are there after an upgrade.

    `tallystick serve` does so at every start; run it before an upgrade where no service runs.
    """
    from policies.cellar_filling import keep_installed
    from service.wiring.engines import ENGINE_KINDS

    cellar = _cellar()
    _tell([kept for kind in ENGINE_KINDS if (kept := keep_installed(cellar, kind)) is not None], as_json=as_json)


@engines.command(short_help="Take an engine's version out of the cellar.")
@click.argument("requirement", metavar="PACKAGE==VERSION")
@json_option
@with_exit_codes
def remove(requirement: str, *, as_json: bool) -> None:
    """Take PACKAGE==VERSION out of the cellar; its decisions are then replayed by the installed engine, and say so."""
    from policies.cellar_filling import remove_engine

    kind, version = _requirement(requirement)
    remove_engine(_cellar(), kind, version)
    if as_json:
        echo_json({"removed": requirement})
    else:
        say(f"removed {requirement}")


def _shown(kept: KeptEngine) -> str:
    return f"{kept.distribution}=={kept.version}"


def _tell(added: Iterable[KeptEngine], *, as_json: bool) -> None:
    rows = list(added)
    if as_json:
        echo_json({"added": [{"requirement": _shown(kept), "wheel_sha256": kept.wheel_sha256} for kept in rows]})
        return
    for kept in rows:
        digest = "" if kept.wheel_sha256 is None else f", SHA-256 of its wheel {kept.wheel_sha256}"
        say(f"kept {_shown(kept)}{digest}")
    if not rows:
        say("every installed engine is in the cellar already")
