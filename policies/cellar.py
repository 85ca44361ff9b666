"""The engine cellar: policy engines of other versions than the installed ones, each in a directory of its own.

A decision names the exact version of the engine that made it, and only that engine makes it again for certain. So a
version that goes out of use is kept (`policies.cellar_filling` puts it there)::

    engines/
      cedar-4.12.1/
        engine.json        what it is; `KeptEngine`
        packages/          the engine's package, as an installer unpacks it, and nothing else

A process for it (`policies.workers`) has ``packages`` first on its import path and our own code after it; nothing that
is installed comes before. Its package is native code for one Python and one kind of machine: on another it is shown and
not used. Before it is used, every file is compared with what ``engine.json`` says.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from ledger.body_fields import Name
from ledger.canonical import canonical_bytes, sha256
from policies.engine import Engine
from policies.programs import EngineKind, kept_program
from policies.workers import WorkerEngine, WorkerPool

__all__ = [
    "DESCRIPTION",
    "ENGINE_FORMAT",
    "PACKAGES",
    "DirectoryCellar",
    "KeptEngine",
    "Place",
    "digest_of",
    "look_into",
    "machine_tag",
]

ENGINE_FORMAT: Final = "tallystick.engine/1"
DESCRIPTION: Final = "engine.json"
PACKAGES: Final = "packages"

_MAX_DESCRIPTION_BYTES: Final = 1 << 16
_VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}\Z"


class KeptEngine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of an engine in the cellar.

    Attributes:
        format: ``tallystick.engine/1``.
        name: Engine name, as bundles have it.
        distribution: Name of its package.
        version: Exact version of the package, and so of the engine.
        machine: Python and machine that its native code is for, as `machine_tag` says them.
        source: File name of the wheel that it came from, or ``installed``.
        wheel_sha256: SHA-256 of that wheel, hexadecimal; None for one that was installed.
        digest: SHA-256 over the paths and digests of all files of the package, hexadecimal.
    """

    format: Literal["tallystick.engine/1"]
    name: Name
    distribution: Name
    version: Annotated[str, msgspec.Meta(pattern=_VERSION)]
    machine: Annotated[str, msgspec.Meta(max_length=128)]
    source: Annotated[str, msgspec.Meta(max_length=256)]
    wheel_sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")] | None
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of the cellar.

    Attributes:
        directory: Where.
        kept: What is there.
    """

    directory: Path
    kept: KeptEngine

    @property
    def packages(self) -> Path:
        """Directory of the engine's package."""
        return self.directory / PACKAGES

    def is_intact(self) -> bool:
        """Whether every file is as it was when it was put there."""
        try:
            return digest_of(self.packages) == self.kept.digest
        except OSError:
            return False


def machine_tag() -> str:
    """Return what native code must be for to run here: this Python and this machine."""
    return f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"


def digest_of(packages: Path) -> str:
    """Return the digest over all files below a directory, what Python compiled left out.

    Raises:
        OSError: A file cannot be read.
    """
    files = {
        path.relative_to(packages).as_posix(): sha256(path.read_bytes()).hex()
        for path in sorted(packages.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sha256(canonical_bytes(files)).hex()


def _described(directory: Path) -> KeptEngine | None:
    """Return what a directory of the cellar says of itself; None if it is none that this program can read."""
    try:
        with (directory / DESCRIPTION).open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_DESCRIPTION_BYTES), type=KeptEngine)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def look_into(directory: Path) -> list[Place]:
    """Return what a cellar holds, by name and version; one that is not there holds nothing."""
    try:
        below = sorted(directory.iterdir())
    except OSError:
        return []
    found = [Place(place, kept) for place in below if (kept := _described(place)) is not None]
    return sorted(found, key=lambda place: (place.kept.name, _order(place.kept.version)))


def _order(version: str) -> Sequence[int]:
    """Return a key that puts versions in the order of their numbers."""
    return [int(number) for number in re.findall(r"\d{1,9}", version)]


class DirectoryCellar:
    """The engines of a cellar, ready to be asked. Safe for any thread."""

    def __init__(self, directory: Path, kinds: Iterable[EngineKind], pool: WorkerPool) -> None:
        """Take a directory; it is looked into when somebody asks, and need not be there.

        Args:
            directory: The cellar's.
            kinds: The engines that there are.
            pool: Has their processes.
        """
        self._directory = directory
        self._kinds = {kind.name: kind for kind in kinds}
        self._pool = pool
        self._lock = threading.Lock()
        # Guarded by _lock: what can be used of what was seen, when the directory had changed last then, engines.
        self._seen: list[Place] = []
        self._seen_at: int | None = None
        self._engines: dict[Place, Engine] = {}

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of an engine that can be used here, the newest first.

        After a change of the cellar that reads all files of it; call it off the event loop.
        """
        return tuple(place.kept.version for place in reversed(self._usable(name)))

    def engine(self, name: str, version: str) -> Engine | None:
        """Return the engine of that version; None if there is none, or its files were changed."""
        place = next((place for place in self._usable(name) if place.kept.version == version), None)
        if place is None:
            return None
        with self._lock:
            if place not in self._engines:
                self._engines[place] = self._opened(place)
            return self._engines[place]

    def _opened(self, place: Place) -> Engine:
        kind = self._kinds[place.kept.name]
        return WorkerEngine(kept_program(kind, place.kept.version, place.packages.resolve()), self._pool)

    def _usable(self, name: str) -> list[Place]:
        return [place for place in self._places() if place.kept.name == name]

    def _places(self) -> list[Place]:
        """Return what can be used of the directory; it is read again once something was put in or taken out."""
        try:
            changed = self._directory.stat().st_mtime_ns
        except OSError:
            return []
        with self._lock:
            if changed != self._seen_at:
                self._seen = [place for place in look_into(self._directory) if self._is_usable(place)]
                self._seen_at = changed
            return self._seen

    def _is_usable(self, place: Place) -> bool:
        return place.kept.name in self._kinds and place.kept.machine == machine_tag() and place.is_intact()
