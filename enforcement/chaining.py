"""The chain of the spool: each record that waits authenticates the one before it, and two marks say where it is.

A link is a MAC over the link before and everything that is kept of the record, under a key made of the spool key. So
who can write the state file but does not have that key can neither change a record that waits, nor take one away, nor
put one in or elsewhere, without it being seen when the record's turn comes. The *head* mark names the last link that
was given, the *tail* mark the last one whose record has left the queue; both are authenticated, so that the two ends
cannot be cut off either.

What it cannot show: that the whole file was replaced by an older copy of itself. The ledger knows the numbers that were
given since, and then a new epoch begins (`enforcement.drainer`).

Pure. What is done about a break is in `enforcement.spool`; the bytes are in docs/formats.md.

Source: RFC 2104 (HMAC), with SHA-256; MessagePack.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

__all__ = ["GENESIS", "Chain", "End", "Link", "Mark", "Row"]

GENESIS: Final = bytes(32)
"""Stands for the link before the first one of an epoch."""

_KEY: Final = b"tallystick/spool/chain/v1"
_MAC_BYTES: Final = 32
_MARK: Final = msgspec.msgpack.Decoder(tuple[str, str, int, int, bytes])
_ENCODER: Final = msgspec.msgpack.Encoder()

End: TypeAlias = Literal["head", "tail"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the chain.

    Attributes:
        epoch: The epoch, 32 hexadecimal digits.
        seq: The number of the record at this place; 0 before the first one.
        counted: Decisions of the epoch up to here.
        link: The record's link, 32 bytes; `GENESIS` before the first one.
    """

    epoch: str
    seq: int
    counted: int
    link: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a link stands for: a record as it is kept.

    Attributes:
        previous: The link before it.
        epoch: Its epoch.
        seq: Its number.
        counted: Decisions of the epoch up to and with it.
        record_id: Its id.
        entry: Its entry bytes.
        sealed: What opens its commitments, encrypted.
    """

    previous: bytes
    epoch: str
    seq: int
    counted: int
    record_id: str
    entry: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it was read from the queue: at a position, with the link that it was given."""

    position: int
    content: Link
    link: bytes

    def mark(self) -> Mark:
        """Return the place of the record."""
        return Mark(self.content.epoch, self.content.seq, self.content.counted, self.link)

    def follows(self, before: Mark) -> bool:
        """Whether the record is the next one after ``before``."""
        return self.content.previous == before.link


class Chain:
    """Makes and checks links and marks, under one spool key."""

    def __init__(self, spool_key: bytes) -> None:
        """Take the spool key, 32 bytes."""
        self._key = hmac.digest(spool_key, _KEY, "sha256")

    def link(self, content: Link) -> bytes:
        """Return the link of a record, 32 bytes."""
        return self._mac(_encode("link", content))

    def void(self, content: Link) -> bytes:
        """Return what stands in the place of the link of a record that was found altered: no record verifies under it.

        The next record is chained to it, so that this one is found altered again in its turn and declared lost.
        """
        return self._mac(_encode("void", content))

    def is_intact(self, row: Row) -> bool:
        """Whether a record is as it was when it was given its link."""
        return hmac.compare_digest(self.link(row.content), row.link)

    def seal(self, end: End, mark: Mark) -> bytes:
        """Return the mark of one end of the chain, authenticated."""
        plain = _ENCODER.encode((end, mark.epoch, mark.seq, mark.counted, mark.link))
        return self._mac(plain) + plain

    def open(self, end: End, sealed: object) -> Mark | None:
        """Return the mark of one end, or None if this is none that was sealed under this key for this end."""
        if not isinstance(sealed, bytes) or not hmac.compare_digest(
            self._mac(sealed[_MAC_BYTES:]), sealed[:_MAC_BYTES]
        ):
            return None
        named, epoch, seq, counted, link = _MARK.decode(sealed[_MAC_BYTES:])
        return Mark(epoch, seq, counted, link) if named == end else None

    def _mac(self, plain: bytes) -> bytes:
        return hmac.digest(self._key, plain, "sha256")


def _encode(kind: str, content: Link) -> bytes:
    return _ENCODER.encode(
        (
            kind,
            content.previous,
            content.epoch,
            content.seq,
            content.counted,
            content.record_id,
            content.entry,
            content.sealed,
        )
    )
