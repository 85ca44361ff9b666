"""Equivocation: two signed checkpoints that no single append-only log can have published, proved in one file.

Pure. The file is text and holds all that a judge needs beside the log's keys::

    tallystick-equivocation@v1
    prefix 6vU4nWmfD1Xz0Wj9mF0vY2cQp4d3o5k8l1a7s9e2h0M=
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=

    tallystick.example/acme
    3
    n0Yw4Wm...root that was signed for 3 leaves...

    — tallystick.example/acme Az3grlgt...

    tallystick.example/acme
    7
    CsUYapG...root that was signed for 7 leaves...

    — tallystick.example/acme opLqBQsR...

*What is proved.* For two checkpoints of one size, other roots are the whole proof: the header ends after its first
line. For sizes m < n the root of n alone fixes the root that its first m leaves have, by the collision resistance of
SHA-256. The file names that root (``prefix``) and shows by a consistency proof from it to the signed root of n that it
is the one: every hash of the proof is a node of the tree of n. If another root was signed for m, the log has signed two
histories.

*What is not.* That a log's consistency proof fails proves nothing, since anybody can write one that does. Two signed
checkpoints of different sizes prove nothing by themselves: it takes some hashes of the larger tree, which whoever has
its tiles can look up. Which of the two histories is the true one, and whether the operator or a thief of the keys
signed the other, no file says.

The checkpoints must be signed as the trust policy demands of a log, with each algorithm that it lists. The quorum of
witnesses is not asked for: it is a second history that witnesses would have refused.

Source: RFC 9162 sections 2.1.4.2 and 11.3; C2SP tlog-checkpoint v1.0.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import MalformedError, ProofError, RootMismatchError, StateError, TrustPolicyError
from ledger.merkle import HASH_BYTES, RootHash
from ledger.notes import MAX_NOTE_BYTES, decode_base64, encode_base64
from ledger.proofs import TreeHead, verify_consistency
from ledger.trust import TrustPolicy, VerifiedCheckpoint

__all__ = [
    "EQUIVOCATION_FORMAT",
    "Equivocation",
    "EquivocationFile",
    "PrefixEvidence",
    "parse_equivocation",
    "prove_equivocation",
    "verify_equivocation",
]

EQUIVOCATION_FORMAT: Final = "tallystick-equivocation@v1"
_PREFIX: Final = "prefix "
_MAX_HASHES: Final = 64
_MAX_BYTES: Final = 2 * MAX_NOTE_BYTES + 8_192
_SECTIONS: Final = 5
"""Header, and text and signatures of two checkpoints: a checkpoint's own text holds no empty line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixEvidence:
    """What the larger tree says about its own beginning.

    Attributes:
        root: The root of its first leaves, as many as the smaller checkpoint counts.
        path: Consistency proof from that root to the larger tree's.
    """

    root: RootHash
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationFile:
    """An accusation as it stands in a file; nothing of it has been judged.

    Attributes:
        smaller: The checkpoint of fewer leaves, whole; of two of one size, either.
        larger: The other.
        evidence: For different sizes.
    """

    smaller: bytes
    larger: bytes
    evidence: PrefixEvidence | None = None

    def encode(self) -> bytes:
        """Return the file's bytes; the inverse of `parse_equivocation`."""
        lines = [EQUIVOCATION_FORMAT]
        if self.evidence is not None:
            lines.append(_PREFIX + encode_base64(self.evidence.root))
            lines += map(encode_base64, self.evidence.path)
        header = "".join(line + "\n" for line in lines).encode()
        return b"\n".join((header, self.smaller, self.larger))


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation:
    """A proved equivocation. Made by `verify_equivocation` alone.

    Attributes:
        smaller: The signed checkpoint of fewer leaves.
        larger: The signed checkpoint of more, or as many.
        prefix: The root that the larger tree's first leaves have; for one size the larger's own.
    """

    smaller: VerifiedCheckpoint
    larger: VerifiedCheckpoint
    prefix: RootHash

    @property
    def origin(self) -> str:
        """The log whose keys signed both."""
        return self.smaller.checkpoint.origin


def _parse_hash(text: str) -> bytes:
    item = decode_base64(text)
    if len(item) != HASH_BYTES:
        raise MalformedError(f"a hash has {HASH_BYTES} bytes, not {len(item)}")
    return item


def _parse_header(header: bytes) -> PrefixEvidence | None:
    try:
        first, *lines = header.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("the header of an equivocation file is not ASCII") from error
    if first != EQUIVOCATION_FORMAT:
        raise MalformedError(f"an equivocation file begins with {EQUIVOCATION_FORMAT}")
    if not lines:
        return None
    if not lines[0].startswith(_PREFIX) or len(lines) > _MAX_HASHES:
        raise MalformedError("an equivocation file has one prefix line, and then hashes")
    root = RootHash(_parse_hash(lines[0].removeprefix(_PREFIX)))
    return PrefixEvidence(root=root, path=tuple(_parse_hash(line) for line in lines[1:]))


def parse_equivocation(data: bytes) -> EquivocationFile:
    """Read an equivocation file without judging it.

    Raises:
        MalformedError: Not such a file, or its checkpoints are none or stand in the wrong order.
    """
    if len(data) > _MAX_BYTES:
        raise MalformedError(f"an equivocation file has at most {_MAX_BYTES} bytes")
    sections = data.split(b"\n\n")
    if len(sections) != _SECTIONS:
        raise MalformedError("an equivocation file is a header and two checkpoints, parted by empty lines")
    header, *rest = sections
    smaller = rest[0] + b"\n\n" + rest[1] + b"\n"
    larger = rest[2] + b"\n\n" + rest[3]
    evidence = _parse_header(header)
    sizes = [parse_unverified_checkpoint(checkpoint).claim.size for checkpoint in (smaller, larger)]
    if sizes[0] > sizes[1] or (evidence is None) != (sizes[0] == sizes[1]):
        raise MalformedError("an equivocation file names the smaller tree first, and a prefix where the sizes differ")
    return EquivocationFile(smaller=smaller, larger=larger, evidence=evidence)


def verify_equivocation(accusation: EquivocationFile, policy: TrustPolicy) -> Equivocation:
    """Judge an accusation.

    Args:
        accusation: As parsed.
        policy: The log's keys, from outside of the file. Its quorum is not asked for.

    Returns:
        The equivocation, which is then proved.

    Raises:
        MalformedError: A checkpoint is none.
        SignatureError: A signature of a listed key is wrong or cannot be checked.
        TrustPolicyError: The log's keys have not signed both as the policy demands, or they are of two logs.
        ProofError: The evidence has a wrong form, or the two checkpoints do not contradict each other.
        RootMismatchError: The evidence does not lead to the signed root of the larger tree.
    """
    keys_alone = replace(policy, quorum=None)
    smaller, larger = keys_alone.verify(accusation.smaller), keys_alone.verify(accusation.larger)
    if smaller.checkpoint.origin != larger.checkpoint.origin:
        raise TrustPolicyError("the two checkpoints are of two logs")
    prefix = _prefix_of(larger.head, smaller.head.size, accusation.evidence)
    if prefix == smaller.head.root:
        raise ProofError("the two checkpoints agree: nothing is proved against this log")
    return Equivocation(smaller=smaller, larger=larger, prefix=prefix)


def _prefix_of(larger: TreeHead, size: int, evidence: PrefixEvidence | None) -> RootHash:
    """Return the root that the first ``size`` leaves of the larger tree have, as the evidence shows."""
    if larger.size == size:
        return larger.root
    # Of nothing, there is one root only; a checkpoint that names another for it is malformed.
    if evidence is None or size == 0:
        raise ProofError("there is no evidence of how the larger tree begins")
    # INVARIANT: a failing proof accuses nobody. Only a proof that holds, from another root, does.
    verify_consistency(TreeHead(size=size, root=evidence.root), larger, evidence.path)
    return evidence.root


def prove_equivocation(
    one: bytes, other: bytes, policy: TrustPolicy, evidence_of: Callable[[int, int], PrefixEvidence] | None
) -> EquivocationFile:
    """Return the file that proves two checkpoints of one log to contradict each other.

    Args:
        one: A signed checkpoint.
        other: Another.
        policy: The log's keys.
        evidence_of: Returns, for two sizes, how the tree of the larger one begins; None if no tree is at hand.

    Raises:
        StateError: The sizes differ and the larger one's tree is not at hand: nothing can be proved without it.
        VerificationError: The checkpoints agree, or are not signed by the log's keys; see `verify_equivocation`.
        MalformedError: One is no checkpoint.
    """
    smaller, larger = sorted((one, other), key=lambda item: parse_unverified_checkpoint(item).claim.size)
    sizes = [parse_unverified_checkpoint(item).claim.size for item in (smaller, larger)]
    evidence = None
    if sizes[0] != sizes[1]:
        if evidence_of is None or sizes[0] == 0:
            raise StateError(f"nothing is proved without the tree of {sizes[1]} leaves")
        evidence = evidence_of(sizes[0], sizes[1])
    accusation = EquivocationFile(smaller=smaller, larger=larger, evidence=evidence)
    try:
        verify_equivocation(accusation, policy)
    except RootMismatchError as error:
        raise StateError(f"the tree at hand is not that of the checkpoint of {sizes[1]} leaves") from error
    return accusation
