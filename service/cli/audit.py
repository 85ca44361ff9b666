"""``tallystick audit``: re-read everything, re-derive everything, compare."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from ledger.auditor import Auditor, AuditReport, Finding
from ledger.completeness import Verdict
from ledger.errors import ConfigError
from ledger.trust import TrustPolicy, parse_trust_policy
from service.cli.options import log_id_option
from service.cli.output import ExitCode, counted, echo_json, json_option, say, with_exit_codes
from service.settings import load_settings, passphrase

__all__ = ["audit", "read_trust"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def read_trust(path: Path) -> TrustPolicy:
    """Read a trust policy file.

    Raises:
        ConfigError: It cannot be read.
        MalformedError: It is not a trust policy.
    """
    try:
        return parse_trust_policy(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the trust policy cannot be read: {error.strerror}") from error


@contextmanager
def _progress(*, show: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that draws a progress bar on standard error, if a person is looking."""
    if not show:
        yield lambda _done, _all: None
        return
    with click.progressbar(length=1, label="audit", file=sys.stderr) as bar:

        def update(done: int, everything: int) -> None:
            bar.length = everything
            bar.update(done - bar.pos)

        yield update


def _installation_auditor(
    log_id: str | None, trust: TrustPolicy | None, known: list[bytes], progress: Callable[[int, int], None]
) -> tuple[Auditor, Callable[[], None]]:
    """Return an auditor over the installation that the settings name, and what closes it."""
    from service.wiring import open_for_audit

    settings = load_settings(log_id=log_id)
    parts = open_for_audit(settings, passphrase())
    policy = trust or read_trust(settings.keys_dir / "trust.policy")
    # Every copy: of a log that was put back and published anew, only those from before contradict it.
    known += [parts.anchor.get(settings.log_id, size) for size in parts.anchor.sizes(settings.log_id)]
    auditor = Auditor(
        settings.log_id,
        parts.tiles,
        policy,
        catalog=parts.catalog,
        vault=parts.vault,
        other_checkpoints=known,
        progress=progress,
    )
    return auditor, parts.close


def _directory_auditor(
    log: Path, trust: TrustPolicy | None, known: list[bytes], progress: Callable[[int, int], None]
) -> Auditor:
    from service.wiring import directory_tiles

    if trust is None:
        raise ConfigError("--log needs --trust: trust never comes from the log itself")
    return Auditor(log.name, directory_tiles(log.parent), trust, other_checkpoints=known, progress=progress)


@click.command(short_help="Re-read a log, re-derive everything, compare.")
@click.option(
    "--log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copy of a log's directory, named by its log id; without it, the installation that the settings name.",
)
@click.option("--trust", type=_FILE, help="Trust policy; without it, the one beside the installation's keys.")
@click.option("--known", type=_FILE, multiple=True, help="A checkpoint that you kept; may be repeated.")
@log_id_option
@json_option
@with_exit_codes
def audit(log: Path | None, trust: Path | None, known: tuple[Path, ...], log_id: str | None, *, as_json: bool) -> None:
    """Audit a log: entries, tiles, root, signatures, projection, vault, anchor, completeness.

    Nothing is repaired. Exit status 1 if anything is found, 4 if nothing could be audited.
    """
    policy = read_trust(trust) if trust else None
    kept = [path.read_bytes() for path in known]
    with _progress(show=not as_json and sys.stderr.isatty()) as progress:
        if log is not None:
            report = _directory_auditor(log.resolve(), policy, kept, progress).audit()
        else:
            auditor, close = _installation_auditor(log_id, policy, kept, progress)
            try:
                report = auditor.audit()
            finally:
                close()
    if as_json:
        echo_json(_json(report))
    else:
        _tell(report, own_trust=policy is None)
    if report.findings:
        sys.exit(ExitCode.FAILED)
    if report.head is None:
        sys.exit(ExitCode.UNCHECKED)


def _json(report: AuditReport) -> dict[str, object]:
    return {
        "log_id": report.log_id,
        "size": report.head.size if report.head else None,
        "root": report.head.root.hex() if report.head else None,
        "checked": dict(report.checked),
        "not_checked": report.not_checked,
        "findings": [asdict(finding) for finding in report.findings],
        "notices": [asdict(notice) for notice in report.notices],
        "streams": [asdict(stream) for stream in report.streams],
    }


def _where(finding: Finding) -> str:
    leaf = "" if finding.leaf is None else f"leaf {finding.leaf}"
    return ", ".join(part for part in (leaf, finding.place or "") if part) or "log"


def _tell(report: AuditReport, *, own_trust: bool) -> None:
    if report.head is not None:
        say(f"log {report.log_id}: {report.head.size} leaves, root {report.head.root.hex()}")
    for name, count in report.checked.items():
        say(f"  checked: {counted(count, name)}")
    for sentence in report.not_checked:
        say(f"  NOT checked: {sentence}")
    if own_trust:
        say("  trust: the policy beside this installation's own keys; an auditor brings his own with --trust")
    for stream in report.streams:
        mark = "" if stream.verdict is Verdict.COMPLETE else "! "
        epoch = f" epoch {stream.epoch[:8]}" if stream.epoch else ""
        say(f"  {mark}{stream.enforcer_id}{epoch}: {stream.verdict}: {stream.reason}")
    for notice in report.notices:
        say(f"  note: {notice.check} ({_where(notice)}): {notice.reason}")
    for line in _found(report.findings):
        say(f"  FOUND {line}")
    if any(finding.reason.startswith("the record is of the log ") for finding in report.findings):
        say("  A copy of a log's directory is named by its log id; this one is not, if every record is of another log.")
    say(_verdict(report))


def _found(findings: Sequence[Finding]) -> list[str]:
    """Return a line for each kind of finding and reason, at its first place, with the number of the others."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.check, finding.reason), []).append(finding)
    return [
        f"{check} ({_where(alike[0])}{f', and {len(alike) - 1} more' if len(alike) > 1 else ''}): {reason}"
        for (check, reason), alike in kinds.items()
    ]


def _verdict(report: AuditReport) -> str:
    if report.findings:
        return counted(len(report.findings), "findings")
    if report.head is None:
        return "NOTHING WAS AUDITED: there is no published tree here"
    unsure = sum(stream.verdict is not Verdict.COMPLETE for stream in report.streams)
    return "no fault found" + (
        f"; {unsure} of {len(report.streams)} streams are not known to be complete" if unsure else ""
    )
