"""What a log and a witness say to each other: the add-checkpoint request, its answer, and cosigned checkpoints.

Pure. A request is an old size, a consistency proof, an empty line and a checkpoint; the answer is signature lines::

    old 255
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=

    tallystick.example/acme
    256
    6vU4nWmfD1Xz0Wj9mF0vY2cQp4d3o5k8l1a7s9e2h0M=

    — tallystick.example/acme Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDe...

Who is asked, when, and what follows from the answers is in `witnessing`; HTTP is in `witnesses`.

Source: C2SP tlog-witness v1.0.0, tlog-cosignature v1.1.0-rc.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.checkpoints import MAX_TREE_SIZE, UnverifiedCheckpoint, signature_timestamp, verify_signature
from ledger.errors import MalformedError, SignatureInvalidError
from ledger.merkle import HASH_BYTES
from ledger.notes import (
    MAX_NOTE_BYTES,
    NoteSignature,
    SignedNote,
    VerifierKey,
    decode_base64,
    encode_base64,
    parse_note,
)

__all__ = [
    "MAX_PROOF_HASHES",
    "MAX_REQUEST_BYTES",
    "AddCheckpoint",
    "parse_add_checkpoint",
    "parse_cosignatures",
    "parse_size",
    "verify_cosignature",
    "with_cosignatures",
]

MAX_PROOF_HASHES: Final = 63
"""Lines of a consistency proof that a request may hold."""

MAX_REQUEST_BYTES: Final = 65_536
"""What a witness reads of a request: 63 hashes, and a checkpoint with sixteen signatures, most of them post-quantum."""

_OLD: Final = re.compile(rb"old (0|[1-9][0-9]{0,18})")
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request to a witness; nothing in it has been verified.

    Attributes:
        old_size: Tree size of the checkpoint that the witness cosigned last, as far as the log knows.
        proof: Consistency proof from there; empty for equal sizes and from 0.
        checkpoint: The checkpoint to cosign, with the log's signatures.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """Return the request's body; the inverse of `parse_add_checkpoint`.

        Raises:
            MalformedError: More hashes than a request may hold.
        """
        if len(self.proof) > MAX_PROOF_HASHES:
            raise MalformedError(f"a request to a witness holds at most {MAX_PROOF_HASHES} hashes")
        lines = [f"old {self.old_size}", *(encode_base64(item) for item in self.proof), ""]
        return "".join(line + "\n" for line in lines).encode() + self.checkpoint


def _tree_size(digits: bytes) -> int:
    if (size := int(digits)) > MAX_TREE_SIZE:
        raise MalformedError("not a tree size")
    return size


def _proof_hash(line: bytes) -> bytes:
    try:
        item = decode_base64(line.decode("ascii"))
    except UnicodeDecodeError as error:
        raise MalformedError("a proof line is not base64") from error
    if len(item) != HASH_BYTES:
        raise MalformedError(f"a proof line holds {len(item)} bytes, not {HASH_BYTES}")
    return item


def parse_add_checkpoint(data: bytes) -> AddCheckpoint:
    """Read a request's body.

    Raises:
        MalformedError: No ``old`` line, a proof line that is no hash, too many of them, or no checkpoint behind them.

    Source: C2SP tlog-witness v1.0.0, "add-checkpoint".
    """
    header, separator, checkpoint = data.partition(b"\n\n")
    if not separator:
        raise MalformedError("a request to a witness has an empty line before the checkpoint")
    first, *proof = header.split(b"\n")
    old = _OLD.fullmatch(first)
    if old is None:
        raise MalformedError("a request to a witness begins with: old <size>")
    if len(proof) > MAX_PROOF_HASHES:
        raise MalformedError(f"a request to a witness holds at most {MAX_PROOF_HASHES} hashes")
    return AddCheckpoint(
        old_size=_tree_size(old[1]), proof=tuple(_proof_hash(line) for line in proof), checkpoint=checkpoint
    )


def parse_size(data: bytes) -> int:
    """Read the answer that says which tree size a witness has cosigned (``text/x.tlog.size``).

    Raises:
        MalformedError: Not a decimal size and a line feed.
    """
    found = _SIZE.fullmatch(data)
    if found is None:
        raise MalformedError("not a tree size and a line feed")
    return _tree_size(found[1])


def parse_cosignatures(data: bytes, checkpoint: UnverifiedCheckpoint) -> tuple[NoteSignature, ...]:
    """Read a witness's answer: signature lines for a checkpoint, of which none has been verified.

    Raises:
        MalformedError: Not signature lines and nothing else.

    Source: C2SP tlog-witness v1.0.0: the answer, put behind the checkpoint, is a note.
    """
    whole = checkpoint.note.encode() + data
    if not data or len(whole) > MAX_NOTE_BYTES:
        raise MalformedError("an answer of a witness holds one signature line at least, and not endlessly many")
    note = parse_note(whole)
    # An answer with an empty line in it would make text of what was signed, or of signatures.
    if note.text != checkpoint.note.text:
        raise MalformedError("an answer of a witness holds more than signature lines")
    return note.signatures[len(checkpoint.note.signatures) :]


def verify_cosignature(key: VerifierKey, checkpoint: UnverifiedCheckpoint, line: NoteSignature) -> int:
    """Check a cosignature, and return its time in POSIX seconds.

    Args:
        key: The witness's.
        checkpoint: What was cosigned.
        line: The signature line.

    Raises:
        SignatureInvalidError: It is wrong, of another key, or carries no time.
        SignatureUncheckedError: The key is of a type that cannot be checked here.

    Source: C2SP tlog-cosignature v1.1.0-rc.1: the timestamp of a witness must not be zero.
    """
    verify_signature(key, checkpoint, line)
    timestamp = signature_timestamp(key, line)
    if not timestamp:
        raise SignatureInvalidError(f"the cosignature of {key.name} carries no time")
    return timestamp


def with_cosignatures(checkpoint: UnverifiedCheckpoint, lines: Iterable[NoteSignature]) -> bytes:
    """Return a checkpoint with signature lines added behind its own."""
    own: Sequence[NoteSignature] = checkpoint.note.signatures
    added = [line for line in lines if line not in own]
    return SignedNote(checkpoint.note.text, (*own, *added)).encode()
