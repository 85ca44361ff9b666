"""What every `TileStore` promises (`ledger.ports`): memory, directory. Durability is in `tests/fault`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.ports import TileStore
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.memory import MemoryTileStore
from ledger.tiles import CHECKPOINT_PATH
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID

PATHS = ("tile/0/000", "tile/0/000.p/17", "tile/2/x001/x234/067", "tile/entries/000", "tile/entries/x001/234.p/255")


@pytest.fixture(params=["memory", "directory"])
def tiles(request: pytest.FixtureRequest, tmp_path: Path) -> TileStore:
    return MemoryTileStore() if request.param == "memory" else DirectoryTileStore(tmp_path / "not" / "made" / "yet")


def exposed_size(tiles: TileStore) -> int:
    return parse_unverified_checkpoint(tiles.get(LOG_ID, CHECKPOINT_PATH)).claim.size


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_a_file_is_read_back_byte_for_byte(tiles, path):
    tiles.put(LOG_ID, path, b"\x00bytes\r\n\xff")
    assert tiles.get(LOG_ID, path) == b"\x00bytes\r\n\xff"


def test_partial_and_full_tiles_stand_beside_each_other(tiles):
    for number, path in enumerate(PATHS):
        tiles.put(LOG_ID, path, b"%d" % number)
    assert [tiles.get(LOG_ID, path) for path in PATHS] == [b"%d" % number for number in range(len(PATHS))]


def test_the_same_bytes_again_are_success(tiles):
    tiles.put(LOG_ID, "tile/0/000", b"same")
    tiles.put(LOG_ID, "tile/0/000", b"same")
    assert tiles.get(LOG_ID, "tile/0/000") == b"same"


@pytest.mark.parametrize("other", [b"other", b"", b"sam", b"same\n"])
def test_other_bytes_are_a_conflict_and_change_nothing(tiles, other):
    tiles.put(LOG_ID, "tile/0/000", b"same")
    with pytest.raises(ConflictError):
        tiles.put(LOG_ID, "tile/0/000", other)
    assert tiles.get(LOG_ID, "tile/0/000") == b"same"


@pytest.mark.parametrize("path", [*PATHS, CHECKPOINT_PATH])
def test_a_file_that_nobody_wrote_is_not_found(tiles, path):
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, path)


def test_a_missing_partial_beside_a_full_tile_is_not_found(tiles):
    tiles.put(LOG_ID, "tile/0/000", b"full")
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, "tile/0/000.p/17")


def test_logs_have_files_of_their_own(tiles):
    tiles.put(LOG_ID, "tile/0/000", b"ours")
    with pytest.raises(NotFoundError):
        tiles.get("other", "tile/0/000")
    tiles.put("other", "tile/0/000", b"theirs")
    assert tiles.get(LOG_ID, "tile/0/000") == b"ours"


def test_a_checkpoint_is_never_put_past_the_rules_of_exposing(tiles):
    with pytest.raises(MalformedError):
        tiles.put(LOG_ID, CHECKPOINT_PATH, make_checkpoint(5))
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, CHECKPOINT_PATH)


def test_of_many_writers_at_once_one_decides_the_bytes(tiles):
    start = threading.Barrier(8)

    def write(number: int) -> bytes | None:
        start.wait()
        try:
            tiles.put(LOG_ID, "tile/0/000", b"%d" % number * 4096)
        except ConflictError:
            return None
        return b"%d" % number * 4096

    with ThreadPoolExecutor(8) as threads:
        won = [data for data in threads.map(write, range(8)) if data is not None]
    assert won == [tiles.get(LOG_ID, "tile/0/000")]


# --- the live checkpoint ---------------------------------------------------------------------------------------------


def test_exposing_shows_the_checkpoint(tiles):
    tiles.expose(LOG_ID, make_checkpoint(5))
    assert tiles.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(5)


def test_exposing_moves_forward(tiles):
    for size in (0, 1, 5, 256):
        tiles.expose(LOG_ID, make_checkpoint(size))
        assert exposed_size(tiles) == size


@pytest.mark.parametrize("late", [make_checkpoint(4), make_checkpoint(0), make_checkpoint(4, tree="b")])
def test_a_late_smaller_checkpoint_is_left_unexposed_without_an_error(tiles, late):
    tiles.expose(LOG_ID, make_checkpoint(5))
    tiles.expose(LOG_ID, late)
    assert tiles.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(5)


def test_two_roots_for_one_size_are_never_both_exposed(tiles):
    tiles.expose(LOG_ID, make_checkpoint(5))
    with pytest.raises(ConflictError):
        tiles.expose(LOG_ID, make_checkpoint(5, tree="b"))
    assert tiles.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(5)


def test_the_same_tree_signed_anew_may_be_exposed(tiles):
    tiles.expose(LOG_ID, make_checkpoint(5))
    tiles.expose(LOG_ID, make_checkpoint(5, seed=2))
    assert tiles.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(5, seed=2)


def test_exposing_one_log_leaves_the_other_alone(tiles):
    tiles.expose(LOG_ID, make_checkpoint(5))
    tiles.expose("other", make_checkpoint(3))
    assert exposed_size(tiles) == 5


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", make_checkpoint(5)[:-1]])
def test_what_is_no_checkpoint_is_not_exposed(tiles, data):
    with pytest.raises(MalformedError):
        tiles.expose(LOG_ID, data)
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, CHECKPOINT_PATH)


def test_of_many_exposed_at_once_the_largest_stays(tiles):
    sizes = [7, 3, 11, 2, 9, 5, 12, 1]
    start = threading.Barrier(len(sizes))

    def expose(size: int) -> None:
        start.wait()
        tiles.expose(LOG_ID, make_checkpoint(size))

    with ThreadPoolExecutor(len(sizes)) as threads:
        list(threads.map(expose, sizes))
    assert exposed_size(tiles) == 12


def test_a_reader_sees_the_old_or_the_new_checkpoint_and_nothing_else(tiles):
    tiles.expose(LOG_ID, make_checkpoint(1))
    stop = threading.Event()
    sizes: list[int] = []

    def read() -> None:
        while not stop.is_set():
            sizes.append(exposed_size(tiles))

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        for size in range(2, 40):
            tiles.expose(LOG_ID, make_checkpoint(size))
        stop.set()
        reading.result()
    assert sizes == sorted(sizes)
