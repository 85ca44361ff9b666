"""Durable files: create-only and replacing writes that are synced, with their directories, when they return."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError, ConflictError, MalformedError

__all__ = [
    "appearing_directory",
    "check_log_id",
    "create_durably",
    "log_directory",
    "make_directory_durably",
    "replace_durably",
    "sync_directory",
]

_LOG_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_log_id(log_id: str) -> str:
    """Return a log id that may stand in a path or key.

    Raises:
        MalformedError: Not a log id.
    """
    # INVARIANT 12: no log id leads out of its root or into another log's directory, whoever passed it on.
    if _LOG_ID.fullmatch(log_id) is None:
        raise MalformedError(f"not a log id: {log_id!r}")
    return log_id


def log_directory(root: Path, log_id: str) -> Path:
    """Return the directory below ``root`` that is one log's own.

    Raises:
        MalformedError: Not a log id.
    """
    return root / check_log_id(log_id)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=4096)
def _sync_name_once(directory: Path) -> None:
    # The parent of a directory that an administrator made may be closed to us; then its name is his to keep.
    with suppress(PermissionError):
        sync_directory(directory.parent)


def make_directory_durably(directory: Path, *, mode: int = 0o777) -> None:
    """Create a directory and what is missing above it; their names are durable when the call returns.

    Args:
        directory: Which.
        mode: Permissions of each directory that is created, before the umask.

    Raises:
        OSError: The file system failed.
    """
    missing: list[Path] = []
    standing = directory
    while not standing.exists():
        missing.append(standing)
        standing = standing.parent
    # Another process, or one that was killed, may have made it and not synced its name. What stands above it was
    # durable before it was made.
    _sync_name_once(standing)
    for absent in reversed(missing):
        absent.mkdir(mode=mode, exist_ok=True)
        sync_directory(absent.parent)


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
    make_directory_durably(path.parent)
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
    make_directory_durably(path.parent)
    temporary = _write_temporary(path, data, mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def appearing_directory(directory: Path) -> Iterator[Path]:
    """Yield a new directory that gets its name at the end; if it does not come to that, nothing stays.

    Raises:
        ConfigError: There is something of that name.
        OSError: The file system failed.
    """
    if directory.exists():
        raise ConfigError(f"{directory} exists; name a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.tmp")
    building.mkdir(mode=0o700)
    try:
        yield building
        building.rename(directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sync_directory(directory.parent)
