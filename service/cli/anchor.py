"""``tallystick anchor``: try what the anchor's bucket refuses, and look whether it kept what it was given."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from ledger.anchor_checks import AnchorCheck, Drift, check_copies, check_protection
from ledger.anchoring import ATTEMPTS, InspectableTiles, ProbeReport, TriableAnchor
from ledger.clock import SystemClock
from ledger.errors import ConfigError, NotFoundError
from ledger.proofs import TreeHead
from ledger.published_tree import ShownTree
from ledger.tiles import TileCoordinate, bundle_coordinates, tile_coordinates
from service.auditing import read_trust
from service.cli.options import log_id_option
from service.cli.output import ExitCode, counted, echo_json, json_option, say, table, with_exit_codes
from service.settings import load_settings

__all__ = ["anchor"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(short_help="Try the anchor's locks, and verify what it keeps.")
def anchor() -> None:
    """The anchor: independent, locked copies of the log's checkpoints."""


@anchor.command()
@log_id_option
@json_option
@with_exit_codes
def probe(log_id: str | None, *, as_json: bool) -> None:
    """Try everything that could undo a lock, on an object made for it.

    With the credentials that the settings name. Exit status 1 if the bucket gave way to something, whether that was
    accepted or not.
    """
    from service.wiring.places import make_anchor

    settings = load_settings(log_id=log_id)
    kept = make_anchor(settings, SystemClock())
    if not isinstance(kept, TriableAnchor):
        raise ConfigError("the anchor is a directory: it locks nothing, so there is nothing to try")
    report = kept.probe()
    if as_json:
        echo_json({**asdict(report), "weaknesses": report.weaknesses, "accepted": settings.accepted_weaknesses})
    else:
        _tell_probe(report, settings.accepted_weaknesses)
    if report.weaknesses:
        sys.exit(ExitCode.FAILED)


def _tell_probe(report: ProbeReport, accepted: tuple[str, ...]) -> None:
    say(f"{report.place}: tried on an object with a lock of {report.lock_seconds} s")
    rows = [
        (attempt.name, "held" if attempt.held else "GAVE WAY", attempt.answer, ATTEMPTS[attempt.name])
        for attempt in report.attempts
    ]
    table(("attempt", "result", "answer", "what was tried"), rows)
    if report.skew_ms is not None:
        say(f"the server's clock is {report.skew_ms / 1000:+.1f} s from this machine's")
    weak = [name for name in report.weaknesses if name not in accepted]
    if weak:
        say(f"the service will not start with this bucket, unless TALLYSTICK_ANCHOR_ACCEPT={','.join(weak)}")


@anchor.command("verify")
@click.option("--above", type=click.IntRange(min=-1), default=-1, help="Only checkpoints of larger trees than this.")
@click.option("--trust", type=_FILE, help="Trust policy; without it, the one beside the installation's keys.")
@click.option(
    "--tiles",
    "wanted",
    default="0",
    metavar="N|all",
    help="Full tiles and bundles in S3 whose locks to look at as well.",
)
@log_id_option
@json_option
@with_exit_codes
def verify_anchor(above: int, trust: Path | None, wanted: str, log_id: str | None, *, as_json: bool) -> None:
    """Re-read every copy: bytes, signatures, root, lock, date, versions.

    Exit status 1 if anything is not as it was made, 4 if the anchor cannot be read or keeps nothing.
    """
    from service.wiring.places import make_anchor, make_tiles

    if wanted != "all" and not wanted.isdecimal():
        raise click.UsageError("--tiles is a number, or all.")
    settings, clock = load_settings(log_id=log_id), SystemClock()
    policy = read_trust(trust or settings.keys_dir / "trust.policy")
    kept, tiles = make_anchor(settings, clock), make_tiles(settings, clock)
    tree = ShownTree(tiles, settings.log_id, policy)
    copies = kept.copies(settings.log_id, above=above)
    check = check_copies(copies, policy, now_ms=clock.now_ms(), above=above, tree=tree)
    head = tree.head
    looked = ended = 0
    if wanted != "0":
        if not isinstance(tiles, InspectableTiles) or not settings.tiles_retention_days:
            raise ConfigError("--tiles: full tiles are not locked in this installation")
        for drift, until in _tile_drift(tiles, settings.log_id, head, wanted):
            looked += 1
            ended += until is not None and until <= clock.now_ms()
            check.drift += drift
    if ended:
        told = f"the locks of {ended} full tiles and bundles have ended, as was decided when they were made"
        check.notices.append(f"{told}: who holds the store's credentials can delete them")
    lag = (head.size if head else 0) - (check.newest if check.newest is not None else max(above, 0))
    if as_json:
        echo_json({**asdict(check), "tiles": looked, "published": head.size if head else None, "lag": lag})
    else:
        _tell_check(check, looked, lag, own_trust=trust is None)
    if check.drift:
        sys.exit(ExitCode.FAILED)
    if not check.copies and above < 0:
        sys.exit(ExitCode.UNCHECKED)


def _tile_drift(
    tiles: InspectableTiles, log_id: str, head: TreeHead | None, wanted: str
) -> Iterator[tuple[list[Drift], int | None]]:
    """Yield what is wrong with each tile or bundle, and when its lock ends."""
    for coordinate in _chosen(head.size if head else 0, wanted):
        try:
            kept = tiles.protection(log_id, coordinate.path)
        except NotFoundError as error:
            yield [Drift(kind="missing", place=coordinate.path, reason=str(error))], None
        else:
            yield check_protection(kept, coordinate.path), kept.retain_until_ms


def _chosen(size: int, wanted: str) -> list[TileCoordinate]:
    every = [one for one in (*tile_coordinates(size), *bundle_coordinates(size)) if one.full]
    if wanted == "all" or int(wanted) >= len(every):
        return every
    return sorted(secrets.SystemRandom().sample(every, int(wanted)))


def _tell_check(check: AnchorCheck, tiles: int, lag: int, *, own_trust: bool) -> None:
    newest = "none" if check.newest is None else f"newest {check.newest}"
    say(f"anchor: {counted(check.copies, 'copies')}, {newest}; not anchored yet: {counted(lag, 'records')}")
    if tiles:
        say(f"  checked: {counted(tiles, 'locks')} of full tiles and bundles")
    if own_trust:
        say("  trust: the policy beside this installation's own keys; an auditor brings his own with --trust")
    for notice in check.notices:
        say(f"  note: {notice}")
    for drift in check.drift:
        say(f"  FOUND {drift.kind} ({drift.place}): {drift.reason}")
    say("no drift found" if not check.drift else counted(len(check.drift), "findings"))
