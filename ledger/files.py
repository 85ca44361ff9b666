"""Durable files: create-only and replacing writes that are synced, with their directories, when they return."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ledger.errors import ConflictError

__all__ = ["create_durably", "replace_durably", "sync_directory"]


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_parents(path: Path) -> None:
    """Create missing parent directories, each durable in its own parent."""
    missing = []
    parent = path.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def _write_temporary(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def create_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Create a file that was not there; the same bytes again are success.

    A reader sees the whole file or none: the bytes are synced under a temporary name before the name is given, and a
    crash leaves at most a temporary file behind.

    Raises:
        ConflictError: Other bytes stand there.
        OSError: The file system failed.
    """
    _make_parents(path)
    temporary = _write_temporary(path, data, mode)
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            if path.read_bytes() != data:
                raise ConflictError(f"other bytes stand at {path.name}") from None
    finally:
        temporary.unlink()
    # Also where the file was there already: the call before may have died between the link and this sync.
    sync_directory(path.parent)


def replace_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put a file in the place of another, atomically.

    Raises:
        OSError: The file system failed.
    """
    _make_parents(path)
    temporary = _write_temporary(path, data, mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
