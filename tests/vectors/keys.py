"""The keys of the vectors, from fixed seeds, and the store of their ML-DSA signatures.

ML-DSA signing is randomised, so that a signature, once made, is kept in ``mldsa44-signatures.json`` under the SHA-256
of public key and message. With the store at hand, generating is deterministic; without an entry, one is made and added.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from tests.conformance.reference.c2sp import COSIGNATURE, Ed25519Signer, MLDSA44Signer

ORIGIN = "tallystick.example/vectors"
STORE = Path(__file__).parent / "mldsa44-signatures.json"


class SignatureStore:
    """Signatures by the hash of what they sign; only those that were asked for are written back.

    Attributes:
        used: What was asked for, in base64.
        signed: The public key and message behind each of these.
        made: How many were not there and had to be made.
    """

    def __init__(self) -> None:
        self._kept: dict[str, str] = json.loads(STORE.read_text(encoding="ascii")) if STORE.exists() else {}
        self.used: dict[str, str] = {}
        self.signed: dict[str, tuple[bytes, bytes]] = {}
        self.made = 0

    def signature(self, public_key: bytes, message: bytes, make: Callable[[bytes], bytes]) -> bytes:
        name = hashlib.sha256(public_key + message).hexdigest()
        if name not in self._kept:
            self._kept[name] = base64.b64encode(make(message)).decode()
            self.made += 1
        self.used[name] = self._kept[name]
        self.signed[name] = (public_key, message)
        return base64.b64decode(self._kept[name])

    def encode(self) -> str:
        return json.dumps(self.used, indent=2, sort_keys=True) + "\n"


SIGNATURES = SignatureStore()


class StoredMLDSA44Signer(MLDSA44Signer):
    """Signs each message once and for all."""

    def raw(self, message: bytes) -> bytes:
        return SIGNATURES.signature(self.public_key, message, super().raw)


def _seed(label: str) -> bytes:
    return hashlib.sha256(b"tallystick test vectors\n" + label.encode()).digest()


LOG = Ed25519Signer(ORIGIN, _seed("log ed25519"))
LOG_PQ = StoredMLDSA44Signer(ORIGIN, _seed("log ml-dsa-44"))
NEXT_LOG = Ed25519Signer(ORIGIN, _seed("next log ed25519"))
STRANGER = Ed25519Signer("stranger.example", _seed("stranger"))
WITNESSES = [
    Ed25519Signer(f"witness.example/w{number}", _seed(f"witness {number}"), COSIGNATURE) for number in range(3)
]
WITNESS_PQ = StoredMLDSA44Signer("witness.example/pq", _seed("witness ml-dsa-44"))
ENFORCER = Ed25519Signer("enforcer", _seed("enforcer"))
PACK = Ed25519Signer("pack", _seed("pack ed25519"))
PACK_PQ = StoredMLDSA44Signer("pack", _seed("pack ml-dsa-44"))
