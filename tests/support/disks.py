"""A disk that can be full: a small file system in memory where we may mount one, else errors injected where it counts.

The injected kind makes every sync of a file fail for want of space and lets SQLite take no further page; both look to
the code like a full disk, at the points where a full disk is noticed.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, event

_BYTES = 8 * 1024 * 1024


@dataclass
class SmallDisk:
    """A folder whose disk can be filled and freed.

    Attributes:
        folder: Where to put things.
        mounted: Whether it is a file system of its own; else the errors are injected.
    """

    folder: Path
    mounted: bool
    _fill: Callable[[Engine], None]
    _free: Callable[[Engine], None]

    def fill(self, engine: Engine) -> None:
        """Leave no room, neither for files nor for the database."""
        self._fill(engine)

    def free(self, engine: Engine) -> None:
        """Make room again."""
        self._free(engine)


@contextmanager
def small_disk(folder: Path, *, inject: bool = False) -> Iterator[SmallDisk]:
    """Yield a small disk at ``folder``; ``inject`` asks for the injected kind where the other could be had, too."""
    folder.mkdir()
    real_sync = os.fsync
    mounted = not inject and _run("mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tallystick-test", str(folder))
    disk = _real(folder) if mounted else _injected(folder)
    try:
        yield disk
    finally:
        os.fsync = real_sync
        if mounted:
            _run("umount", str(folder))


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _real(folder: Path) -> SmallDisk:
    filler = folder / "filler"

    def fill(_: Engine) -> None:
        with filler.open("ab", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017  # any other error is a fault of the test

    return SmallDisk(folder, mounted=True, _fill=fill, _free=lambda _: filler.unlink())


def _injected(folder: Path) -> SmallDisk:
    real_sync = os.fsync

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_page(connection: object, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # type: ignore[attr-defined]  # the driver's connection

    def fill(engine: Engine) -> None:
        os.fsync = no_space
        engine.dispose()
        event.listen(engine, "connect", no_page)

    def free(engine: Engine) -> None:
        os.fsync = real_sync
        event.remove(engine, "connect", no_page)
        engine.dispose()

    return SmallDisk(folder, mounted=False, _fill=fill, _free=free)
