"""Inclusion and consistency proofs over ``entry 0``, ``entry 1``, …; each proof with every mutation that must fail.

Whether a changed size or index makes a proof too long or too short (`ProofError`) or leads it elsewhere
(`RootMismatchError`) follows from the length that RFC 6962 gives the proof; a change of the size that leaves length
and directions as they are is no mutation: the proof itself does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.reference.rfc6962 import NaiveTree
from tests.vectors.vector import JSONObject, Vector, accepted, rejected

_TREE = NaiveTree([b"entry %d" % number for number in range(70_000)])
_INCLUSIONS = [(0, 1), (1, 2), (2, 3), (3, 7), (6, 7), (0, 256), (256, 257), (65_535, 70_000)]
_CONSISTENCIES = [(1, 2), (2, 3), (3, 7), (4, 7), (6, 8), (255, 257), (65_536, 70_000)]
_ROOT_MISMATCH = "RootMismatchError"
_PROOF = "ProofError"

Mutations = Iterator[tuple[str, str, str, JSONObject]]


def _flipped(item: str, position: int = -1) -> str:
    data = bytearray.fromhex(item)
    data[position] ^= 1
    return data.hex()


def _path_mutations(path: list[str]) -> Mutations:
    """Yield name, sentence, error and the changed member."""
    zero = "00" * 32
    for place, position in (("first", 0), ("middle", len(path) // 2), ("last", len(path) - 1)):
        if not path or (place == "middle" and len(path) < 3) or (place == "last" and len(path) < 2):
            continue
        before, item, after = path[:position], path[position], path[position + 1 :]
        about = f"of the {place} hash of the path"
        yield (
            f"{place}-hash-flipped",
            f"A bit {about} is flipped.",
            _ROOT_MISMATCH,
            {"path": [*before, _flipped(item), *after]},
        )
        yield f"{place}-hash-zero", f"All bits {about} are zero.", _ROOT_MISMATCH, {"path": [*before, zero, *after]}
        yield f"{place}-hash-short", f"A byte {about} is missing.", _PROOF, {"path": [*before, item[:-2], *after]}
        yield f"{place}-hash-long", f"A byte {about} is too much.", _PROOF, {"path": [*before, item + "00", *after]}
        yield f"{place}-hash-empty", f"All bytes {about} are missing.", _PROOF, {"path": [*before, "", *after]}
        yield f"{place}-hash-removed", f"The {place} hash is missing.", _PROOF, {"path": [*before, *after]}
        yield (
            f"{place}-hash-doubled",
            f"The {place} hash stands twice.",
            _PROOF,
            {"path": [*before, item, item, *after]},
        )
    yield "hash-appended", "A hash follows the path.", _PROOF, {"path": [*path, zero]}
    yield "hash-prepended", "A hash precedes the path.", _PROOF, {"path": [zero, *path]}
    if len(path) > 1:
        yield (
            "path-swapped",
            "The first two hashes are swapped.",
            _ROOT_MISMATCH,
            {"path": [path[1], path[0], *path[2:]]},
        )
        yield "path-empty", "The path is empty.", _PROOF, {"path": []}
    if len(path) > 2:
        yield "path-reversed", "The path stands from the root to the leaf.", _ROOT_MISMATCH, {"path": path[::-1]}
    yield "path-too-long-for-any-tree", "The path has 65 hashes.", _PROOF, {"path": [zero] * 65}


def _inclusion_mutations(given: JSONObject) -> Mutations:
    index, size, leaf, root = given["index"], given["size"], given["leaf"], given["root"]
    yield from _path_mutations(given["path"])
    yield "leaf-flipped", "A bit of the leaf hash is flipped.", _ROOT_MISMATCH, {"leaf": _flipped(leaf)}
    yield "leaf-short", "A byte of the leaf hash is missing.", _PROOF, {"leaf": leaf[:-2]}
    yield "leaf-empty", "The leaf hash is missing.", _PROOF, {"leaf": ""}
    yield "root-flipped", "A bit of the root is flipped.", _ROOT_MISMATCH, {"root": _flipped(root, 0)}
    yield "root-of-the-empty-tree", "The root is the empty tree's.", _ROOT_MISMATCH, {"root": _TREE.root(0).hex()}
    yield "root-short", "A byte of the root is missing.", _ROOT_MISMATCH, {"root": root[:-2]}
    yield "index-negative", "The index is below 0.", _PROOF, {"index": -1}
    yield "index-is-the-size", "The index is the tree's size.", _PROOF, {"index": size}
    yield "index-huge", "The index is 2**63.", _PROOF, {"index": 2**63}
    yield "size-zero", "The tree is empty.", _PROOF, {"size": 0}
    yield "size-negative", "The size is below 0.", _PROOF, {"size": -size}
    for name, other in (("index-plus-one", index + 1), ("index-minus-one", index - 1), ("index-next-bit", index ^ 2)):
        if 0 <= other < size:
            same = len(_TREE.inclusion(other, size)) == len(given["path"])
            yield name, f"The index is {other}.", _ROOT_MISMATCH if same else _PROOF, {"index": other}
    if size > 1:
        yield (
            "leaf-of-another-entry",
            "The leaf hash is another entry's.",
            _ROOT_MISMATCH,
            {"leaf": _TREE.leaves[(index + 1) % size].hex()},
        )
        yield (
            "node-as-leaf",
            "A node of level 1 stands for a leaf, on its own path.",
            _PROOF,
            {
                "leaf": _TREE.mth(0, 2).hex(),
                "index": 0,
                "path": [item.hex() for item in _TREE.inclusion(0, size)[1:]],
            },
        )
    for name, other in (("size-minus-one", size - 1), ("size-doubled", 2 * size), ("size-halved", size // 2)):
        if index < other <= 70_000 and len(_TREE.inclusion(index, other)) != len(given["path"]):
            yield name, f"The size is {other}.", _PROOF, {"size": other}


def _consistency_mutations(given: JSONObject) -> Mutations:
    old, new, path = given["old_size"], given["new_size"], given["path"]
    old_root, new_root = given["old_root"], given["new_root"]
    yield from _path_mutations(path)
    yield "old-root-flipped", "A bit of the old root is flipped.", _ROOT_MISMATCH, {"old_root": _flipped(old_root)}
    yield "new-root-flipped", "A bit of the new root is flipped.", _ROOT_MISMATCH, {"new_root": _flipped(new_root)}
    yield "roots-swapped", "The roots are swapped.", _ROOT_MISMATCH, {"old_root": new_root, "new_root": old_root}
    yield "roots-equal", "Both roots are the new one.", _ROOT_MISMATCH, {"old_root": new_root}
    yield "sizes-swapped", "The sizes are swapped.", _PROOF, {"old_size": new, "new_size": old}
    yield "old-size-negative", "The old size is below 0.", _PROOF, {"old_size": -old}
    yield "old-size-minus-one-bit", "The old size is -1, of which every bit is set.", _PROOF, {"old_size": -1}
    yield "both-sizes-negative", "Both sizes are -1.", _PROOF, {"old_size": -1, "new_size": -1}
    yield "old-size-zero", "The old size is 0, the path is not empty.", _PROOF, {"old_size": 0}
    yield (
        "old-size-zero-without-path",
        "The old size is 0, its root is not the empty tree's.",
        _ROOT_MISMATCH,
        {
            "old_size": 0,
            "path": [],
        },
    )
    yield "sizes-equal", "Both sizes are the new one, the path is not empty.", _PROOF, {"old_size": new}
    yield (
        "sizes-equal-without-path",
        "Both sizes are the new one, the roots differ.",
        _ROOT_MISMATCH,
        {
            "old_size": new,
            "path": [],
        },
    )
    changes = {
        "old-size-plus-one": (old + 1, new),
        "old-size-minus-one": (old - 1, new),
        "new-size-plus-one": (old, new + 1),
    }
    changes |= {"new-size-minus-one": (old, new - 1), "new-size-doubled": (old, 2 * new)}
    for name, (first, second) in changes.items():
        if 0 < first < second <= 70_000 and len(_TREE.consistency(first, second)) != len(path):
            yield name, f"The sizes are {first} and {second}.", _PROOF, {"old_size": first, "new_size": second}


def _inclusion(index: int, size: int) -> JSONObject:
    return {
        "leaf": _TREE.leaves[index].hex(),
        "index": index,
        "size": size,
        "root": _TREE.root(size).hex(),
        "path": [item.hex() for item in _TREE.inclusion(index, size)],
    }


def _consistency(old: int, new: int) -> JSONObject:
    return {
        "old_size": old,
        "old_root": _TREE.root(old).hex(),
        "new_size": new,
        "new_root": _TREE.root(new).hex(),
        "path": [item.hex() for item in _TREE.consistency(old, new)],
    }


def vectors() -> Iterator[Vector]:
    for index, size in _INCLUSIONS:
        given = _inclusion(index, size)
        name = f"inclusion/leaf-{index}-of-{size}"
        yield accepted(f"{name}/valid", f"Entry {index} is in the tree of {size}.", given, {})
        for mutation, about, error, change in _inclusion_mutations(given):
            yield rejected(f"{name}/{mutation}", about, error, given | change)
    for old, new in _CONSISTENCIES:
        given = _consistency(old, new)
        name = f"consistency/from-{old}-to-{new}"
        yield accepted(f"{name}/valid", f"The tree of {new} begins with that of {old}.", given, {})
        for mutation, about, error, change in _consistency_mutations(given):
            yield rejected(f"{name}/{mutation}", about, error, given | change)
    for old, new in [(0, 0), (0, 1), (0, 7), (1, 1), (7, 7)]:
        given = _consistency(old, new)
        name = f"consistency/from-{old}-to-{new}"
        yield accepted(f"{name}/valid", "The path is empty, and the roots are what they must be.", given, {})
        yield rejected(f"{name}/hash-appended", "A hash follows.", _PROOF, given | {"path": ["00" * 32]})
        flipped = given | {"old_root": _flipped(given["old_root"])}
        yield rejected(f"{name}/old-root-flipped", "A bit of the old root is flipped.", _ROOT_MISMATCH, flipped)
        if old == new:
            flipped = given | {"new_root": _flipped(given["new_root"])}
            yield rejected(f"{name}/new-root-flipped", "A bit of the new root is flipped.", _ROOT_MISMATCH, flipped)
