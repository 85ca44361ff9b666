"""Fixtures for the tests of `evidence`: a log with everything in it, and the pack that is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from evidence.assemble import AssembledPack
from tests.support.packs import PackLog, read_files


@dataclass(frozen=True)
class MadePack:
    """A log and its pack; nobody changes either."""

    log: PackLog
    assembled: AssembledPack
    data: bytes
    files: dict[str, bytes]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadePack]:
    log = PackLog()
    log.ordinary_day()
    log.publish()
    assembled = log.pack(tmp_path_factory.mktemp("made") / "pack.zip")
    data = assembled.path.read_bytes()
    yield MadePack(log, assembled, data, read_files(data))
    log.close()


@pytest.fixture
def log() -> Iterator[PackLog]:
    """A log of the test's own, empty."""
    fresh = PackLog()
    yield fresh
    fresh.close()
