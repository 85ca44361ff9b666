"""The same log, checkpoint and request give the same pack in any process, whatever its hash seed, time zone, locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evidence import pack
from tests.support.frozen_packs import FROZEN, FrozenPack
from tests.support.packs import read_files

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from tests.support.frozen_packs import FROZEN, make
from tests.support.packs import read_files
(frozen,) = [one for one in FROZEN if one.name == sys.argv[1]]
make(frozen, Path(sys.argv[2]), read_files(frozen.file("pack.zip")))
"""
WORLDS = (
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "4711", "TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
)


def files_made_in(world: dict[str, str], frozen: FrozenPack, path: Path) -> dict[str, bytes]:
    subprocess.run(
        [sys.executable, "-c", SCRIPT, frozen.name, str(path)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **world},
        check=True,
        timeout=120,
    )
    return read_files(path.read_bytes())


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: frozen.name)
def test_two_processes_in_two_worlds_make_the_same_files_but_for_the_signatures(
    frozen: FrozenPack, tmp_path: Path
) -> None:
    one, other = (files_made_in(world, frozen, tmp_path / f"{number}.zip") for number, world in enumerate(WORLDS))
    assert list(one) == list(other)
    assert {path for path in one if one[path] != other[path]} == {pack.MANIFEST_ENVELOPE}
