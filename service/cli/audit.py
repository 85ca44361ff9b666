"""``tallystick audit``: re-read everything, re-derive everything, compare."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import click

from evidence.contradictions import contradiction
from ledger.audit_chunks import AuditSources
from ledger.audit_report import AuditReport, Depth, Finding
from ledger.audit_state import AuditMemory
from ledger.audit_workers import AuditWorkers, Processes
from ledger.auditor import Auditor
from ledger.clock import SystemClock
from ledger.completeness import Verdict
from ledger.errors import ConfigError
from ledger.notes import KeyId
from ledger.prover import Prover
from ledger.trust import TrustPolicy
from service.auditing import installation_auditor, read_trust
from service.cli.options import compromised_option, log_id_option, without_compromised
from service.cli.output import ExitCode, counted, echo_json, json_option, save_new, say, with_exit_codes
from service.settings import load_settings, passphrase

__all__ = ["audit"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What the options ask for, whatever is audited."""

    log_id: str | None
    trust: TrustPolicy | None
    known: list[bytes]
    depth: Depth
    processes: int
    since_last: bool
    anew: bool
    notes: Path | None

    def memory(self, log_id: str, default: Path | None) -> AuditMemory | None:
        """Return where the audit remembers how far it came, or None."""
        if not self.since_last:
            return None
        directory = self.notes or default
        if directory is None:
            raise ConfigError("--since with --log needs --notes: a directory for what is remembered")
        memory = AuditMemory(directory, log_id, self.depth)
        if self.anew:
            with memory.held():
                memory.forget()
        return memory

    def workers(self, open_sources: Callable[[], AuditSources], here: AuditSources) -> AuditWorkers | None:
        """Return who checks the entries."""
        if self.processes == 1:
            return None
        return Processes(count=self.processes, open_sources=open_sources, here=here)


_Opened: TypeAlias = tuple[Auditor, Prover, TrustPolicy]
"""An auditor, the log that it audits, and whose signatures count there."""


@contextmanager
def _installation_auditor(wish: _Wish, progress: Callable[[int, int], None]) -> Iterator[_Opened]:
    """Yield an auditor over the installation that the settings name."""
    from service.wiring.installations import open_audit_sources, open_for_audit

    settings, secret = load_settings(log_id=wish.log_id), passphrase()
    settings.require_database()
    policy = wish.trust or read_trust(settings.keys_dir / "trust.policy")
    parts = open_for_audit(settings, secret)
    try:
        auditor = installation_auditor(
            settings,
            parts,
            policy,
            depth=wish.depth,
            known=wish.known,
            memory=wish.memory(settings.log_id, settings.data_dir / "audit"),
            workers=wish.workers(partial(open_audit_sources, settings, secret), parts.sources),
            progress=progress,
        )
        yield auditor, Prover(parts.tiles, settings.log_id), policy
    finally:
        parts.close()


@contextmanager
def _directory_auditor(log: Path, wish: _Wish, progress: Callable[[int, int], None]) -> Iterator[_Opened]:
    from service.wiring.installations import directory_sources

    if wish.trust is None:
        raise ConfigError("--log needs --trust: trust never comes from the log itself")
    open_sources = partial(directory_sources, log.parent)
    here = open_sources()
    auditor = Auditor(
        log.name,
        here.tiles,
        wish.trust,
        other_checkpoints=wish.known,
        progress=progress,
        depth=wish.depth,
        workers=wish.workers(open_sources, here),
        memory=wish.memory(log.name, None),
        now_ms=SystemClock().now_ms(),
    )
    yield auditor, Prover(here.tiles, log.name), wish.trust


@click.command(short_help="Re-read a log, re-derive everything, compare.")
@click.option(
    "--log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copy of a log's directory, named by its log id; without it, the installation that the settings name.",
)
@click.option("--trust", type=_FILE, help="Trust policy; without it, the one beside the installation's keys.")
@click.option("--known", type=_FILE, multiple=True, help="A checkpoint that you kept; may be repeated.")
@click.option(
    "--depth",
    type=click.Choice([str(depth) for depth in Depth]),
    default=str(Depth.FULL),
    show_default=True,
    help="hashes: tree alone; projection: and the searchable tables; records: and signatures; full: all, payloads too.",
)
@click.option("--processes", type=click.IntRange(1, 256), default=None, help="How many; one for each processor.")
@click.option(
    "--since", type=click.Choice(["last"]), help="Go on where the last audit of this depth stopped, and remember."
)
@click.option("--full", "anew", is_flag=True, help="With --since: read everything all the same, and remember it.")
@click.option(
    "--notes",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where --since remembers; without it, in the installation's data directory.",
)
@click.option(
    "--equivocation",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the proof, should a known or anchored checkpoint and the log be two histories.",
)
@compromised_option
@log_id_option
@json_option
@with_exit_codes
def audit(
    log: Path | None,
    trust: Path | None,
    known: tuple[Path, ...],
    depth: str,
    processes: int | None,
    since: str | None,
    notes: Path | None,
    equivocation: Path | None,
    compromised: dict[KeyId, int],
    log_id: str | None,
    *,
    anew: bool,
    as_json: bool,
) -> None:
    """Audit a log: entries, tiles, root, signatures, projection, vault, anchor, completeness.

    Nothing is repaired. Exit status 1 if anything is found, 4 if nothing could be audited.
    """
    if since is None and (anew or notes is not None):
        raise click.UsageError("--full and --notes are for --since.")
    wish = _Wish(
        log_id=log_id,
        trust=without_compromised(read_trust(trust) if trust else None, compromised),
        known=[path.read_bytes() for path in known],
        depth=Depth(depth),
        processes=processes or len(os.sched_getaffinity(0)),
        since_last=since is not None,
        anew=anew,
        notes=notes,
    )
    with _progress(show=not as_json and sys.stderr.isatty()) as progress:
        opened = (
            _installation_auditor(wish, progress) if log is None else _directory_auditor(log.resolve(), wish, progress)
        )
        with opened as (auditor, prover, policy):
            report = auditor.audit()
            proof = _two_histories(report, prover, policy) if report.contradicting else None
    if as_json:
        echo_json(_json(report))
    else:
        _tell(report, own_trust=trust is None)
    if proof is not None:
        _keep_proof(proof, equivocation, say_it=not as_json)
    if report.findings:
        sys.exit(ExitCode.FAILED)
    if report.head is None:
        sys.exit(ExitCode.UNCHECKED)


def _two_histories(report: AuditReport, prover: Prover, policy: TrustPolicy) -> bytes | None:
    """Return the proof that a signed checkpoint contradicts the published one, if what is at hand proves it."""
    published = prover.checkpoint()
    proofs = (contradiction(published, one, policy, log=prover) for one in report.contradicting)
    return next((proof for proof in proofs if proof is not None), None)


def _keep_proof(proof: bytes, path: Path | None, *, say_it: bool) -> None:
    if path is not None:
        save_new(path, proof, "--equivocation")
    if say_it:
        told = f"the proof is in {path}" if path else "--equivocation FILE writes down the proof"
        say(f"  TWO HISTORIES: the log's keys signed both; {told}, for `tallystick verify FILE --trust trust.policy`")


def _json(report: AuditReport) -> dict[str, object]:
    return {
        "log_id": report.log_id,
        "depth": str(report.depth),
        "read_from": report.read_from,
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
