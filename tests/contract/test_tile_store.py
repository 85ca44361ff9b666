"""What every `TileStore` and `PartialStore` promises (`ledger.ports`): memory, directory, S3 on two servers.

Durability is in `tests/fault`; what an S3 bucket does to us, in `test_tile_store_s3.py`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import SystemClock
from ledger.collecting import CollectableStore
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.ports import TileStore
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.memory import MemoryTileStore
from ledger.stores.s3 import S3TileStore
from ledger.tiles import BUNDLE_LEVEL, CHECKPOINT_PATH, TileCoordinate
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID
from tests.support.s3 import S3Server, s3_server

PATHS = ("tile/0/000", "tile/0/000.p/17", "tile/2/x001/x234/067", "tile/entries/000", "tile/entries/x001/234.p/255")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Start each server at its first use: the machine's best, and moto."""
    with ExitStack() as stack:

        @lru_cache
        def start(name: str) -> S3Server:
            folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
            server = stack.enter_context(s3_server(folder, imitated="moto" in name))
            server.make_bucket("locked", locks=True)
            server.make_bucket("plain")
            return server

        yield start


@pytest.fixture(params=["memory", "directory", "s3", "s3 plain", "s3 moto"])
def tiles(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], S3Server]) -> CollectableStore:
    if request.param == "memory":
        return MemoryTileStore()
    if request.param == "directory":
        return DirectoryTileStore(tmp_path / "not" / "made" / "yet")
    plain = request.param == "s3 plain"
    bucket = servers("s3" if plain else request.param).bucket("plain" if plain else "locked")
    return S3TileStore(bucket, f"{secrets.token_hex(8)}/", retention_days=0 if plain else 1, clock=SystemClock())


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


# --- collecting ------------------------------------------------------------------------------------------------------


def put(tiles: CollectableStore, level: int, number: int, *widths: int) -> None:
    for width in widths:
        tiles.put(LOG_ID, TileCoordinate(level, number, width).path, b"%d" % width)


def test_a_store_without_partials_lists_none(tiles):
    assert tiles.partial_tiles(LOG_ID, 0, 0) == []
    assert tiles.partial_widths(LOG_ID, 0, 0) == []
    put(tiles, 0, 0, 256)
    assert tiles.partial_tiles(LOG_ID, 0, 0) == []
    assert tiles.partial_widths(LOG_ID, 0, 0) == []


@pytest.mark.parametrize("level", [BUNDLE_LEVEL, 0, 1])
def test_partials_are_listed_by_tile_and_width_in_the_order_of_numbers(tiles, level):
    put(tiles, level, 7, 9, 10, 100, 256)
    put(tiles, level, 12, 3)
    assert tiles.partial_tiles(LOG_ID, level, 0) == [7, 12]
    assert tiles.partial_widths(LOG_ID, level, 7) == [9, 10, 100]


def test_tiles_are_listed_by_the_thousand(tiles):
    for number in (3, 999, 1000, 1_234_067, 1_234_999, 1_235_000):
        put(tiles, 0, number, 1)
    assert tiles.partial_tiles(LOG_ID, 0, 0) == [3, 999]
    assert tiles.partial_tiles(LOG_ID, 0, 1) == [1000]
    assert tiles.partial_tiles(LOG_ID, 0, 1234) == [1_234_067, 1_234_999]
    assert tiles.partial_tiles(LOG_ID, 0, 2) == []


def test_partials_of_one_level_and_log_are_not_those_of_another(tiles):
    put(tiles, 1, 0, 5)
    assert tiles.partial_tiles(LOG_ID, 0, 0) == tiles.partial_tiles(LOG_ID, BUNDLE_LEVEL, 0) == []
    assert tiles.partial_tiles("other", 1, 0) == []


def test_discarding_takes_every_partial_of_one_tile_and_nothing_else(tiles):
    put(tiles, 0, 0, 1, 2, 255, 256)
    put(tiles, 0, 1, 1)
    put(tiles, 1, 0, 1)
    put(tiles, BUNDLE_LEVEL, 0, 1)
    tiles.discard_partials(LOG_ID, 0, 0)
    assert tiles.partial_widths(LOG_ID, 0, 0) == []
    assert tiles.partial_tiles(LOG_ID, 0, 0) == [1]
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, "tile/0/000.p/255")
    for path in ("tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1", "tile/entries/000.p/1"):
        assert tiles.get(LOG_ID, path)


def test_discarding_what_is_gone_is_no_error(tiles):
    put(tiles, 0, 0, 1)
    tiles.discard_partials(LOG_ID, 0, 0)
    tiles.discard_partials(LOG_ID, 0, 0)
    tiles.discard_partials(LOG_ID, 3, 1_234_067)


def test_a_partial_may_be_written_again_after_it_was_discarded(tiles):
    """A publisher that was paused does so; the next collection takes it again."""
    put(tiles, 0, 0, 17, 256)
    tiles.discard_partials(LOG_ID, 0, 0)
    put(tiles, 0, 0, 17)
    assert tiles.get(LOG_ID, "tile/0/000.p/17") == b"17"


def test_what_a_checkpoint_was_before_goes_and_the_live_one_stays(tiles):
    for size in (1, 2, 3):
        tiles.expose(LOG_ID, make_checkpoint(size))
    tiles.discard_superseded(LOG_ID)
    assert tiles.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(3)
    tiles.discard_superseded("other")


@pytest.mark.parametrize("log_id", ["", "..", "a/b", "A", ".acme", "a" * 64])
def test_no_log_id_leads_out_of_the_store(tiles, log_id):
    for refused in (
        lambda: tiles.put(log_id, "tile/0/000", b"x"),
        lambda: tiles.get(log_id, "tile/0/000"),
        lambda: tiles.expose(log_id, make_checkpoint(1)),
        lambda: tiles.partial_widths(log_id, 0, 0),
        lambda: tiles.discard_partials(log_id, 0, 0),
    ):
        with pytest.raises(MalformedError):
            refused()
