"""What a rebuild leaves in the log: an access record, written by the service when it next starts.

`tallystick rebuild` works while nobody else writes, so that it leaves a note in the data directory: the report as JSON.
The service records the note, with its digest, and then renames it; if it is killed in between, it records it twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ledger.errors import StorageError
from ledger.files import create_durably
from ledger.rebuild import RebuildReport
from service.settings import Settings

if TYPE_CHECKING:
    from service.access import AccessRecorder

__all__ = ["leave_note", "rebuild_json", "record_rebuilds"]

_ACTION: Final = "rebuild"


class _Note(msgspec.Struct):
    log_id: str
    items: int
    report: dict[str, object]


def rebuild_json(report: RebuildReport) -> dict[str, object]:
    """Return a report for programs."""
    return {
        "log_id": report.log_id,
        "size": report.head.size,
        "root": report.head.root.hex(),
        "written": report.written,
        "tiles": report.tiles,
        "leaves": [[part.start, part.stop - 1] for part in report.leaves],
        "forward_from": report.forward_from,
        "forward_needed": report.forward_needed,
        "lost_payloads": report.lost_payloads,
    }


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "rebuilds" / settings.log_id


def leave_note(settings: Settings, report: RebuildReport, *, now_ms: int) -> Path:
    """Keep a report for the service to record.

    Raises:
        StorageError: It cannot be kept.
    """
    note = _Note(report.log_id, len(report.tiles) + report.rows, rebuild_json(report))
    path = _folder(settings) / f"{now_ms}.json"
    try:
        create_durably(path, msgspec.json.encode(note), mode=0o640)
    except OSError as error:
        raise StorageError(f"the report cannot be kept: {error.strerror}") from error
    return path


async def record_rebuilds(settings: Settings, access: AccessRecorder) -> None:
    """Record every note that was left, and take it away.

    Raises:
        StorageError: A note cannot be read.
        DependencyError: A record could not be written.
    """
    for path in await asyncio.to_thread(_notes, _folder(settings)):
        try:
            data = await asyncio.to_thread(path.read_bytes)
            note = msgspec.json.decode(data, type=_Note)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(f"the note of a rebuild cannot be read: {path.name}") from error
        digest = hashlib.sha256(data).hexdigest()
        draft = access.operator_draft(_ACTION, "log", target_id=note.log_id, items=note.items, digest=digest)
        await access.record([draft])
        # Kept under another name: the record's digest is that of these bytes.
        await asyncio.to_thread(path.rename, path.with_suffix(".recorded"))


def _notes(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.json"))
    except OSError as error:
        raise StorageError(f"the notes of rebuilds cannot be read: {error.strerror}") from error
