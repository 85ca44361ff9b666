"""Checkpoints, and one signature line of each type that we check."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

from tests.conformance.reference import c2sp
from tests.vectors.keys import LOG, LOG_PQ, ORIGIN, STRANGER, WITNESS_PQ, WITNESSES
from tests.vectors.vector import JSONObject, Vector, accepted, blob, rejected

_MALFORMED = "MalformedError"
_INVALID = "SignatureInvalidError"
_ROOT = bytes(range(0x60, 0x80))
_SIZE = 70_000
_TIME = 1_763_546_400
_TEXT = c2sp.body(ORIGIN, _SIZE, _ROOT)

Signer = c2sp.Ed25519Signer | c2sp.MLDSA44Signer
SIGNERS: dict[str, Signer] = {
    "log-ed25519": LOG,
    "log-ml-dsa-44": LOG_PQ,
    "witness-ed25519": WITNESSES[0],
    "witness-ml-dsa-44": WITNESS_PQ,
}


def _broken_bodies() -> Iterator[tuple[str, str, str]]:
    root = c2sp.b64(_ROOT)
    yield "size-leading-zero", "The size has a leading zero.", f"{ORIGIN}\n070000\n{root}\n"
    yield "size-negative", "The size is negative.", f"{ORIGIN}\n-1\n{root}\n"
    yield "size-plus", "The size has a sign.", f"{ORIGIN}\n+70000\n{root}\n"
    yield "size-hexadecimal", "The size is hexadecimal.", f"{ORIGIN}\n0x11170\n{root}\n"
    yield "size-with-space", "A space follows the size.", f"{ORIGIN}\n70000 \n{root}\n"
    yield "size-foreign-digits", "The size has digits of another script.", f"{ORIGIN}\n\u0667\n{root}\n"
    yield "size-beyond-2-63", "The size is 2**63.", f"{ORIGIN}\n{2**63}\n{root}\n"
    yield "size-missing", "The size is missing.", f"{ORIGIN}\n{root}\n"
    yield "size-empty", "The size line is empty.", f"{ORIGIN}\n\n{root}\n"
    yield "root-short", "The root has 31 bytes.", c2sp.body(ORIGIN, _SIZE, _ROOT[1:])
    yield "root-long", "The root has 33 bytes.", c2sp.body(ORIGIN, _SIZE, _ROOT + b"\x00")
    yield "root-missing", "The root is missing.", f"{ORIGIN}\n70000\n"
    yield "root-unpadded", "The root's padding is missing.", f"{ORIGIN}\n70000\n{root.rstrip('=')}\n"
    yield "root-trailing-bits", "Bits behind the root's last byte are set.", f"{ORIGIN}\n70000\n{root[:-2]}9=\n"
    yield "root-hexadecimal", "The root is hexadecimal.", f"{ORIGIN}\n70000\n{_ROOT.hex()}\n"
    yield "origin-missing", "The origin is missing.", f"70000\n{root}\n"
    yield "origin-empty", "The origin is empty.", f"\n70000\n{root}\n"
    yield "origin-of-256-bytes", "The origin has 256 bytes.", c2sp.body("x" * 256, _SIZE, _ROOT)
    yield "extension-empty", "An extension line is empty.", _TEXT + "\n"
    yield (
        "empty-tree-with-another-root",
        "The size is 0, the root is not the empty tree's.",
        c2sp.body(ORIGIN, 0, _ROOT),
    )


def _changed_texts() -> Iterator[tuple[str, str, str]]:
    yield "origin-changed", "The origin is another.", c2sp.body(ORIGIN + "x", _SIZE, _ROOT)
    yield "size-changed", "The size is another.", c2sp.body(ORIGIN, _SIZE + 1, _ROOT)
    yield "root-changed", "A bit of the root is flipped.", c2sp.body(ORIGIN, _SIZE, _ROOT[:-1] + bytes([_ROOT[-1] ^ 1]))


def _changed_signatures(signer: Signer, line: str) -> Iterator[tuple[str, str, str]]:
    key_id = c2sp.key_id(signer.name, signer.kind, signer.public_key)
    signature = base64.b64decode(line.split(" ")[2])[4:]
    timed = signer.kind != c2sp.ED25519

    def other(data: bytes) -> str:
        return c2sp.line(signer.name, key_id, data)

    def flipped(position: int) -> str:
        data = bytearray(signature)
        data[position] ^= 1
        return other(bytes(data))

    start = 8 if timed else 0
    yield "signature-first-byte-flipped", "A bit of the signature's first byte is flipped.", flipped(start)
    yield (
        "signature-middle-byte-flipped",
        "A bit of the signature's middle byte is flipped.",
        flipped(len(signature) // 2),
    )
    yield "signature-last-byte-flipped", "A bit of the signature's last byte is flipped.", flipped(-1)
    yield (
        "signature-zero",
        "All bytes of the signature are zero.",
        other(signature[:start] + bytes(len(signature) - start)),
    )
    yield "signature-short", "A byte of the signature is missing.", other(signature[:-1])
    yield "signature-long", "A byte of the signature is too much.", other(signature + b"\x00")
    yield "signature-of-one-byte", "The signature is one byte.", other(b"\x00")
    yield (
        "signed-by-another-key",
        "The signature is another key's.",
        other(signature[:start] + STRANGER.raw(_TEXT.encode())),
    )
    if timed:
        yield "time-changed", "The time is another.", other(struct.pack(">Q", _TIME + 1) + signature[8:])
        yield "time-zero", "The time is 0, which was not signed.", other(bytes(8) + signature[8:])
        yield "time-missing", "The time is missing.", other(signature[8:])
        yield "time-alone", "There is a time and no signature.", other(signature[:8])
        late = 2**63
        message = (
            c2sp.cosignature_message(late, _TEXT)
            if signer.kind == c2sp.COSIGNATURE
            else c2sp.subtree_message(signer.name, late, ORIGIN, _SIZE, _ROOT)
        )
        yield "time-beyond-2-63", "The time is 2**63, and signed.", other(struct.pack(">Q", late) + signer.raw(message))
    else:
        yield "time-added", "A time precedes the signature.", other(bytes(8) + signature)
    if signer.kind == c2sp.MLDSA44:
        yield (
            "message-without-cosigner",
            "The text was signed, not the binary message.",
            other(signature[:8] + signer.raw(_TEXT.encode())),
        )
        elsewhere = c2sp.subtree_message("another.example", _TIME, ORIGIN, _SIZE, _ROOT)
        yield "cosigner-changed", "The message names another cosigner.", other(signature[:8] + signer.raw(elsewhere))
    if signer.kind == c2sp.COSIGNATURE:
        yield (
            "message-without-header",
            "The text was signed without the header and time lines.",
            other(signature[:8] + signer.raw(_TEXT.encode())),
        )


def vectors() -> Iterator[Vector]:
    for case, signer in SIGNERS.items():
        line = signer.line(_TEXT, timestamp=_TIME)
        timestamp = None if signer.kind == c2sp.ED25519 else _TIME

        def given(text: str, *lines: str, vkey: str = signer.vkey) -> JSONObject:
            return {"checkpoint": blob(c2sp.note(text, *lines)), "vkey": vkey}

        output = {"origin": ORIGIN, "size": _SIZE, "root": _ROOT.hex(), "extensions": [], "timestamp": timestamp}
        name = f"checkpoints/{case}"
        yield accepted(f"{name}/valid", "The key has signed the checkpoint.", given(_TEXT, line), output)
        with_stranger = given(_TEXT, STRANGER.line(_TEXT), line)
        yield accepted(f"{name}/beside-a-stranger", "A stranger has signed too.", with_stranger, output)
        extended = given(_TEXT + "extension\n", line)
        if signer.kind == c2sp.MLDSA44:
            about = "An extension line was added, which this type does not sign."
            more = output | {"extensions": ["extension"]}
            yield accepted(f"{name}/extension-added", about, extended, more)
        else:
            yield rejected(f"{name}/extension-added", "An extension line was added.", _INVALID, extended)
        for mutation, about, text in _changed_texts():
            yield rejected(f"{name}/{mutation}", about, _INVALID, given(text, line))
        for mutation, about, changed in _changed_signatures(signer, line):
            yield rejected(f"{name}/{mutation}", about, _INVALID, given(_TEXT, changed))
        absent = given(_TEXT, STRANGER.line(_TEXT))
        yield rejected(f"{name}/not-signed-by-the-key", "Only a stranger has signed.", _INVALID, absent)
    for mutation, about, text in _broken_bodies():
        malformed: JSONObject = {"checkpoint": blob(c2sp.note(text, LOG.line(text))), "vkey": LOG.vkey}
        yield rejected(f"checkpoints/log-ed25519/{mutation}", about, _MALFORMED, malformed)
    odd = "go.sum database tree"
    for case, text, output in (
        ("empty-tree", c2sp.body(ORIGIN, 0, bytes.fromhex(_EMPTY)), {"size": 0, "root": _EMPTY}),
        ("largest-tree", c2sp.body(ORIGIN, 2**63 - 1, _ROOT), {"size": 2**63 - 1, "root": _ROOT.hex()}),
        ("origin-of-255-bytes", c2sp.body("x" * 255, 1, _ROOT), {"origin": "x" * 255, "size": 1, "root": _ROOT.hex()}),
        ("origin-with-spaces", c2sp.body(odd, 1, _ROOT), {"origin": odd, "size": 1, "root": _ROOT.hex()}),
        (
            "extension-lines",
            c2sp.body(ORIGIN, 1, _ROOT, "a b", "\N{SNOWMAN}"),
            {"size": 1, "root": _ROOT.hex(), "extensions": ["a b", "\N{SNOWMAN}"]},
        ),
    ):
        whole = {"origin": ORIGIN, "extensions": [], "timestamp": None} | output
        signed: JSONObject = {"checkpoint": blob(c2sp.note(text, LOG.line(text))), "vkey": LOG.vkey}
        yield accepted(f"checkpoints/{case}/valid", "A checkpoint at an edge of the format.", signed, whole)


_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
