"""What a pack needs of the log before its range, when the range does not start at leaf 0.

Pure. The tree before the range is carried as its compact range. Some records before it bear on what is in it, and come
along as *prior records*, each with its inclusion proof under the start checkpoint:

* every key record, so that a verifier can feed its keyring and check signatures;
* every bundle record, so that a bundle activated long ago is known to have been;
* the last record of each enforcer and epoch, so that sequence numbers can be counted on from there.

Each prior record is proved to stand where it is said to stand. That *all* of them were taken along is not proved: a
key's retirement that the maker of the pack leaves out cannot be noticed from the pack, nor can the last record of an
enforcer that was silent ever since, if its introduction is left out as well. A verifier says so, and completeness is
said of the streams that came along. Leaving out a bundle record can only make a test fail.

``population/start-range.json`` (RFC 8785; line breaks are ours)::

    {"format":"tallystick.start-range/1","hashes":["<64 hex digits>",…],
     "prior":[{"entry":"<base64>","leaf":0,"path":["<64 hex digits>",…]},…],"size":300}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from ledger.bodies import BundleEvent, KeyEvent
from ledger.canonical import canonical_bytes, parse_canonical
from ledger.errors import MalformedError, RootMismatchError
from ledger.merkle import HASH_BYTES, CompactRange, hash_leaf
from ledger.notes import decode_base64, encode_base64
from ledger.proofs import TreeHead, verify_inclusion
from ledger.prover import Prover
from ledger.records import Record, decode_entry

__all__ = ["PriorRecord", "StartRange", "collect_start_range", "encode_start_range", "parse_start_range"]

_FORMAT: Final = "tallystick.start-range/1"
_MAX_PRIOR: Final = 1_000_000
_Hash = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * HASH_BYTES}}}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


@dataclass(frozen=True, slots=True)
class PriorRecord:
    """A record before the range.

    Attributes:
        leaf: Its leaf index.
        entry: Its exact bytes.
        path: Inclusion proof in the tree of the start checkpoint, leaf sibling first.
    """

    leaf: int
    entry: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StartRange:
    """The log before the range.

    Attributes:
        size: Tree size of the start checkpoint: the first leaf of the range.
        hashes: Roots of the perfect subtrees that cover it, largest first.
        prior: Prior records in leaf order.
    """

    size: int
    hashes: tuple[bytes, ...]
    prior: tuple[PriorRecord, ...]

    def tree(self) -> CompactRange:
        """Return the compact range that the entries of the pack continue.

        Raises:
            MalformedError: The hashes do not fit the size.
        """
        return CompactRange(self.size, self.hashes)

    def verify(self, head: TreeHead) -> None:
        """Check everything here against a start checkpoint's head, which is taken as true.

        Raises:
            MalformedError: The range has another size than the checkpoint.
            RootMismatchError: The hashes or a proof lead to another root.
            ProofError: A proof has the wrong form.
        """
        if head.size != self.size:
            raise MalformedError(f"the start range has {self.size} leaves, its checkpoint {head.size}")
        calculated = self.tree().root()
        if calculated != head.root:
            raise RootMismatchError("the start range is not the tree", expected=head.root, calculated=calculated)
        for prior in self.prior:
            verify_inclusion(hash_leaf(prior.entry), prior.leaf, head, prior.path)

    def records(self) -> Iterator[tuple[int, Record]]:
        """Yield the prior records with their leaves.

        Raises:
            MalformedError: One of them is not a record.
        """
        for prior in self.prior:
            yield prior.leaf, decode_entry(prior.entry)


class _Prior(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    leaf: _Count
    entry: str
    path: Annotated[tuple[_Hash, ...], msgspec.Meta(max_length=63)]


class _StartRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["tallystick.start-range/1"]
    size: _Count
    hashes: Annotated[tuple[_Hash, ...], msgspec.Meta(max_length=63)]
    prior: Annotated[tuple[_Prior, ...], msgspec.Meta(max_length=_MAX_PRIOR)]


def encode_start_range(start: StartRange) -> bytes:
    """Return the file's bytes; the inverse of `parse_start_range`."""
    prior = [
        {"leaf": one.leaf, "entry": encode_base64(one.entry), "path": [item.hex() for item in one.path]}
        for one in start.prior
    ]
    hashes = [item.hex() for item in start.hashes]
    return canonical_bytes({"format": _FORMAT, "size": start.size, "hashes": hashes, "prior": prior})


def parse_start_range(data: bytes) -> StartRange:
    """Read the file; nothing in it has been checked.

    Raises:
        MalformedError: Not a start range in canonical form, or its prior records are not in leaf order.
    """
    try:
        members = msgspec.convert(parse_canonical(data), _StartRange)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not a start range: {error}") from error
    leaves = [one.leaf for one in members.prior]
    if any(one >= other for one, other in zip(leaves, [*leaves[1:], members.size], strict=True)):
        raise MalformedError("the prior records are not in leaf order, or stand in the range")
    return StartRange(
        members.size,
        tuple(map(bytes.fromhex, members.hashes)),
        tuple(
            PriorRecord(one.leaf, decode_base64(one.entry), tuple(map(bytes.fromhex, one.path)))
            for one in members.prior
        ),
    )


def _prior_leaves(entries: Iterable[bytes]) -> list[int]:
    wanted: set[int] = set()
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for leaf, entry in enumerate(entries):
        record = decode_entry(entry)
        if isinstance(record.body, KeyEvent | BundleEvent):
            wanted.add(leaf)
        stream = (record.enforcer_id, record.epoch)
        last[stream] = max(last.get(stream, (0, 0)), (record.seq, leaf))
    return sorted(wanted.union(leaf for _, leaf in last.values()))


def collect_start_range(prover: Prover, size: int) -> StartRange:
    """Read what a pack needs of the log before leaf ``size``.

    Args:
        prover: Reads the published log.
        size: Tree size of an earlier checkpoint.

    Raises:
        NotFoundError: A tile or bundle is missing.
        MalformedError: A tile, bundle or entry is damaged.
    """
    leaves = _prior_leaves(prover.entries(0, size, size))
    prior = tuple(PriorRecord(leaf, prover.entry(leaf, size), prover.inclusion(leaf, size)) for leaf in leaves)
    return StartRange(size, prover.compact_range(size).hashes, prior)
