"""``tallystick backup`` and ``tallystick restore``: the embedded shape, copied whole and put back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.clock import SystemClock
from service.auditing import read_trust
from service.cli.options import log_id_option
from service.cli.output import counted, echo_json, json_option, say, with_exit_codes
from service.settings import load_settings

if TYPE_CHECKING:
    from service.backups import Manifest

__all__ = ["backup", "restore"]

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Copy an embedded installation, while it runs.")
@click.argument("directory", type=_DIRECTORY)
@log_id_option
@json_option
@with_exit_codes
def backup(directory: Path, log_id: str | None, *, as_json: bool) -> None:
    """Copy database, log and packs to a new DIRECTORY; the service may be running.

    The copy is one state of the log, and is verified. It holds no keys and no anchor: those are backed up apart.
    """
    from service.backups import back_up
    from service.wiring.installations import open_database_copy
    from service.wiring.places import directory_tiles, make_tiles

    settings = load_settings(log_id=log_id)
    manifest = back_up(
        settings,
        directory.resolve(),
        make_tiles(settings, SystemClock()),
        read_trust(settings.keys_dir / "trust.policy"),
        open_copy=open_database_copy,
        directory_tiles=directory_tiles,
        now_ms=SystemClock().now_ms(),
    )
    if as_json:
        echo_json(_json(manifest))
        return
    say(f"log {manifest.log_id}: {counted(manifest.size, 'leaves')}, root {manifest.root}")
    say(f"  copied to {directory}: {counted(len(manifest.files), 'files')}, listed with their digests in manifest.json")
    say("  NOT copied: the keys, the subject keys and the anchor; back them up apart, and not to the same place")


@click.command(short_help="Put a copy of an embedded installation back.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--database-only",
    is_flag=True,
    help="Leave the log directory, which is newer; then `tallystick rebuild --forward`.",
)
@log_id_option
@json_option
@with_exit_codes
def restore(directory: Path, log_id: str | None, *, database_only: bool, as_json: bool) -> None:
    """Put a copy that `tallystick backup` made back where the settings say. Stop the service first.

    Nothing that stands there is overwritten. A log that has been shown beyond the copy publishes nothing afterwards,
    since the anchor knows better: keep the newer log directory, and bring the database forward.
    """
    from service.backups import restore as put_back
    from service.wiring.places import directory_tiles

    settings = load_settings(log_id=log_id)
    manifest = put_back(
        settings,
        directory.resolve(),
        read_trust(settings.keys_dir / "trust.policy"),
        directory_tiles=directory_tiles,
        database_only=database_only,
    )
    if as_json:
        echo_json(_json(manifest))
        return
    say(f"log {manifest.log_id}: {counted(manifest.size, 'leaves')}, root {manifest.root}")
    if database_only:
        say("  the database is back; the log directory was left. Next: tallystick rebuild --forward")
    else:
        say("  database, log and packs are back. Next: tallystick audit, then start the service")


def _json(manifest: Manifest) -> dict[str, object]:
    return {
        "log_id": manifest.log_id,
        "size": manifest.size,
        "root": manifest.root,
        "made_ms": manifest.made_ms,
        "files": len(manifest.files),
    }
