"""``tallystick policy lint`` and ``fmt``: for those who write policies; they work on a directory and ask no service."""

from __future__ import annotations

import stat
import sys
from dataclasses import asdict
from difflib import unified_diff
from pathlib import Path
from typing import Final

import click

from ledger.errors import NotFoundError
from ledger.files import replace_durably
from policies.bundles import Bundle
from policies.linting import Finding, lint_bundle
from policies.signal_lint import gateway_findings
from service.cli.options import BUNDLE_DIRECTORY
from service.cli.output import ExitCode, counted, echo_json, json_option, say, with_exit_codes
from service.cli.policy_testing import run_tests

__all__ = ["fmt", "lint"]

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Find what is allowed in a bundle and probably not meant.")
@BUNDLE_DIRECTORY
@click.option("--ignore", multiple=True, metavar="CODE", help="Leave findings of this kind out; may be repeated.")
@click.option("--config", type=_FILE, help="A gateway's configuration: find signals that it does not make, or in vain.")
@json_option
@with_exit_codes
def lint(directory: Path, ignore: tuple[str, ...], config: Path | None, *, as_json: bool) -> None:
    """Find what the bundle in DIRECTORY may say and probably does not mean: limits that a call escapes, unread values.

    Exit status 1 if something is found, 2 if the bundle does not load.
    """
    from service.wiring.engines import linter_of

    bundle, report = run_tests(directory)
    linter = linter_of(bundle.manifest.engine)
    all_found = [*lint_bundle(bundle, report, linter), *(() if config is None else _at_gateway(bundle, config))]
    found = [finding for finding in all_found if finding.code not in ignore]
    if as_json:
        echo_json({"engine_looked_into": linter is not None, "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            say(f"{finding.place}: {finding.code}: {finding.message}")
        if linter is None:
            say(f"policies of the engine {bundle.manifest.engine} were not looked into, only their tests")
        say(f"{counted(len(found), 'findings')}")
    if found:
        sys.exit(ExitCode.FAILED)


def _at_gateway(bundle: Bundle, path: Path) -> list[Finding]:
    """Return what is wrong of a bundle at the gateway of a configuration."""
    from enforcement.config_files import load_config, load_servers
    from enforcement.made_signals import made_signals
    from service.wiring.engines import signals_read_by

    config = load_config(path)
    servers = config.servers if config.servers_file is None else load_servers(config.servers_file)
    reads = signals_read_by(bundle)
    if reads is None:
        raise NotFoundError(f"nobody can tell what signals a bundle of the engine {bundle.manifest.engine} reads")
    return sorted(set(gateway_findings(reads, made_signals(config, servers), gateway=path.name)))


@click.command(short_help="Lay out a bundle's policy files.")
@BUNDLE_DIRECTORY
@click.option("--check", is_flag=True, help="Write nothing; exit status 1 if a file would change.")
@click.option("--diff", is_flag=True, help="Write nothing; show what would change.")
@json_option
@with_exit_codes
def fmt(directory: Path, *, check: bool, diff: bool, as_json: bool) -> None:
    """Lay out the policy files of the bundle in DIRECTORY as their engine's own formatter does, comments kept.

    The layout is part of the bundle: its revision changes with it. Exit status 4 if there is no formatter for it here.
    """
    from policies.directories import read_bundle_directory
    from service.wiring.engines import formatter_of

    bundle = read_bundle_directory(directory)
    engine = bundle.manifest.engine
    formatter = formatter_of(engine)
    if formatter is None:
        raise NotFoundError(f"there is no formatter for {engine} here; for Rego, `opa fmt` is one")
    texts = {path: bundle.text(path) for path in bundle.manifest.policies}
    laid_out = {path: formatter(path, text) for path, text in texts.items()}
    changed = [path for path, text in texts.items() if laid_out[path] != text]
    for path in [] if check or diff else changed:
        target = directory / path
        replace_durably(target, laid_out[path].encode(), mode=stat.S_IMODE(target.stat().st_mode))
    if as_json:
        echo_json({"changed": changed, "written": not (check or diff)})
    elif diff:
        for path in changed:
            lines = unified_diff(texts[path].splitlines(), laid_out[path].splitlines(), path, path, lineterm="")
            say("\n".join(lines))
    else:
        for path in changed:
            say(f"{'would lay out' if check else 'laid out'} {path}")
    if changed and check:
        sys.exit(ExitCode.FAILED)
