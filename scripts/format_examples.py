"""The byte examples of docs/formats.md, made by the code itself from fixed seeds.

``python -m scripts.format_examples`` writes them into the document between its ``example`` markers; a test fails if the
document says anything else than the code does.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import nacl.signing
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from enforcement.chaining import GENESIS, Chain, Link
from ledger.bodies import Heartbeat
from ledger.checkpoints import Checkpoint, mldsa44_message
from ledger.commitments import commitment_digest, fingerprint, pseudonym, pseudonym_key_id
from ledger.merkle import CompactRange, hash_leaf
from ledger.notes import NoteSignature, SignatureType, SignedNote, VerifierKey
from ledger.proof_files import ProofFile
from ledger.records import Record, encode_record, sign_record, signing_bytes
from ledger.tiles import BUNDLE_LEVEL, TileCoordinate, pack_bundle

__all__ = ["DOCUMENT", "EXAMPLES", "with_examples"]

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
_ORIGIN: Final = "tallystick.example/acme"
_ENTRIES: Final = (b'{"a":1}', b'{"b":2}', b'{"c":3}')
_WIDTH: Final = 110
_MARKED: Final = re.compile(r"(<!-- example: (?P<name>[a-z0-9-]+) -->\n```text\n).*?(```\n)", re.DOTALL)


def _signing_key() -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(bytes(range(32)))


def _keys() -> tuple[VerifierKey, VerifierKey]:
    mldsa = MLDSA44PrivateKey.from_seed_bytes(bytes(range(32, 64))).public_key().public_bytes_raw()
    return (
        VerifierKey(_ORIGIN, SignatureType.ED25519, bytes(_signing_key().verify_key)),
        VerifierKey(_ORIGIN, SignatureType.MLDSA44_COSIGNATURE, mldsa),
    )


def _checkpoint() -> Checkpoint:
    tree = CompactRange()
    tree.extend(hash_leaf(entry) for entry in _ENTRIES)
    return Checkpoint(origin=_ORIGIN, size=tree.size, root=tree.root())


def _signed() -> bytes:
    claim, key = _checkpoint(), _keys()[0]
    signature = bytes(_signing_key().sign(claim.body().encode()).signature)
    return SignedNote(claim.body(), (NoteSignature(_ORIGIN, key.key_id, signature),)).encode()


def _record() -> Record:
    unsigned = Record(
        schema_version=1,
        record_id="019a9b8e-8500-739c-a28a-faeaff9c2d10",
        log_id="acme",
        tenant="acme",
        environment="production",
        enforcer_id="gateway-1",
        epoch="5f0c7a1e9b3d4c6f8a2b1d0e3c5f7a90",
        seq=1,
        running_count=0,
        time_ms=1763546400000,
        body=Heartbeat(kind="start", version="0.1.0", spool_depth=0),
        signature="A" * 86 + "==",
    )
    return sign_record(unsigned, _signing_key())


def _hex(data: bytes) -> str:
    return "\n".join(textwrap.wrap(data.hex(" "), 32 * 3))


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, break_on_hyphens=False))


def _record_example() -> str:
    return _wrapped(encode_record(_record()).decode())


def _signing_example() -> str:
    label, _, entry = signing_bytes(_record()).partition(b"\n")
    return f"{label.decode()} LF\n{_wrapped(entry.decode())}"


def _commitment_example() -> str:
    salt = bytes(range(16))
    digest = commitment_digest("message", salt, b'{"jsonrpc":"2.0"}')
    return f'field    message\nsalt     {salt.hex()}\npayload  {{"jsonrpc":"2.0"}}\ndigest   {digest.hex()}'


def _pseudonym_example() -> str:
    key = bytes(range(32))
    lines = (
        ("key", key.hex()),
        ("key id", pseudonym_key_id(key)),
        ("user dana@example.com", pseudonym(key, "user", "dana@example.com")),
        ("content of SHA-256 00…00", fingerprint(key, bytes(32))),
    )
    return "\n".join(f"{name:26}{value}" for name, value in lines)


def _vkey_example() -> str:
    ed25519, mldsa = (key.encode() for key in _keys())
    return f"{ed25519}\n{mldsa[:80]}… ({len(mldsa)} characters)"


def _checkpoint_example() -> str:
    mldsa = _keys()[1]
    return f"{_signed().decode()}— {_ORIGIN} base64({mldsa.key_id.hex()} || u64 time || 2,420 bytes), which is random"


def _message_example() -> str:
    return _hex(mldsa44_message(_ORIGIN, 1763546400, _checkpoint()))


def _bundle_example() -> str:
    return _hex(pack_bundle(_ENTRIES))


def _paths_example() -> str:
    coordinates = (
        TileCoordinate(0, 0, 3),
        TileCoordinate(0, 1234067),
        TileCoordinate(2, 0, 1),
        TileCoordinate(BUNDLE_LEVEL, 0, 3),
    )
    return "\n".join(coordinate.path for coordinate in coordinates)


def _proof_example() -> str:
    first, third = hash_leaf(_ENTRIES[0]), hash_leaf(_ENTRIES[2])
    return ProofFile(index=1, path=(first, third), checkpoint=_signed()).encode().decode().rstrip("\n")


def _spool_example() -> str:
    record, spool_key = _record(), bytes(range(32))
    link = Chain(spool_key).link(
        Link(
            previous=GENESIS,
            epoch=record.epoch,
            seq=record.seq,
            counted=record.running_count,
            record_id=record.record_id,
            entry=encode_record(record),
            sealed=b"sealed",
        )
    )
    lines = (
        ("spool key", spool_key.hex()),
        ("record", "the one at the beginning of this page"),
        ("openings", '"sealed"'),
        ("link", link.hex()),
    )
    return "\n".join(f"{name:11}{value}" for name, value in lines)


EXAMPLES: Final[Mapping[str, Callable[[], str]]] = {
    "record": _record_example,
    "signing-bytes": _signing_example,
    "commitment": _commitment_example,
    "pseudonyms": _pseudonym_example,
    "verifier-keys": _vkey_example,
    "checkpoint": _checkpoint_example,
    "ml-dsa-message": _message_example,
    "tile-paths": _paths_example,
    "entry-bundle": _bundle_example,
    "proof-file": _proof_example,
    "spool-link": _spool_example,
}
"""What makes each example, by its name in the document."""


def with_examples(document: str) -> str:
    """Return the document with every marked example as the code makes it.

    Raises:
        KeyError: The document names an example that there is not.
    """
    return _MARKED.sub(lambda match: f"{match[1]}{EXAMPLES[match['name']]()}\n{match[3]}", document)


def main() -> int:
    """Write the examples into the document."""
    DOCUMENT.write_text(with_examples(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
