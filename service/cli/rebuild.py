"""``tallystick rebuild``: tiles and searchable tables anew, from the entry bundles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import click

from ledger.clock import SystemClock
from ledger.errors import ConflictError
from ledger.ports import Lease
from ledger.rebuild import Rebuilder, RebuildReport
from service.auditing import read_trust
from service.cli.options import log_id_option
from service.cli.output import counted, echo_json, json_option, say, with_exit_codes
from service.rebuilds import leave_note, rebuild_json
from service.settings import load_settings

__all__ = ["rebuild"]

_RENEW_SECONDS: Final = 1.0
_LISTED: Final = 20


@contextmanager
def _alone(lease: Lease, *, needed: bool) -> Iterator[Callable[[int, int], None]]:
    """Hold the publisher's lease, and yield what keeps it while the work goes on.

    Raises:
        ConflictError: A service publishes this log now.
    """
    if not needed:
        yield lambda _done, _all: None
        return
    if not lease.take():
        raise ConflictError("a service is running on this log: stop every one, and try again")
    taken = monotonic()

    def keep(_done: int, _all: int) -> None:
        nonlocal taken
        if monotonic() - taken < _RENEW_SECONDS:
            return
        if not lease.take():
            raise ConflictError("a service began to publish this log: stop every one, and try again")
        taken = monotonic()

    try:
        yield keep
    finally:
        lease.give_up()


@click.command(short_help="Rebuild tiles and searchable tables from the entry bundles.")
@click.option("--dry-run", is_flag=True, help="Only list what differs; the service may be running.")
@click.option(
    "--forward", is_flag=True, help="Bring a database that was put back from a backup up to the exposed checkpoint."
)
@log_id_option
@json_option
@with_exit_codes
def rebuild(log_id: str | None, *, dry_run: bool, forward: bool, as_json: bool) -> None:
    """Put right the tiles and the rows that are missing or wrong, and list them. Stop the service first.

    Before anything is written every entry is hashed, and the tree must be the one of the signed checkpoint. Entry
    bundles and checkpoints are never touched. The service records the rebuild when it next starts.
    """
    from service.wiring.installations import open_for_rebuild

    settings = load_settings(log_id=log_id)
    settings.require_database()
    parts = open_for_rebuild(settings)
    try:
        # Of a log that was never opened there is nothing to be alone with.
        parts.store.sequenced_size(settings.log_id)
        with _alone(parts.lease, needed=not dry_run) as keep:
            sizes = parts.anchor.sizes(settings.log_id)
            rebuilder = Rebuilder(
                settings.log_id,
                parts.tiles,
                read_trust(settings.keys_dir / "trust.policy"),
                store=parts.store,
                catalog=parts.catalog,
                projection=parts.projection,
                other_checkpoints=(parts.anchor.get(settings.log_id, size) for size in sizes),
                progress=keep,
            )
            now_ms = SystemClock().now_ms()
            report = rebuilder.run(dry_run=dry_run, forward=forward, now_ms=now_ms)
            if report.written:
                leave_note(settings, report, now_ms=now_ms)
    finally:
        parts.close()
    if as_json:
        echo_json(rebuild_json(report))
    else:
        _tell(report)
    if dry_run and report.differs:
        sys.exit(1)


def _tell(report: RebuildReport) -> None:
    say(f"log {report.log_id}: {counted(report.head.size, 'leaves')}, root {report.head.root.hex()}, as it was signed")
    verb = "rebuilt" if report.written else "differs"
    for path in report.tiles:
        say(f"  {verb}: {path}")
    for part in report.leaves[:_LISTED]:
        leaves = f"leaf {part.start}" if len(part) == 1 else f"leaves {part.start} to {part.stop - 1}"
        say(f"  {verb}: the rows of {leaves}")
    if len(report.leaves) > _LISTED:
        say(f"  … and {counted(len(report.leaves) - _LISTED, 'more ranges')}; --json lists all")
    if report.forward_needed:
        verb = "was brought" if report.written else "is to be brought (--forward)"
        say(f"  the database {verb} forward from leaf {report.forward_from}")
        if report.lost_payloads:
            say(f"  LOST: {counted(report.lost_payloads, 'vaulted payloads')} of these records went with the database")
    say(
        "nothing differs"
        if not report.differs
        else f"{counted(len(report.tiles), 'tiles')} and the rows of {counted(report.rows, 'leaves')}"
    )
