"""Write the test vectors, or with ``--check`` prove that writing them would change nothing.

    python -m tests.vectors.generate [--check]

No code of the project takes part: vectors come from the reference in `tests.conformance.reference`, from `rfc8785` and
from `cryptography`. What a record looks like is frozen with its schema version; a vector that changes is a change of a
format that others have stored, and needs a new version instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.vectors.families import (
    canonical,
    checkpoints,
    envelopes,
    notes,
    proof_files,
    records,
    tiles,
    trees,
    trust,
)
from tests.vectors.keys import SIGNATURES, STORE
from tests.vectors.vector import Vector, vector_paths

_FAMILIES = (canonical, checkpoints, envelopes, notes, proof_files, records, tiles, trees, trust)


def all_vectors() -> Iterator[Vector]:
    for family in _FAMILIES:
        yield from family.vectors()


def _files() -> dict[str, str]:
    """Return what the folder must hold: text by path."""
    files: dict[str, str] = {}
    for vector in all_vectors():
        path = str(vector.path)
        if path in files:
            raise ValueError(f"two vectors are named {vector.name}")
        files[path] = vector.encode()
    files[str(STORE)] = SIGNATURES.encode()
    return files


def _present() -> dict[str, str]:
    paths = [*vector_paths(), *([STORE] if STORE.exists() else [])]
    return {str(path): path.read_text(encoding="ascii") for path in paths}


def check() -> list[str]:
    """Return the paths that differ from what would be written; no file is touched."""
    expected, present = _files(), _present()
    return sorted(path for path in expected.keys() | present.keys() if expected.get(path) != present.get(path))


def _write() -> None:
    expected, present = _files(), _present()
    for path in present.keys() - expected.keys():
        Path(path).unlink()
    for path, text in expected.items():
        if present.get(path) != text:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="ascii")


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        different = check()
        sys.exit("these vectors would change:\n" + "\n".join(different) if different else 0)
    _write()
