"""Tile and entry-bundle coordinates, paths and packing (C2SP tlog-tiles).

Pure. Reading tiles from a store is in `prover`, writing them in `integrator`.

Level-0 tiles hold leaf hashes; the level-l entry i of tile n is the root of the perfect subtree over leaves
``[(256 n + i) * 256**l, (256 n + i + 1) * 256**l)``. A full tile is 256 hashes, 8,192 bytes. The rightmost tile of each
level may be *partial*: 1 to 255 hashes, at a path of its own that ends in ``.p/<width>``. Only full tiles are hashed
upward. An entry bundle is up to 256 entries, each behind its length as a big-endian u16.

Examples of paths::

    tile/0/000            tile/0/x001/x234/067      tile/2/000.p/1
    tile/entries/000      tile/entries/x001/234.p/17

Source: C2SP tlog-tiles v0.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.errors import MalformedError
from ledger.merkle import HASH_BYTES, CompactRange, LeafHash, RootHash, subtree_root

__all__ = [
    "BUNDLE_LEVEL",
    "CHECKPOINT_PATH",
    "MAX_ENTRY_BYTES",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Edge",
    "TileCoordinate",
    "bundle_coordinates",
    "hash_coordinate",
    "pack_bundle",
    "pack_tile",
    "parse_hash_tile_path",
    "parse_tile_path",
    "partial_width",
    "tile_coordinates",
    "unpack_bundle",
    "unpack_tile",
]

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 256
MAX_ENTRY_BYTES: Final = 65_535
CHECKPOINT_PATH: Final = "checkpoint"

BUNDLE_LEVEL: Final = -1
"""The level number that stands for entry bundles in a `TileCoordinate`."""

_MAX_LEVEL: Final = 63
# Six groups of digits hold the number of every tile of a tree of 2**63 - 1 leaves.
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class TileCoordinate:
    """One tile or entry bundle.

    Attributes:
        level: 0 to 63, or `BUNDLE_LEVEL` for an entry bundle.
        number: Zero-based, from the left.
        width: Hashes or entries in it, 1 to 256; 256 is a full tile.
    """

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def full(self) -> bool:
        """Whether the tile is complete and will never change."""
        return self.width == TILE_WIDTH

    @property
    def path(self) -> str:
        """The path below the log's prefix."""
        groups = [f"{self.number % 1000:03d}"]
        rest = self.number // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level == BUNDLE_LEVEL else str(self.level)
        partial = "" if self.full else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_tile_path(path: str) -> TileCoordinate:
    """Read a tile or bundle path; the inverse of `TileCoordinate.path`.

    Raises:
        MalformedError: Not such a path, or not its one spelling (leading zeros, a width of 0 or above 255).
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedError(f"not a tile path: {path!r}")
    level = BUNDLE_LEVEL if match["level"] == "entries" else int(match["level"])
    number = int(match["number"].replace("x", "").replace("/", ""))
    width = int(match["width"]) if match["width"] else TILE_WIDTH
    coordinate = TileCoordinate(level, number, width)
    if level > _MAX_LEVEL or (match["width"] and width >= TILE_WIDTH) or coordinate.path != path:
        raise MalformedError(f"not a tile path: {path!r}")
    return coordinate


def parse_hash_tile_path(path: str) -> TileCoordinate:
    """Read the path of a hash tile, which can be made anew from the entries.

    Raises:
        MalformedError: Not such a path; an entry bundle's is none.
    """
    coordinate = parse_tile_path(path)
    if coordinate.level == BUNDLE_LEVEL:
        raise MalformedError(f"not the path of a hash tile: {path!r}")
    return coordinate


def partial_width(level: int, size: int) -> int:
    """Return the width of the partial tile of ``level`` at tree ``size``: 0 to 255, 0 if there is none."""
    return (size >> (TILE_HEIGHT * level)) % TILE_WIDTH


def tile_coordinates(size: int) -> Iterator[TileCoordinate]:
    """Yield every hash tile of a tree of ``size`` leaves, level by level, left to right."""
    level = 0
    while (nodes := size >> (TILE_HEIGHT * level)) > 0:
        for number in range(nodes // TILE_WIDTH):
            yield TileCoordinate(level, number)
        if width := nodes % TILE_WIDTH:
            yield TileCoordinate(level, nodes // TILE_WIDTH, width)
        level += 1


def bundle_coordinates(size: int) -> Iterator[TileCoordinate]:
    """Yield every entry bundle of a tree of ``size`` leaves, left to right."""
    for number in range(size // TILE_WIDTH):
        yield TileCoordinate(BUNDLE_LEVEL, number)
    if width := size % TILE_WIDTH:
        yield TileCoordinate(BUNDLE_LEVEL, size // TILE_WIDTH, width)


def hash_coordinate(level: int, index: int, size: int) -> tuple[TileCoordinate, int, int]:
    """Say where the hash of a perfect subtree is found.

    Args:
        level: Height of the subtree: it covers ``2**level`` leaves.
        index: Its zero-based position among the subtrees of that height.
        size: Tree size in leaves, which decides whether the tile is partial.

    Returns:
        The tile, and the slice ``[first, last)`` of its hashes whose perfect subtree is the one asked for.

    Raises:
        MalformedError: The subtree does not lie in the tree.
    """
    if index < 0 or level < 0 or (index + 1) << level > size:
        raise MalformedError(f"subtree {index} of height {level} is not in a tree of {size}")
    tile_level, height = divmod(level, TILE_HEIGHT)
    span = 1 << height
    first = index * span
    number, offset = divmod(first, TILE_WIDTH)
    nodes = size >> (TILE_HEIGHT * tile_level)
    width = min(TILE_WIDTH, nodes - number * TILE_WIDTH)
    return TileCoordinate(tile_level, number, width), offset, offset + span


def pack_tile(hashes: Sequence[bytes]) -> bytes:
    """Return a tile's bytes.

    Raises:
        MalformedError: No hash or more than 256, or one that is not 32 bytes.
    """
    if not 1 <= len(hashes) <= TILE_WIDTH:
        raise MalformedError(f"a tile holds 1 to {TILE_WIDTH} hashes, not {len(hashes)}")
    if any(len(item) != HASH_BYTES for item in hashes):
        raise MalformedError("a hash of a tile is not 32 bytes")
    return b"".join(hashes)


def unpack_tile(data: bytes, width: int = TILE_WIDTH) -> list[bytes]:
    """Return a tile's hashes; the inverse of `pack_tile`.

    Raises:
        MalformedError: The bytes are not ``width`` hashes.
    """
    if len(data) != width * HASH_BYTES or not 1 <= width <= TILE_WIDTH:
        raise MalformedError(f"a tile of width {width} has {width * HASH_BYTES} bytes, not {len(data)}")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """Return an entry bundle's bytes: each entry behind its length as a big-endian u16.

    Raises:
        MalformedError: No entry or more than 256, or one above 65,535 bytes.
    """
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise MalformedError(f"a bundle holds 1 to {TILE_WIDTH} entries, not {len(entries)}")
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise MalformedError(f"an entry has at most {MAX_ENTRY_BYTES} bytes, not {len(entry)}")
        parts.append(len(entry).to_bytes(2, "big"))
        parts.append(entry)
    return b"".join(parts)


def unpack_bundle(data: bytes, width: int = TILE_WIDTH) -> list[bytes]:
    """Return an entry bundle's entries; the inverse of `pack_bundle`.

    Raises:
        MalformedError: The bytes are not exactly ``width`` length-prefixed entries, or no bundle is that wide.
    """
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedError(f"a bundle holds 1 to {TILE_WIDTH} entries, not {width}")
    entries: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + 2
        end = start + int.from_bytes(data[position:start], "big")
        if start > len(data) or end > len(data):
            raise MalformedError("an entry bundle is cut short")
        entries.append(data[start:end])
        position = end
    if len(entries) != width:
        raise MalformedError(f"an entry bundle of width {width} holds {len(entries)} entries")
    return entries


class Edge:
    """The right edge of a tree: the hashes of each level's unfinished tile.

    With the edge, leaves can be added and the tiles that result be written without reading any older tile. Not safe for
    concurrent use: one task owns it.
    """

    __slots__ = ("_rows", "_size")

    def __init__(self, size: int = 0, rows: Sequence[Sequence[bytes]] = ()) -> None:
        """Take up an edge.

        Args:
            size: Leaves in the tree.
            rows: For each level from 0 the hashes of its partial tile, possibly none.

        Raises:
            MalformedError: The rows do not fit the size.
        """
        if size < 0:
            raise MalformedError(f"no tree has {size} leaves")
        self._size = size
        self._rows: list[list[bytes]] = [list(row) for row in rows]
        levels = 0
        while size >> (TILE_HEIGHT * levels):
            levels += 1
        self._rows.extend([] for _ in range(levels - len(self._rows)))
        for level, row in enumerate(self._rows):
            if len(row) != partial_width(level, size) or any(len(item) != HASH_BYTES for item in row):
                raise MalformedError(f"level {level} of the edge does not fit a tree of {size}")

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return self._size

    def copy(self) -> Edge:
        """Return an independent copy."""
        return Edge(self._size, self._rows)

    @property
    def rows(self) -> list[list[bytes]]:
        """The hashes of each level's partial tile, from level 0 on, possibly none."""
        return [list(row) for row in self._rows]

    def root(self) -> RootHash:
        """Return the tree's root."""
        return self.compact_range().root()

    def compact_range(self) -> CompactRange:
        """Return the perfect subtrees that cover the tree."""
        hashes: list[bytes] = []
        for row in reversed(self._rows):
            position, width = 0, len(row)
            for height in reversed(range(TILE_HEIGHT)):
                if width >> height & 1:
                    hashes.append(subtree_root(row[position : position + (1 << height)]))
                    position += 1 << height
        return CompactRange(self._size, hashes)

    def extend(self, leaves: Iterable[LeafHash]) -> list[tuple[TileCoordinate, bytes]]:
        """Add leaves and return the tiles that a tree of the new size has and the old one lacked.

        Returns:
            Full tiles as they fill, level by level upward, then the partial tiles of the new size; each with its bytes.
        """
        written: list[tuple[TileCoordinate, bytes]] = []
        touched: set[int] = set()
        for leaf in leaves:
            node: bytes = leaf
            level = 0
            while True:
                if level == len(self._rows):
                    self._rows.append([])
                row = self._rows[level]
                row.append(node)
                touched.add(level)
                if len(row) < TILE_WIDTH:
                    break
                number = self._size >> (TILE_HEIGHT * (level + 1))
                written.append((TileCoordinate(level, number), pack_tile(row)))
                node = subtree_root(row)
                row.clear()
                level += 1
            self._size += 1
        return written + [tile for tile in self.partial_tiles() if tile[0].level in touched]

    def partial_tiles(self) -> list[tuple[TileCoordinate, bytes]]:
        """Return the partial tile of each level that has one, with its bytes, level by level upward."""
        tiles = []
        for level, row in enumerate(self._rows):
            if row:
                number = self._size >> (TILE_HEIGHT * (level + 1))
                tiles.append((TileCoordinate(level, number, len(row)), pack_tile(row)))
        return tiles
