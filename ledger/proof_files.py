"""`.tlog-proof` files: one leaf's inclusion proof with the checkpoint it leads to (C2SP tlog-proof).

Pure. A proof file::

    c2sp.org/tlog-proof@v1
    index 2
    2mzDPcZcDx7ZV2lUS1EOwmLeQmGt6hwJ8P7vG1wQwhg=
    PkvE0mCRyP7aUaSOuO0hZ0rY0gCsMh3M5u8i2B0h4Ps=

    tallystick.example/acme
    ...the checkpoint with all its signatures...

The optional ``extra`` line is not authenticated by anything; we neither write nor use it.

Source: C2SP tlog-proof (untagged, snapshot of 2026-07-22).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import MalformedError
from ledger.merkle import HASH_BYTES, hash_leaf
from ledger.notes import decode_base64, encode_base64
from ledger.proofs import verify_inclusion
from ledger.trust import TrustPolicy, VerifiedCheckpoint

__all__ = ["MAX_EXTRA_BYTES", "ProofFile", "parse_proof_file", "verify_entry"]

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MAX_HASHES: Final = 63

MAX_EXTRA_BYTES: Final = 48 * 1024
"""Longest ``extra`` accepted: the public Go parser stops at lines of 64 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFile:
    """A parsed proof file; nothing in it has been checked.

    Attributes:
        index: Zero-based leaf index.
        path: Sibling hashes, leaf sibling first, 32 bytes each.
        checkpoint: The signed checkpoint's bytes.
        extra: Unauthenticated bytes, or None.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Return the file's bytes; the inverse of `parse_proof_file`."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(item) for item in self.path]
        return "".join(line + "\n" for line in lines).encode() + b"\n" + self.checkpoint


def parse_proof_file(data: bytes) -> ProofFile:
    """Read a proof file.

    Raises:
        MalformedError: Not a proof file of version 1, or its checkpoint is not one.
    """
    head, separator, checkpoint = data.partition(b"\n\n")
    if not separator:
        raise MalformedError("a proof file needs a proof, an empty line and a checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("a proof file's head is not ASCII") from error
    if lines[0] != _HEADER:
        raise MalformedError(f"a proof file starts with {_HEADER}")
    rest = lines[1:]
    extra = None
    if rest and rest[0].startswith("extra "):
        extra = decode_base64(rest.pop(0).removeprefix("extra "))
        if len(extra) > MAX_EXTRA_BYTES:
            raise MalformedError(f"the extra data of a proof file has at most {MAX_EXTRA_BYTES} bytes")
    match = _INDEX.fullmatch(rest[0]) if rest else None
    if match is None:
        raise MalformedError("a proof file has no index line")
    path = tuple(decode_base64(line) for line in rest[1:])
    if len(path) > _MAX_HASHES or any(len(item) != HASH_BYTES for item in path):
        raise MalformedError(f"a proof has at most {_MAX_HASHES} hashes of {HASH_BYTES} bytes")
    parse_unverified_checkpoint(checkpoint)
    return ProofFile(index=int(match[1]), path=path, checkpoint=checkpoint, extra=extra)


def verify_entry(entry: bytes, proof: ProofFile, policy: TrustPolicy) -> VerifiedCheckpoint:
    """Check that an entry stands in the log, by its proof file and a trust policy.

    Args:
        entry: The entry's exact bytes.
        proof: The parsed proof file.
        policy: From outside the thing being verified.

    Returns:
        The checkpoint that the proof leads to.

    Raises:
        MalformedError: The checkpoint is not one.
        VerificationError: A signature, the policy or the inclusion proof fails.
    """
    verified = policy.verify(proof.checkpoint)
    verify_inclusion(hash_leaf(entry), proof.index, verified.head, proof.path)
    return verified
