"""`.tlog-proof` files over a log of 300 entries, with the entry and the policy that judge them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.reference import c2sp
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.vectors.keys import LOG, LOG_PQ, ORIGIN
from tests.vectors.vector import JSONObject, Vector, accepted, blob, rejected

_MALFORMED, _PROOF, _MISMATCH = "MalformedError", "ProofError", "RootMismatchError"
_ENTRIES = [b"entry %d" % number for number in range(300)]
_TREE = NaiveTree(_ENTRIES)
_FORGED = NaiveTree([b"forged"] * 300)
_POLICY = f"log {LOG.vkey}\nlog {LOG_PQ.vkey}\nquorum none\n"
_HEADER = "c2sp.org/tlog-proof@v1"


def _checkpoint(size: int, root: bytes | None = None) -> str:
    text = c2sp.body(ORIGIN, size, root or _TREE.root(size))
    return c2sp.note(text, LOG.line(text), LOG_PQ.line(text, timestamp=1_763_546_400)).decode()


_CHECKPOINT = _checkpoint(300)


def _file(*lines: str, checkpoint: str = _CHECKPOINT) -> bytes:
    return ("\n".join(lines) + "\n\n" + checkpoint).encode()


def _given(data: bytes, entry: bytes) -> JSONObject:
    return {"proof": blob(data), "entry": blob(entry), "policy": blob(_POLICY.encode())}


def _malformed(index: int, path: list[str]) -> Iterator[tuple[str, str, bytes]]:
    line = f"index {index}"
    whole = _file(_HEADER, line, *path)
    yield "empty", "Nothing.", b""
    yield "checkpoint-missing", "There is no checkpoint.", "\n".join([_HEADER, line, *path]).encode() + b"\n\n"
    yield (
        "checkpoint-unsigned",
        "The checkpoint has no signature.",
        _file(_HEADER, line, *path, checkpoint=_CHECKPOINT.split("\n\n")[0] + "\n"),
    )
    yield (
        "empty-line-missing",
        "The empty line is missing.",
        whole.replace(b"\n\n" + ORIGIN.encode(), b"\n" + ORIGIN.encode()),
    )
    yield "carriage-returns", "Lines end in CR LF.", whole.replace(b"\n", b"\r\n")
    yield "line-feed-behind", "A line feed follows.", whole + b"\n"
    yield "last-line-feed-missing", "The last line does not end.", whole[:-1]
    yield "header-missing", "The header is missing.", _file(line, *path)
    yield "version-2", "The header names version 2.", _file(_HEADER[:-1] + "2", line, *path)
    yield "index-missing", "The index is missing.", _file(_HEADER, *path)
    yield "index-negative", "The index is negative.", _file(_HEADER, f"index -{index}", *path)
    yield "index-padded", "The index has a leading zero.", _file(_HEADER, f"index 0{index}", *path)
    yield "index-twice", "The index stands twice.", _file(_HEADER, line, line, *path)
    yield "index-of-twenty-digits", "The index has twenty digits.", _file(_HEADER, "index " + "9" * 20, *path)
    yield "extra-behind-the-index", "The extra data follows the index.", _file(_HEADER, line, "extra eA==", *path)
    yield "extra-twice", "The extra data stands twice.", _file(_HEADER, "extra eA==", "extra eA==", line, *path)
    yield "extra-not-base64", "The extra data is not base64.", _file(_HEADER, "extra x", line, *path)
    yield "hash-of-31-bytes", "A hash has 31 bytes.", _file(_HEADER, line, c2sp.b64(bytes(31)), *path[1:])
    yield "hash-of-33-bytes", "A hash has 33 bytes.", _file(_HEADER, line, c2sp.b64(bytes(33)), *path[1:])
    yield "hash-unpadded", "A hash lacks its padding.", _file(_HEADER, line, path[0].rstrip("="), *path[1:])
    yield "hash-behind-a-space", "A space precedes a hash.", _file(_HEADER, line, " " + path[0], *path[1:])
    yield "64-hashes", "There are 64 hashes.", _file(_HEADER, line, *[path[0]] * 64)
    yield "not-ascii", "The head is not ASCII.", _file(_HEADER, line, *path, "\xe9")


def vectors() -> Iterator[Vector]:
    for index in (0, 7, 255, 256, 299):
        name = f"proof-files/entry-{index}"
        path = [c2sp.b64(item) for item in _TREE.inclusion(index, 300)]
        line = f"index {index}"
        entry = _ENTRIES[index]
        valid = _file(_HEADER, line, *path)
        output: JSONObject = {"index": index, "size": 300, "root": _TREE.root(300).hex(), "extra": None}
        yield accepted(f"{name}/valid", "The entry is in the log.", _given(valid, entry), output)
        extra = _given(_file(_HEADER, "extra eA==", line, *path), entry)
        yield accepted(f"{name}/extra", "There is extra data.", extra, output | {"extra": c2sp.b64(b"x")})
        other = _ENTRIES[(index + 1) % 300]
        yield rejected(f"{name}/other-entry", "The entry is another.", _MISMATCH, _given(valid, other))
        longer = _given(valid, entry + b"\n")
        yield rejected(f"{name}/entry-with-line-feed", "A line feed follows the entry.", _MISMATCH, longer)
        swapped = _file(_HEADER, line, path[1], path[0], *path[2:])
        yield rejected(f"{name}/path-swapped", "Two hashes are swapped.", _MISMATCH, _given(swapped, entry))
        short = _given(_file(_HEADER, line, *path[1:]), entry)
        yield rejected(f"{name}/path-short", "The first hash is missing.", _PROOF, short)
        long = _given(_file(_HEADER, line, *path, path[0]), entry)
        yield rejected(f"{name}/path-long", "A hash follows.", _PROOF, long)
        beyond = _given(_file(_HEADER, "index 300", *path), entry)
        yield rejected(f"{name}/index-is-the-size", "The index is the tree's size.", _PROOF, beyond)
        forged_path = [c2sp.b64(item) for item in _FORGED.inclusion(index, 300)]
        text = c2sp.body(ORIGIN, 300, _FORGED.root(300))
        lines = _CHECKPOINT.split("\n\n")[1].splitlines(keepends=True)
        forged = _file(_HEADER, line, *forged_path, checkpoint=c2sp.note(text, *lines).decode())
        about = "The checkpoint's root was replaced by that of a forged tree."
        yield rejected(f"{name}/forged-tree", about, "SignatureInvalidError", _given(forged, b"forged"))
        unsigned = _file(
            _HEADER, line, *path, checkpoint=c2sp.note(_CHECKPOINT.split("\n\n")[0] + "\n", lines[0]).decode()
        )
        about = "ML-DSA-44's signature was taken away."
        yield rejected(f"{name}/signature-removed", about, "TrustPolicyError", _given(unsigned, entry))
        if index == 7:
            for mutation, about, data in _malformed(index, path):
                yield rejected(f"{name}/{mutation}", about, _MALFORMED, _given(data, entry))
    single = c2sp.body(ORIGIN, 1, _TREE.root(1))
    checkpoint = c2sp.note(single, LOG.line(single), LOG_PQ.line(single, timestamp=1_763_546_400)).decode()
    given = _given(_file(_HEADER, "index 0", checkpoint=checkpoint), _ENTRIES[0])
    output = {"index": 0, "size": 1, "root": _TREE.root(1).hex(), "extra": None}
    yield accepted("proof-files/only-entry/valid", "The path of the only entry is empty.", given, output)
