"""Bundles from directories, and the bundles that ship with the program.

What a bundle is stands in `bundles`; this module only reads files. A symbolic link, a device or an unreadable file is
refused rather than followed or skipped: the revision must say what was read.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from ledger.errors import ConfigError, PolicySyntaxError, UnknownBundleError
from policies.bundles import MANIFEST_PATH, MAX_FILE_BYTES, MAX_FILES, Bundle, bundle_from_files

__all__ = ["library_names", "read_bundle_directory", "read_library_bundle", "write_bundle_directory"]

_LIBRARY: Final = Path(__file__).parent / "library"


def _read_file(path: Path, relative: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise PolicySyntaxError(f"{relative}: a bundle holds plain files only")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PolicySyntaxError(f"{relative}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise PolicySyntaxError(f"{relative}: a file of a bundle has at most {MAX_FILE_BYTES} bytes")
    return data


def _fail(error: OSError) -> None:
    raise PolicySyntaxError(f"the bundle cannot be read: {error.strerror}") from error


def read_bundle_directory(path: Path) -> Bundle:
    """Return the bundle that a directory holds; every file below it counts.

    Args:
        path: The directory with ``manifest.json`` in it.

    Raises:
        PolicySyntaxError: Not a readable directory, or not a sound bundle.
    """
    if not path.is_dir():
        raise PolicySyntaxError(f"{path.name}: not a directory")
    files: dict[str, bytes] = {}
    for folder, folders, names in os.walk(path, onerror=_fail):
        here = Path(folder)
        for name in [*(entry for entry in folders if (here / entry).is_symlink()), *names]:
            relative = (here / name).relative_to(path).as_posix()
            files[relative] = _read_file(here / name, relative)
            if len(files) > MAX_FILES + 1:
                raise PolicySyntaxError(f"a bundle has at most {MAX_FILES} files beside {MANIFEST_PATH}")
    return bundle_from_files(files)


def write_bundle_directory(bundle: Bundle, path: Path) -> None:
    """Write a bundle into a directory that is not there yet, or is empty; all of it, or nothing.

    Args:
        bundle: The bundle.
        path: The directory; the one above it exists.

    Raises:
        ConfigError: The directory holds something, or cannot be written.
    """
    manifest = json.dumps(msgspec.to_builtins(bundle.manifest), indent=2, ensure_ascii=False) + "\n"
    files = {MANIFEST_PATH: manifest.encode(), **bundle.files}
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        for name, data in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(data)
        made.chmod(0o755)
        made.rename(path)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def library_names() -> list[str]:
    """Return the names of the bundles that ship with the program, sorted."""
    return sorted(entry.parent.name for entry in _LIBRARY.glob(f"*/{MANIFEST_PATH}"))


def read_library_bundle(name: str) -> Bundle:
    """Return a bundle that ships with the program.

    Raises:
        UnknownBundleError: No bundle of that name ships.
    """
    if name not in library_names():
        raise UnknownBundleError(f"no bundle named {name!a} ships with the program")
    return read_bundle_directory(_LIBRARY / name)
