"""``tallystick inspect``: what stands in a file that nobody wants there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from ledger.errors import ConfigError
from service.cli.output import ExitCode, echo_json, json_option, say, with_exit_codes

__all__ = ["inspect"]

_KIND_HELP: Final = "Only this kind of finding; may be given several times."


@click.command(short_help="Look through a file for what nobody wants in it.")
@click.argument("file", metavar="FILE|-", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help=_KIND_HELP)
@click.option(
    "--rules",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Rules of your own beside ours: *.yar.",
)
@json_option
@with_exit_codes
def inspect(file: Path, kinds: tuple[str, ...], rules: Path | None, *, as_json: bool) -> None:
    """Inspect FILE, or what is piped in: secrets, personal data, injection, odd characters.

    A text that begins as JSON does is read as JSON: places are pointers, spans are bytes; else lines and bytes. The
    values that were found are never printed. Exit status 1 with findings, 4 if none was found but not everything was
    looked at.
    """
    # Two libraries and a compiler of rules: not for those who only ask for help.
    from enforcement.inspection import KINDS, Inspector, Settings, read_folder

    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no kind of finding; there are {', '.join(KINDS)}")
    chosen = frozenset(kind for kind in KINDS if not kinds or kind in kinds)
    inspector = Inspector(Settings(kinds=chosen), read_folder(rules) if rules else None)
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    found = inspector.json(data)
    if as_json:
        findings = [
            {"kind": one.kind, "rule": one.rule, "place": one.place, "start": one.start, "end": one.end}
            for one in found.findings
        ]
        said = {
            "complete": found.complete,
            "count": found.count,
            "findings": findings,
            "inspector": inspector.digest,
        }
        echo_json(said)
    else:
        for one in found.findings:
            say(f"{one.place or 'whole'}  {one.name}  {one.start}-{one.end}")
        looked = "everything was looked at" if found.complete else "not everything was looked at"
        say(f"{found.count} finding{'' if found.count == 1 else 's'}; {looked}")
    if found.findings:
        raise SystemExit(ExitCode.FAILED)
    if not found.complete:
        raise SystemExit(ExitCode.UNCHECKED)
