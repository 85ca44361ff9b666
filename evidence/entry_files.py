"""The file of a pack that holds every entry of its range: one entry a line, compressed.

Pure but for the file that `EntryFileWriter` is given. An entry is canonical JSON and holds no line feed, so that a line
is an entry and nothing has to be unpacked but gzip.

The gzip header is ten constant bytes: no name, no time, no flags. There is one member and nothing behind it. The reader
bounds what it expands by the number of entries that it was told to expect and by the length of an entry; it never holds
more than a few of them.

Which compressed bytes a text gives depends on the compression library of the machine; two machines with the same one
make the same file, and any reader gets the same entries.

Source: RFC 1952; RFC 1951.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from ledger.errors import MalformedError
from ledger.tiles import MAX_ENTRY_BYTES

__all__ = ["EntryFileWriter", "read_entries"]

_HEADER: Final = bytes.fromhex("1f8b08000000000000ff")
_TRAILER_BYTES: Final = 8
_LEVEL: Final = 6
_CHUNK_BYTES: Final = 1 << 16


class EntryFileWriter:
    """Writes entries; call `close` after the last one. One task owns it."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to ``file`` from its present position on."""
        self._file = file
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._size = 0
        file.write(_HEADER)

    def write(self, entry: bytes) -> None:
        """Write one entry.

        Raises:
            MalformedError: It holds a line feed, or more bytes than an entry may have.
        """
        if b"\n" in entry or len(entry) > MAX_ENTRY_BYTES:
            raise MalformedError("an entry with a line feed, or too long, cannot stand in a file of lines")
        line = entry + b"\n"
        self._crc = zlib.crc32(line, self._crc)
        self._size += len(line)
        self._file.write(self._deflate.compress(line))

    def close(self) -> None:
        """Finish the gzip member; the file stays open."""
        self._file.write(self._deflate.flush())
        self._file.write(self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little"))


def _inflate(data: memoryview) -> Iterator[bytes]:
    """Yield the expanded bytes in bounded pieces, and check that the file is one gzip member and nothing else."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    crc, size = 0, 0
    position = len(_HEADER)
    pending: bytes = b""
    while not inflate.eof:
        if not pending:
            pending = bytes(data[position : position + _CHUNK_BYTES])
            position += len(pending)
        try:
            piece = inflate.decompress(pending, _CHUNK_BYTES)
        except zlib.error as error:
            raise MalformedError(f"the entries do not expand: {error}") from error
        if not piece and not pending and not inflate.eof:
            raise MalformedError("the file of entries is cut short")
        pending = inflate.unconsumed_tail
        crc, size = zlib.crc32(piece, crc), size + len(piece)
        yield piece
    trailer = inflate.unused_data + bytes(data[position:])
    if trailer != crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        raise MalformedError("the file of entries does not end in the checksum of its entries")


def read_entries(data: memoryview, count: int) -> Iterator[bytes]:
    """Yield the entries of a file, which must be ``count``; the inverse of `EntryFileWriter`.

    Args:
        data: The whole file.
        count: How many entries it must hold.

    Raises:
        MalformedError: Not such a file, another number of entries, or an entry that is too long.
    """
    if bytes(data[: len(_HEADER)]) != _HEADER:
        raise MalformedError("the file of entries does not start with the gzip header that a pack has")
    seen = 0
    rest = b""
    for piece in _inflate(data):
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            seen += 1
            if len(line) > MAX_ENTRY_BYTES or seen > count:
                raise MalformedError(f"the file of entries holds more than {count} entries, or one that is too long")
            yield line
        if len(rest) > MAX_ENTRY_BYTES:
            raise MalformedError("the file of entries holds an entry that is too long")
    if rest or seen != count:
        raise MalformedError(f"the file of entries holds {seen} entries, not {count}")
