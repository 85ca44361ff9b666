"""Tile coordinates, paths, packing, and the right edge of a tree."""

from __future__ import annotations

import pytest

from ledger.errors import MalformedError
from ledger.merkle import hash_leaf, subtree_root
from ledger.tiles import (
    BUNDLE_LEVEL,
    MAX_ENTRY_BYTES,
    Edge,
    TileCoordinate,
    bundle_coordinates,
    hash_coordinate,
    pack_bundle,
    pack_tile,
    parse_tile_path,
    partial_width,
    tile_coordinates,
    unpack_bundle,
    unpack_tile,
)
from tests.conformance.reference.c2sp import tile_path
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.conformance.requirements import requirement

_HASH = b"\x11" * 32


class TestPath:
    @requirement("tiles-01", "tiles-02", "tiles-05")
    @pytest.mark.parametrize(
        ("coordinate", "path"),
        [
            (TileCoordinate(0, 0), "tile/0/000"),
            (TileCoordinate(0, 999), "tile/0/999"),
            (TileCoordinate(0, 1000), "tile/0/x001/000"),
            (TileCoordinate(0, 1_234_067), "tile/0/x001/x234/067"),
            (TileCoordinate(9, 0), "tile/9/000"),
            (TileCoordinate(63, 5), "tile/63/005"),
            (TileCoordinate(2, 0, 1), "tile/2/000.p/1"),
            (TileCoordinate(0, 273, 112), "tile/0/273.p/112"),
            (TileCoordinate(0, 1_000_000, 255), "tile/0/x001/x000/000.p/255"),
            (TileCoordinate(BUNDLE_LEVEL, 0), "tile/entries/000"),
            (TileCoordinate(BUNDLE_LEVEL, 1234, 17), "tile/entries/x001/234.p/17"),
            (TileCoordinate(0, 2**55 - 1), "tile/0/x036/x028/x797/x018/x963/967"),
        ],
    )
    def test_a_coordinate_and_its_path_lead_to_each_other(self, coordinate, path) -> None:
        assert coordinate.path == path
        assert parse_tile_path(path) == coordinate
        level = "entries" if coordinate.level == BUNDLE_LEVEL else coordinate.level
        assert tile_path(level, coordinate.number, coordinate.width) == path

    @requirement("tiles-01")
    @pytest.mark.parametrize(
        "level", ["64", "99", "100", "00", "01", "-1", "+1", "", "a", "0x1", "\u0663", " 0", "Entries"]
    )
    def test_another_level_is_malformed(self, level) -> None:
        with pytest.raises(MalformedError):
            parse_tile_path(f"tile/{level}/000")

    @requirement("tiles-02")
    @pytest.mark.parametrize(
        "number",
        [
            "",
            "0",
            "00",
            "0000",
            "1000",
            "x000/000",
            "x000/x001/000",
            "001/000",
            "x001",
            "x01/000",
            "X001/000",
            "x001//000",
            "x001/x000",
            "/000",
            "000/",
            "-01",
            "\u0660\u0660\u0660",
            "000\n",
            "x001/0_0",
            "x1e/000",
            "x000" * 2,
        ],
    )
    def test_another_number_is_malformed(self, number) -> None:
        with pytest.raises(MalformedError):
            parse_tile_path(f"tile/0/{number}")

    @requirement("tiles-05")
    @pytest.mark.parametrize(
        "width", ["", "0", "00", "01", "256", "257", "999", "1000", "-1", "1 ", "1\n", "1/", "a", "\u0663"]
    )
    def test_another_width_is_malformed(self, width) -> None:
        with pytest.raises(MalformedError):
            parse_tile_path(f"tile/0/000.p/{width}")

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "checkpoint",
            "tile",
            "tile/0",
            "/tile/0/000",
            "tile/8/0/000",
            "tile/0/000.p",
            "tile/0/../000",
            "Tile/0/000",
            "tile/0/000.q/1",
            "tile/0/000.p/1/",
            "tile/0/000?x",
            "tile/data/000",
            "tile/0/000\x00",
        ],
    )
    def test_another_path_is_malformed(self, path) -> None:
        with pytest.raises(MalformedError):
            parse_tile_path(path)

    def test_a_number_of_thousands_of_digits_is_malformed(self) -> None:
        # Python refuses to read so many digits, with an error that must not leave the parser.
        with pytest.raises(MalformedError):
            parse_tile_path("tile/0/" + "x001/" * 2000 + "000")


class TestCoordinates:
    @requirement("tiles-06")
    @pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000, 2**24, 2**24 + 1])
    def test_the_partial_width_is_the_floor_modulo_256(self, size) -> None:
        for level in range(5):
            assert partial_width(level, size) == (size // 256**level) % 256

    @requirement("tiles-08")
    def test_a_tree_of_70000_has_the_tiles_that_the_specification_counts(self) -> None:
        tiles = list(tile_coordinates(70_000))
        assert [tile for tile in tiles if not tile.full] == [
            TileCoordinate(0, 273, 112),
            TileCoordinate(1, 1, 17),
            TileCoordinate(2, 0, 1),
        ]
        assert sum(tile.level == 0 and tile.full for tile in tiles) == 273
        assert sum(tile.level == 1 and tile.full for tile in tiles) == 1
        assert len(tiles) == 273 + 1 + 3

    @requirement("tiles-08")
    def test_a_tree_of_256_has_a_full_tile_and_one_of_width_1_above(self) -> None:
        assert list(tile_coordinates(256)) == [TileCoordinate(0, 0), TileCoordinate(1, 0, 1)]

    @requirement("tiles-06")
    @pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_536, 65_537])
    def test_no_tile_has_a_width_of_0(self, size) -> None:
        assert all(1 <= tile.width <= 256 for tile in [*tile_coordinates(size), *bundle_coordinates(size)])

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 70_000])
    def test_bundles_hold_each_entry_once(self, size) -> None:
        bundles = list(bundle_coordinates(size))
        assert sum(bundle.width for bundle in bundles) == size
        assert [bundle.number for bundle in bundles] == list(range(-(-size // 256)))
        assert all(bundle.full for bundle in bundles[:-1])

    @pytest.mark.parametrize(
        ("node", "size", "place"),
        [
            ((0, 0), 1, (TileCoordinate(0, 0, 1), 0, 1)),
            ((0, 255), 256, (TileCoordinate(0, 0), 255, 256)),
            ((7, 1), 256, (TileCoordinate(0, 0), 128, 256)),
            ((8, 0), 256, (TileCoordinate(1, 0, 1), 0, 1)),
            ((8, 272), 70_000, (TileCoordinate(1, 1, 17), 16, 17)),
            ((11, 33), 70_000, (TileCoordinate(1, 1, 17), 8, 16)),
            ((16, 0), 70_000, (TileCoordinate(2, 0, 1), 0, 1)),
            ((0, 69_999), 70_000, (TileCoordinate(0, 273, 112), 111, 112)),
            ((3, 8_749), 70_000, (TileCoordinate(0, 273, 112), 104, 112)),
        ],
    )
    def test_a_subtree_is_found_in_its_tile(self, node, size, place) -> None:
        assert hash_coordinate(*node, size) == place

    @pytest.mark.parametrize(
        ("node", "size"),
        [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((8, 1), 511), ((0, -1), 4), ((-1, 0), 4), ((64, 0), 4)],
    )
    def test_a_subtree_that_is_not_in_the_tree_is_malformed(self, node, size) -> None:
        with pytest.raises(MalformedError, match="is not in a tree"):
            hash_coordinate(*node, size)


class TestTile:
    @requirement("tiles-03")
    def test_a_full_tile_has_8192_bytes(self) -> None:
        assert len(pack_tile([_HASH] * 256)) == 8192

    @pytest.mark.parametrize("width", [1, 2, 255, 256])
    def test_unpacking_is_the_inverse(self, width) -> None:
        hashes = [bytes([i % 256]) * 32 for i in range(width)]
        assert unpack_tile(pack_tile(hashes), width) == hashes

    @requirement("tiles-03", "tiles-06")
    @pytest.mark.parametrize("hashes", [[], [_HASH] * 257, [b""], [_HASH, _HASH[1:]], [_HASH + b"\x00"], [_HASH * 2]])
    def test_a_tile_of_no_or_too_many_or_odd_hashes_is_malformed(self, hashes) -> None:
        with pytest.raises(MalformedError):
            pack_tile(hashes)

    @pytest.mark.parametrize(
        ("length", "width"),
        [(0, 0), (0, 1), (31, 1), (33, 1), (64, 1), (32, 2), (8191, 256), (8193, 256), (8224, 257), (0, -1)],
    )
    def test_bytes_that_are_not_the_width_are_malformed(self, length, width) -> None:
        with pytest.raises(MalformedError):
            unpack_tile(b"\x00" * length, width)


class TestBundle:
    @requirement("tiles-09")
    def test_an_entry_stands_behind_its_length(self) -> None:
        assert pack_bundle([b"ab", b"", b"c" * 258]) == b"\x00\x02ab\x00\x00\x01\x02" + b"c" * 258

    @requirement("tiles-09", "tiles-10")
    @pytest.mark.parametrize(
        "entries", [[b""], [b"", b""], [b"x"] * 256, [b"\x00" * MAX_ENTRY_BYTES], [b"\x00\x05", b"\xff" * 300]]
    )
    def test_unpacking_is_the_inverse(self, entries) -> None:
        assert unpack_bundle(pack_bundle(entries), len(entries)) == entries

    @requirement("tiles-10")
    def test_an_entry_of_65536_bytes_is_malformed(self) -> None:
        with pytest.raises(MalformedError, match="65535"):
            pack_bundle([b"\x00" * 65_536])

    @pytest.mark.parametrize("count", [0, 257])
    def test_a_bundle_of_none_or_too_many_is_malformed(self, count) -> None:
        with pytest.raises(MalformedError):
            pack_bundle([b"x"] * count)

    @requirement("tiles-09")
    @pytest.mark.parametrize(
        ("data", "width"),
        [
            (b"", 0),
            (b"", 1),
            (b"\x00", 1),
            (b"\x00\x01", 1),
            (b"\x00\x02a", 1),
            (b"\x00\x01ab", 1),
            (b"\x00\x01a\x00", 1),
            (b"\x00\x01a", 2),
            (b"\x00\x01a\x00\x01b", 1),
            (b"\x00\x00" * 257, 257),
            (b"\x00\x00" * 3, -1),
            (b"\xff\xff" + b"a" * 65_534, 1),
        ],
    )
    def test_bytes_that_are_not_the_entries_are_malformed(self, data, width) -> None:
        with pytest.raises(MalformedError):
            unpack_bundle(data, width)


_ENTRIES = [b"%d" % number for number in range(600)]
_LEAVES = [hash_leaf(entry) for entry in _ENTRIES]
_TREE = NaiveTree(_ENTRIES)


class TestEdge:
    @requirement("tiles-04", "tiles-07")
    @pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 600])
    def test_it_writes_the_tiles_of_the_tree_and_only_these(self, size) -> None:
        edge = Edge()
        written = dict(edge.extend(_LEAVES[:size]))
        assert set(written) == set(tile_coordinates(size))
        for tile, data in written.items():
            span = 256**tile.level
            first = tile.number * 256
            assert unpack_tile(data, tile.width) == [
                _TREE.mth(i * span, (i + 1) * span) for i in range(first, first + tile.width)
            ]
        assert edge.root() == _TREE.root(size)

    def test_the_same_tree_in_other_batches_has_the_same_full_tiles_and_root(self) -> None:
        at_once, by_one = Edge(), Edge()
        whole = dict(at_once.extend(_LEAVES))
        parts = {}
        for leaf in _LEAVES:
            parts |= dict(by_one.extend([leaf]))
        assert by_one.root() == at_once.root()
        assert {tile: data for tile, data in parts.items() if tile in whole} == whole

    def test_only_what_is_new_is_written(self) -> None:
        edge = Edge()
        edge.extend(_LEAVES[:300])
        assert [tile for tile, _ in edge.extend(_LEAVES[300:310])] == [TileCoordinate(0, 1, 54)]
        assert edge.extend([]) == []

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 599])
    def test_it_can_be_taken_up_again_from_its_partial_tiles(self, size) -> None:
        tree_tiles = dict(Edge().extend(_LEAVES[:size]))
        rows: list[list[bytes]] = []
        for level in range(3):
            width = partial_width(level, size)
            tile = TileCoordinate(level, size >> 8 * (level + 1), width)
            rows.append(unpack_tile(tree_tiles[tile], width) if width else [])
        again = Edge(size, rows)
        assert again.size == size
        assert again.root() == _TREE.root(size)
        again.extend(_LEAVES[size:])
        assert again.root() == _TREE.root(600)

    def test_a_copy_does_not_follow_its_original(self) -> None:
        edge = Edge()
        edge.extend(_LEAVES[:5])
        copied = edge.copy()
        edge.extend(_LEAVES[5:300])
        assert (copied.size, copied.root()) == (5, _TREE.root(5))

    @pytest.mark.parametrize(
        ("size", "rows"),
        [
            (1, []),
            (1, [[]]),
            (1, [[_HASH, _HASH]]),
            (1, [[b"\x11" * 31]]),
            (0, [[_HASH]]),
            (256, [[_HASH]]),
            (256, [[], [_HASH, _HASH]]),
            (257, [[_HASH], []]),
            (257, [[_HASH], [_HASH], [_HASH]]),
            (70_000, [[_HASH] * 112, [_HASH] * 17]),
        ],
    )
    def test_rows_that_do_not_fit_the_size_are_malformed(self, size, rows) -> None:
        with pytest.raises(MalformedError, match="does not fit"):
            Edge(size, rows)

    @pytest.mark.timeout(5)
    @pytest.mark.parametrize("size", [-1, -256])
    def test_a_negative_size_is_malformed_and_comes_back(self, size) -> None:
        with pytest.raises(MalformedError, match="no tree has"):
            Edge(size)

    def test_a_leaf_of_another_length_is_refused_before_a_tile_is_written(self) -> None:
        with pytest.raises(MalformedError):
            Edge().extend([_LEAVES[0], b"short"])

    def test_a_full_tiles_hash_stands_in_the_tile_above(self) -> None:
        tiles = dict(Edge().extend(_LEAVES[:256]))
        full = unpack_tile(tiles[TileCoordinate(0, 0)])
        assert unpack_tile(tiles[TileCoordinate(1, 0, 1)], 1) == [subtree_root(full)]
