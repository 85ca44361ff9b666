"""``tallystick logs``: the logs of an installation, how far each is, and how old its newest checkpoint."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import click

from ledger.clock import SystemClock
from ledger.errors import ConfigError, MalformedError, VerificationError
from service.auditing import read_trust
from service.cli.output import ExitCode, echo_json, json_option, table, with_exit_codes
from service.settings import Settings, load_installation

__all__ = ["logs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One log.

    Attributes:
        log_id: Its id.
        tenant: Whose it is.
        origin: Its name on its checkpoints.
        size: Records that have an index; None if it was never opened.
        published: Tree size of the newest checkpoint that meets the trust policy beside the log's keys, or None.
        age_seconds: Age of that checkpoint, by the log's own signature.
        trouble: What keeps the checkpoint from being believed, or None.
    """

    log_id: str
    tenant: str
    origin: str
    size: int | None
    published: int | None
    age_seconds: int | None
    trouble: str | None


def _line(settings: Settings, size: int | None, checkpoint: bytes | None, now_ms: int) -> _Line:
    published: int | None = None
    age: int | None = None
    trouble: str | None = None
    if checkpoint is not None:
        try:
            verified = read_trust(settings.keys_dir / "trust.policy").verify(checkpoint)
        except (ConfigError, MalformedError, VerificationError) as error:
            trouble = str(error)
        else:
            published = verified.head.size
            signed = verified.timestamps.get(settings.origin)
            age = None if signed is None else max(0, now_ms // 1000 - signed)
    return _Line(
        log_id=settings.log_id,
        tenant=settings.tenant,
        origin=settings.origin,
        size=size,
        published=published,
        age_seconds=age,
        trouble=trouble,
    )


def _cells(line: _Line) -> list[object]:
    if line.trouble is not None:
        state: object = f"not believed: {line.trouble}"
    elif line.published is None:
        state = "-"
    else:
        state = f"{line.published}, {'-' if line.age_seconds is None else line.age_seconds} s old"
    return [line.log_id, line.tenant, line.origin, "-" if line.size is None else line.size, state]


@click.command(short_help="List the logs of this installation.")
@json_option
@with_exit_codes
def logs(*, as_json: bool) -> None:
    """List the logs that TALLYSTICK_LOGS names, or the only one; the service may be running.

    Exit status 1 if a checkpoint does not verify by the trust policy beside the log's keys.
    """
    from service.wiring.installations import summarise_logs

    installation = load_installation()
    installation.settings.require_database()
    found = summarise_logs(installation.settings, [log.log_id for log in installation.logs])
    now_ms = SystemClock().now_ms()
    lines = [_line(log, found[log.log_id].sequenced, found[log.log_id].checkpoint, now_ms) for log in installation.logs]
    if as_json:
        echo_json([asdict(line) for line in lines])
    else:
        table(("log", "tenant", "origin", "size", "checkpoint"), map(_cells, lines))
    if any(line.trouble is not None for line in lines):
        sys.exit(ExitCode.FAILED)
