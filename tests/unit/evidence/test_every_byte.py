"""No byte of a pack can change unseen: every file is walked, the small ones byte by byte, and the container too."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from evidence.container import read_container
from evidence.controls import parse_framework
from evidence.verification import Status, VerificationReport
from evidence.verify import verify_pack
from ledger.errors import MalformedError, VerificationError
from tests.support.packs import SMALL_FRAMEWORK, PackLog, read_files, write_files
from tests.unit.evidence.conftest import MadePack

SMALL_BYTES = 2048
SHARDS = 4
"""Parts of the walk over every byte, so that they can run side by side."""


@dataclass
class SmallPack:
    log: PackLog
    data: bytes
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallPack]:
    log = PackLog()
    log.small_day()
    log.publish()
    request = log.request(frameworks=(parse_framework(copy.deepcopy(SMALL_FRAMEWORK)),))
    data = log.pack(tmp_path_factory.mktemp("small") / "pack.zip", request=request).path.read_bytes()
    yield SmallPack(log, data, read_files(data))
    log.close()


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << position % 8
    return bytes(changed)


def some_positions(path: str, size: int) -> list[int]:
    """Return the first, the middle and the last byte, and twelve more that the file's name chooses."""
    digests = (hashlib.sha256(f"{path} {number}".encode()).digest() for number in range(12))
    return sorted({0, size // 2, size - 1, *(int.from_bytes(digest[:8], "big") % size for digest in digests)})


def must_name(report: VerificationReport, path: str, position: int) -> None:
    place = f"{path} byte {position}"
    assert report.status in (Status.FAILED, Status.MALFORMED), place
    naming = [failure for failure in report.failures if failure.file == path or path in failure.reason]
    assert naming, place
    assert all(failure.reason for failure in naming), place


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_byte_of_every_small_file_and_some_of_every_large_one_is_guarded(small: SmallPack, shard: int) -> None:
    assert verify_pack(small.data, trust=small.log.trust).status is Status.PROVEN
    walked = 0
    for path, data in small.files.items():
        positions = range(len(data)) if len(data) < SMALL_BYTES else some_positions(path, len(data))
        for position in positions[shard::SHARDS]:
            # The container is written anew, with the right checksums: only what the files prove can find it.
            changed = write_files({**small.files, path: flipped(data, position)})
            must_name(verify_pack(changed, trust=small.log.trust), path, position)
            walked += 1
    assert walked > 5000 / SHARDS


def test_first_middle_last_and_some_bytes_of_every_file_of_a_whole_pack_are_guarded(made: MadePack) -> None:
    for path, data in made.files.items():
        for position in some_positions(path, len(data))[::5] if data else ():
            changed = write_files({**made.files, path: flipped(data, position)})
            must_name(verify_pack(changed, trust=made.log.trust), path, position)


def test_every_byte_of_headers_and_directory_is_guarded_by_the_container(small: SmallPack) -> None:
    contents = set()
    for view in read_container(memoryview(small.data)).values():
        start = small.data.index(bytes(view)) if view else 0
        contents.update(range(start, start + len(view)))
    outside = [position for position in range(len(small.data)) if position not in contents]
    assert len(outside) > 30 * len(small.files)
    for position in outside:
        with pytest.raises((MalformedError, VerificationError)):
            read_container(memoryview(flipped(small.data, position)))


def test_a_flipped_content_byte_is_named_by_the_container_alone(small: SmallPack) -> None:
    for path, view in read_container(memoryview(small.data)).items():
        if view:
            position = small.data.index(bytes(view)) + len(view) // 2
            report = verify_pack(flipped(small.data, position), trust=small.log.trust)
            assert report.status is Status.FAILED
            assert path in report.failures[0].reason
