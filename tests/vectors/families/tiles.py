"""Tiles and entry bundles: paths, which tiles a tree has, and their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tests.conformance.reference.c2sp import b64, tile_path
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.vectors.vector import Vector, accepted, rejected

_MALFORMED = "MalformedError"
_ENTRIES = [b"entry %d" % number for number in range(600)]
_TREE = NaiveTree(_ENTRIES)

_PATHS: list[tuple[str, int | str, int, int]] = [
    ("first", 0, 0, 256),
    ("second-group", 0, 1000, 256),
    ("three-groups", 0, 1_234_067, 256),
    ("highest-level", 63, 0, 256),
    ("partial", 2, 0, 1),
    ("widest-partial", 1, 273, 255),
    ("largest-number", 0, 2**55 - 1, 256),
    ("bundle", "entries", 7, 256),
    ("partial-bundle", "entries", 1234, 17),
]
_BAD_PATHS = {
    "empty": "",
    "checkpoint": "checkpoint",
    "slash-before": "/tile/0/000",
    "slash-behind": "tile/0/000/",
    "level-64": "tile/64/000",
    "level-padded": "tile/00/000",
    "level-negative": "tile/-1/000",
    "level-missing": "tile/000",
    "level-unknown-word": "tile/data/000",
    "level-foreign-digit": "tile/\u0660/000",
    "height-in-the-path": "tile/8/0/000",
    "number-of-one-digit": "tile/0/0",
    "number-of-four-digits": "tile/0/1000",
    "number-padded-by-a-group": "tile/0/x000/001",
    "number-without-x": "tile/0/001/000",
    "number-with-x-at-the-end": "tile/0/x001/x000",
    "number-upper-case-x": "tile/0/X001/000",
    "number-cut-short": "tile/0/x001",
    "number-of-seven-groups": "tile/0/x001/x000/x000/x000/x000/x000/000",
    "number-without-end": "tile/0/" + "x001/" * 2000 + "000",
    "width-0": "tile/0/000.p/0",
    "width-256": "tile/0/000.p/256",
    "width-padded": "tile/0/000.p/01",
    "width-negative": "tile/0/000.p/-1",
    "width-missing": "tile/0/000.p/",
    "width-without-slash": "tile/0/000.p",
    "line-feed-behind": "tile/0/000\n",
    "parent": "tile/0/../0/000",
    "query": "tile/0/000?x=1",
}


def _tiles_of(size: int) -> dict[str, str]:
    """Return the SHA-256 of each tile of a tree, by path."""
    tiles = {}
    level = 0
    while nodes := size // 256**level:
        span = 256**level
        for number in range(-(-nodes // 256)):
            width = min(256, nodes - number * 256)
            data = b"".join(_TREE.mth(i * span, (i + 1) * span) for i in range(number * 256, number * 256 + width))
            tiles[tile_path(level, number, width)] = hashlib.sha256(data).hexdigest()
        level += 1
    return tiles


def _tile_vectors() -> Iterator[Vector]:
    for case, level, number, width in _PATHS:
        output = {"level": level, "number": number, "width": width}
        given = {"path": tile_path(level, number, width)}
        yield accepted(f"tiles/path/{case}", "The path of a tile.", given, output)
    for mutation, path in _BAD_PATHS.items():
        yield rejected(f"tiles/path/{mutation}", "Not the path of a tile.", _MALFORMED, {"path": path})
    for size in (1, 2, 255, 256, 257, 511, 512, 513, 600):
        about = "The tree of entry 0, entry 1, … has these tiles; their SHA-256 is given."
        yield accepted(f"tiles/tree-of-{size}/valid", about, {"size": size}, {"tiles": _tiles_of(size)})
    for width in (1, 3, 256):
        hashes = _TREE.leaves[:width]
        data = b"".join(hashes)
        name = f"tiles/bytes-of-width-{width}"
        output = {"hashes": [item.hex() for item in hashes]}
        yield accepted(f"{name}/valid", "The hashes of a tile.", {"tile": b64(data), "width": width}, output)
        for mutation, about, changed, claimed in (
            ("byte-missing", "A byte is missing.", data[:-1], width),
            ("byte-too-much", "A byte is too much.", data + b"\x00", width),
            ("hash-missing", "A hash is missing.", data[:-32], width),
            ("hash-too-much", "A hash is too much.", data + data[:32], width),
            ("width-smaller", "The width is smaller.", data, width - 1),
            ("width-larger", "The width is larger.", data, width + 1),
            ("width-257", "The width is 257, and so are the hashes.", data[:32] * 257, 257),
            ("width-zero", "The width is 0, and there is nothing.", b"", 0),
            ("empty", "There is nothing.", b"", width),
        ):
            yield rejected(f"{name}/{mutation}", about, _MALFORMED, {"tile": b64(changed), "width": claimed})


def _bundle(entries: list[bytes]) -> bytes:
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def _bundle_vectors() -> Iterator[Vector]:
    cases = {
        "one-entry": [b"entry 0"],
        "three-entries": [b"a", b"", b"\x00\x01"],
        "empty-entries": [b"", b""],
        "full": _ENTRIES[:256],
        "largest-entry": [b"\x5a" * 65_535],
    }
    for case, entries in cases.items():
        data, width = _bundle(entries), len(entries)
        name = f"bundles/{case}"
        output = {"sha256": [hashlib.sha256(entry).hexdigest() for entry in entries]}
        yield accepted(f"{name}/valid", "The entries of a bundle.", {"bundle": b64(data), "width": width}, output)
        if case == "largest-entry":
            continue
        for mutation, about, changed, claimed in (
            ("byte-missing", "The last byte is missing.", data[:-1], width),
            ("byte-too-much", "A byte is too much.", data + b"\x00", width),
            ("entry-too-much", "An entry is too much.", data + b"\x00\x00", width),
            ("first-entry-missing", "The first entry is missing.", _bundle(entries[1:]), width),
            ("width-smaller", "The width is smaller.", data, width - 1),
            ("width-larger", "The width is larger.", data, width + 1),
            ("length-beyond-the-end", "The last length leads beyond the end.", data + b"\xff\xff\x00", width + 1),
            ("length-cut", "A length has one byte.", data + b"\x01", width + 1),
            ("empty", "There is nothing.", b"", width),
        ):
            yield rejected(f"{name}/{mutation}", about, _MALFORMED, {"bundle": b64(changed), "width": claimed})
    for mutation, about, data, width in (
        ("257-entries", "There are 257 entries.", b"\x00\x00" * 257, 257),
        ("no-entry", "There is no entry, as claimed.", b"", 0),
        ("negative-width", "The width is negative.", b"", -1),
        ("little-endian", "The length's bytes stand the other way round.", b"\x07\x00entry 0", 1),
    ):
        yield rejected(f"bundles/width/{mutation}", about, _MALFORMED, {"bundle": b64(data), "width": width})


def vectors() -> Iterator[Vector]:
    yield from _tile_vectors()
    yield from _bundle_vectors()
