"""The tree, its proofs and its tiles at the sizes where tiles fill, against the recursive definition."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from types import ModuleType

import pytest

from ledger.merkle import hash_leaf, root_of_leaves
from ledger.proofs import verify_consistency, verify_inclusion
from ledger.tiles import Edge, bundle_coordinates, pack_bundle, tile_coordinates, unpack_bundle, unpack_tile
from tests.conformance.reference.c2sp import tile_path
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.conformance.requirements import requirement
from tests.fakes import LogSimulator

_SIZES = (0, 1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 70_000)
_LARGEST = _SIZES[-1]
_ENTRIES = [b"entry %d" % number for number in range(_LARGEST)]


@pytest.fixture(scope="module")
def naive() -> NaiveTree:
    return NaiveTree(_ENTRIES)


@pytest.fixture(scope="module")
def log() -> LogSimulator:
    """Grown as a log grows: in batches that end at each of the sizes."""
    log = LogSimulator()
    for start, end in itertools.pairwise(_SIZES):
        log.grow(_ENTRIES[start:end])
    return log


def _indexes(size: int) -> list[int]:
    """Return the leaves at the edges of perfect subtrees and tiles, and a few inside."""
    powers = [1 << height for height in range(17)]
    around = {index for power in powers for index in (power - 1, power, size - power - 1, size - power, size - 1)}
    spread = range(0, size, max(1, size // 64))
    return sorted(index for index in {0, *around, *spread} if 0 <= index < size)


@requirement("tree-04")
@pytest.mark.parametrize("size", _SIZES)
def test_roots_agree(size, naive, log) -> None:
    assert log.head(size).root == naive.root(size)


@requirement("tree-05", "tree-06")
@pytest.mark.parametrize("size", _SIZES[1:])
def test_inclusion_proofs_agree_and_hold(size, naive, log) -> None:
    for index in _indexes(size):
        path = log.inclusion(index, size)
        assert list(path) == naive.inclusion(index, size)
        assert log.inclusion(index, size, at=size) == path, "the partial tiles of this size say something else"
        verify_inclusion(hash_leaf(_ENTRIES[index]), index, log.head(size), path)


@requirement("tree-07", "tree-08")
@pytest.mark.parametrize(("old", "new"), list(itertools.combinations_with_replacement(_SIZES, 2)))
def test_consistency_proofs_between_all_sizes_agree_and_hold(old, new, naive, log) -> None:
    path = log.consistency(old, new)
    assert list(path) == naive.consistency(old, new)
    assert log.consistency(old, new, at=new) == path, "the partial tiles of this size say something else"
    verify_consistency(log.head(old), log.head(new), path)


@requirement("tiles-04", "tiles-07")
@pytest.mark.parametrize("size", _SIZES)
def test_a_tree_has_exactly_the_tiles_of_the_specification(size, naive) -> None:
    edge = Edge()
    written = {coordinate.path: (coordinate, data) for coordinate, data in edge.extend(map(hash_leaf, _ENTRIES[:size]))}
    expected = {}
    for level in range(3):
        nodes = size // 256**level
        full, width = divmod(nodes, 256)
        expected |= {tile_path(level, number): (level, number, 256) for number in range(full)}
        if width:
            expected[tile_path(level, full, width)] = (level, full, width)
    assert set(written) == set(expected) == {coordinate.path for coordinate in tile_coordinates(size)}
    for path, (level, number, width) in expected.items():
        coordinate, data = written[path]
        assert (coordinate.level, coordinate.number, coordinate.width) == (level, number, width)
        assert len(data) == 32 * width
        span = 256**level
        first = number * 256
        assert data == b"".join(naive.mth(i * span, (i + 1) * span) for i in range(first, first + width))


@requirement("tiles-07")
def test_every_partial_tile_of_every_published_size_is_kept(log) -> None:
    for size in _SIZES:
        assert {coordinate.path for coordinate in tile_coordinates(size)} <= set(log.files)


@requirement("tiles-09", "tiles-11")
@pytest.mark.parametrize("size", [1, 255, 256, 257, 600])
def test_each_entry_hashes_to_its_place_in_the_level_0_tile(size) -> None:
    edge = Edge()
    tiles = {coordinate.path: data for coordinate, data in edge.extend(map(hash_leaf, _ENTRIES[:size]))}
    for coordinate in bundle_coordinates(size):
        first = coordinate.number * 256
        bundle = pack_bundle(_ENTRIES[first : first + coordinate.width])
        entries = unpack_bundle(bundle, coordinate.width)
        tile = tiles[coordinate.path.replace("/entries/", "/0/")]
        assert [hash_leaf(entry) for entry in entries] == unpack_tile(tile, coordinate.width)


@requirement("tree-01", "tree-02", "tree-03", "tree-04")
@pytest.mark.parametrize(
    ("size", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (4, "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        (6, "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_the_roots_that_certificate_transparency_has_always_published_come_out(size, root) -> None:
    # Known answers of the public CT implementations for these inputs: neither our code nor our reference made them.
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    entries = [bytes.fromhex(item) for item in inputs[:size]]
    assert root_of_leaves(map(hash_leaf, entries)).hex() == root
    assert NaiveTree(entries).root(size).hex() == root


@pytest.fixture(scope="module")
def merkletools() -> ModuleType:
    with warnings.catch_warnings():
        # It asks for pysha3, which Python has not needed since 3.6 and which does not build today.
        warnings.filterwarnings("ignore", message="sha3 is not working!", category=UserWarning)
        import merkletools

    return merkletools


class TestMerkleTools:
    """A second opinion on roots from a package that was not written for RFC 6962.

    merkletools hashes pairs without a prefix and promotes a node that has no sibling, which gives the shape of RFC
    6962's tree. With leaves that are hashed already and a hash function that puts 0x01 before what it hashes, its root
    is RFC 6962's. Not for size 0, where it has no root; and it knows no consistency proofs: only roots are compared.
    """

    @requirement("tree-02", "tree-04")
    @pytest.mark.parametrize("size", [*range(1, 41), *_SIZES[3:]])
    def test_it_agrees_on_the_root(self, size, merkletools, naive) -> None:
        tools = merkletools.MerkleTools(hash_type="sha256")
        tools.hash_function = lambda pair: hashlib.sha256(b"\x01" + pair)
        tools.add_leaf([leaf.hex() for leaf in naive.leaves[:size]])
        tools.make_tree()
        assert bytes.fromhex(tools.get_merkle_root()) == root_of_leaves(map(hash_leaf, _ENTRIES[:size]))

    def test_without_the_prefix_it_does_not(self, merkletools, naive) -> None:
        tools = merkletools.MerkleTools(hash_type="sha256")
        tools.add_leaf([leaf.hex() for leaf in naive.leaves[:2]])
        tools.make_tree()
        assert bytes.fromhex(tools.get_merkle_root()) != naive.root(2)

    def test_it_has_no_root_for_the_empty_tree(self, merkletools) -> None:
        tools = merkletools.MerkleTools()
        tools.make_tree()
        assert tools.get_merkle_root() is None
