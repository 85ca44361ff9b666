"""The C2SP formats written a second time, from the specifications and wire-formats.md, sharing no code with `ledger`.

Signatures are made by `cryptography` (OpenSSL), for Ed25519 too; `ledger` checks them with libsodium and PQClean.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

ED25519 = 0x01
ECDSA = 0x02
COSIGNATURE = 0x04
MLDSA44 = 0x06


def b64(data: bytes) -> str:
    return base64.standard_b64encode(data).decode()


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\x0a" + bytes([kind]) + public_key).digest()[:4]


def vkey(name: str, kind: int, public_key: bytes) -> str:
    return "+".join([name, key_id(name, kind, public_key).hex(), b64(bytes([kind]) + public_key)])


def body(origin: str, size: int, root: bytes, *extensions: str) -> str:
    return "\n".join([origin, str(size), b64(root), *extensions, ""])


def note(text: str, *lines: str) -> bytes:
    return (text + "\n" + "".join(lines)).encode()


def line(name: str, identifier: bytes, signature: bytes) -> str:
    return "\N{EM DASH} " + name + " " + b64(identifier + signature) + "\n"


def cosignature_message(timestamp: int, text: str) -> bytes:
    return b"cosignature/v1\n" + b"time %d\n" % timestamp + text.encode()


def subtree_message(cosigner: str, timestamp: int, origin: str, end: int, root: bytes) -> bytes:
    """The TLS presentation of ``cosigned_message`` with start = 0."""
    name, log = cosigner.encode(), origin.encode()
    return struct.pack(
        f">12sB{len(name)}sQB{len(log)}sQQ32s",
        b"subtree/v1\n\0",
        len(name),
        name,
        timestamp,
        len(log),
        log,
        0,
        end,
        root,
    )


def tile_path(level: int | str, number: int, width: int = 256) -> str:
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join(["x" + group for group in groups[:-1]] + [groups[-1]])
    return f"tile/{level}/{name}" + ("" if width == 256 else f".p/{width}")


@dataclass(frozen=True)
class Ed25519Signer:
    """A log key (0x01) or, with ``kind`` 0x04, a witness key."""

    name: str
    seed: bytes
    kind: int = ED25519

    @property
    def public_key(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        return vkey(self.name, self.kind, self.public_key)

    def raw(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)

    def line(self, text: str, *, timestamp: int = 0) -> str:
        if self.kind == COSIGNATURE:
            blob = struct.pack(">Q", timestamp) + self.raw(cosignature_message(timestamp, text))
        else:
            blob = self.raw(text.encode())
        return line(self.name, key_id(self.name, self.kind, self.public_key), blob)


class MLDSA44Signer:
    """A log or witness key of type 0x06. Signing is randomised: equal calls give different lines."""

    kind = MLDSA44

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        self._private = MLDSA44PrivateKey.from_seed_bytes(seed)
        self.public_key = self._private.public_key().public_bytes_raw()
        self.vkey = vkey(name, MLDSA44, self.public_key)

    def raw(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def line(self, text: str, *, timestamp: int = 0) -> str:
        origin, size, root = text.split("\n")[:3]
        message = subtree_message(self.name, timestamp, origin, int(size), base64.b64decode(root))
        blob = struct.pack(">Q", timestamp) + self.raw(message)
        return line(self.name, key_id(self.name, MLDSA44, self.public_key), blob)
