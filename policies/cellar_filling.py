"""Putting engines into the cellar, and taking them out; `policies.cellar` says what lies there.

An engine gets there from a wheel: one of the index of packages, which is the only time that the network is used, or a
file at hand. Such a one is tried before it counts: a process is started with it, and has to say the right name and
version. Or it gets there as it is installed, before an upgrade.

What is put in appears whole or not at all: it is made beside its place and then renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import msgspec

from ledger.errors import ConfigError, NotFoundError
from policies.cellar import (
    DESCRIPTION,
    ENGINE_FORMAT,
    PACKAGES,
    KeptEngine,
    Place,
    digest_of,
    look_into,
    machine_tag,
)
from policies.engine import EngineStoppedError
from policies.programs import EngineKind, installed_version, kept_program
from policies.workers import WorkerPool

__all__ = ["add_wheel", "fetch_wheel", "keep_installed", "remove_engine"]

_INSTALLED: Final = "installed"
_MAX_UNPACKED_BYTES: Final = 1 << 30
_PIP_SECONDS: Final = 300
_READ_BYTES: Final = 1 << 20


def fetch_wheel(kind: EngineKind, version: str, into: Path) -> Path:
    """Fetch an engine's wheel from the index of packages that pip is set up for.

    Args:
        kind: The engine.
        version: Exact version.
        into: Directory to put it into.

    Raises:
        ConfigError: There is no such version for this machine, or the index cannot be reached.
    """
    wanted = f"{kind.distribution}=={version}"
    _pip(
        f"{wanted} cannot be fetched",
        *("download", "--no-deps", "--only-binary", ":all:", "--dest", str(into), wanted),
    )
    wheels = list(into.glob("*.whl"))
    if len(wheels) != 1:
        raise ConfigError(f"{wanted} is not one wheel")
    return wheels[0]


def add_wheel(
    cellar: Path, kind: EngineKind, version: str, wheel: Path, *, expected_sha256: str | None = None
) -> KeptEngine:
    """Put an engine into the cellar that comes as a wheel.

    Args:
        cellar: Its directory; made if it is not there.
        kind: The engine.
        version: The exact version that the wheel must be of.
        wheel: The file.
        expected_sha256: What the file's digest must be, hexadecimal; any if None.

    Raises:
        ConfigError: The digest is another, the wheel is no engine of that version or cannot be used here, or that
            version is there already.
    """
    digest = _file_digest(wheel)
    if expected_sha256 is not None and digest != expected_sha256:
        raise ConfigError(f"{wheel.name} has the SHA-256 {digest}, not {expected_sha256}")

    def unpack(packages: Path) -> None:
        _unpack(wheel, packages)
        _try(kind, version, packages)

    return _put(cellar, kind, version, unpack, source=wheel.name, wheel_sha256=digest)


def keep_installed(cellar: Path, kind: EngineKind) -> KeptEngine | None:
    """Put the installed engine into the cellar, so that it is there after an upgrade.

    Returns:
        What was put there; None if that version was there already.

    Raises:
        ConfigError: It was not installed by an installer, so that nobody knows its files.
    """
    version = installed_version(kind)
    if _find(cellar, kind.name, version) is not None:
        return None

    def copy(packages: Path) -> None:
        found = distribution(kind.distribution)
        for file in found.files or ():
            # Scripts and the like lie outside; no engine needs them.
            if ".." not in file.parts and "__pycache__" not in file.parts:
                _link_or_copy(Path(str(found.locate_file(file))), packages / file)

    return _put(cellar, kind, version, copy, source=_INSTALLED, wheel_sha256=None)


def _link_or_copy(source: Path, target: Path) -> None:
    """Have a file in a second place. Installers put new files in the place of old ones, and never write into them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or somebody else's file
        shutil.copyfile(source, target)


def remove_engine(cellar: Path, kind: EngineKind, version: str) -> None:
    """Take an engine out of the cellar.

    Raises:
        NotFoundError: It is not there.
    """
    place = _find(cellar, kind.name, version)
    if place is None:
        raise NotFoundError(f"the cellar holds no {kind.distribution}=={version}")
    with _aside(cellar) as trash:
        place.directory.rename(trash / "removed")


def _unpack(wheel: Path, packages: Path) -> None:
    """Lay out a wheel as an installer does, scripts and the like apart (PEP 427: a wheel is an archive of its files).

    Raises:
        ConfigError: It is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_UNPACKED_BYTES:
                raise ConfigError(f"{wheel.name} holds more than {_MAX_UNPACKED_BYTES} bytes")
            archive.extractall(packages)
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise ConfigError(f"{wheel.name} is no wheel") from error


def _find(cellar: Path, name: str, version: str) -> Place | None:
    return next(
        (place for place in look_into(cellar) if (place.kept.name, place.kept.version) == (name, version)), None
    )


def _put(
    cellar: Path,
    kind: EngineKind,
    version: str,
    fill: Callable[[Path], None],
    *,
    source: str,
    wheel_sha256: str | None,
) -> KeptEngine:
    place = cellar / f"{kind.name}-{version}"
    if place.exists():
        raise ConfigError(f"{kind.distribution}=={version} is in the cellar already")
    cellar.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _aside(cellar) as beside:
        made = beside / "engine"
        packages = made / PACKAGES
        packages.mkdir(parents=True)
        fill(packages)
        kept = KeptEngine(
            format=ENGINE_FORMAT,
            name=kind.name,
            distribution=kind.distribution,
            version=version,
            machine=machine_tag(),
            source=source,
            wheel_sha256=wheel_sha256,
            digest=digest_of(packages),
        )
        (made / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
        try:
            made.rename(place)
        except OSError as error:
            raise ConfigError(f"{kind.distribution}=={version} cannot be put into the cellar") from error
    return kept


def _try(kind: EngineKind, version: str, packages: Path) -> None:
    """Start a process with an engine.

    Raises:
        ConfigError: It does not start, or is another one.
    """
    pool = WorkerPool()
    try:
        with pool.lease(kept_program(kind, version, packages.resolve())):
            pass
    except EngineStoppedError as error:
        told = f"{kind.distribution}=={version} is no engine that this version of Tallystick can work with"
        raise ConfigError(told) from error
    finally:
        pool.close()


@contextmanager
def _aside(cellar: Path) -> Iterator[Path]:
    """Yield a directory within the cellar, on its file system, which goes with all that is left in it."""
    path = Path(tempfile.mkdtemp(prefix=".making-", dir=cellar))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _pip(complaint: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # pip of this environment, with arguments that were checked
            command, capture_output=True, text=True, check=False, timeout=_PIP_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{complaint}: pip does not answer") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        raise ConfigError(f"{complaint}: {last}")


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
