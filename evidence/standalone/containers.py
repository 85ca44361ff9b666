"""The container of a pack, and the file in it that holds every entry: each byte is accounted for.

Standard library only. The ZIP file is a function of its members: headers, directory and end are written again from
names, sizes and contents, and compared. Entries are expanded bit by bit, one at a time.

Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.16; RFC 1951; RFC 1952.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from evidence.standalone.faults import FailedError, MalformedError, demand

__all__ = ["read_container", "read_entries"]

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_DIRECTORY_END = struct.Struct("<4sHHHHIIH")
_MADE_BY_UNIX = 3 << 8 | 10
_DATE = 0x0021
_MODE = 0o100644 << 16
_MAX_BYTES = 2**32 - 2
_MAX_MEMBERS = 2**16 - 2
_MAX_NAME = 300
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_GZIP = bytes.fromhex("1f8b08000000000000ff")
_PIECE = 1 << 16
_MAX_ENTRY = 65_535


def _local(name: bytes, size: int, crc: int) -> bytes:
    return _LOCAL.pack(b"PK\x03\x04", 10, 0, 0, 0, _DATE, crc, size, size, len(name), 0) + name


def _central(name: bytes, size: int, crc: int, offset: int) -> bytes:
    head = (b"PK\x01\x02", _MADE_BY_UNIX, 10, 0, 0, 0, _DATE, crc, size, size, len(name), 0, 0, 0, 0, _MODE, offset)
    return _CENTRAL.pack(*head) + name


def _check_names(names: list[str]) -> None:
    folded = {name.lower() for name in names}
    demand(0 < len(names) == len(folded), "two files of the pack have one name, or there is none")
    for name in folded:
        parts = name.split("/")
        below = any("/".join(parts[:count]) in folded for count in range(1, len(parts)))
        demand(not below, f"the pack has {name} below a file of that name")


def read_container(data: memoryview) -> dict[str, memoryview]:
    """Return the members of a container by name, in the order in which they stand.

    Raises:
        MalformedError: A byte is not accounted for.
        FailedError: The bytes of a member do not have the CRC-32 of its header.
    """
    demand(len(data) <= _MAX_BYTES and bytes(data[:2]) == b"PK", "this is not a pack: a pack is a ZIP file")
    members: dict[str, memoryview] = {}
    directory, offset, wrong = b"", 0, ""
    while bytes(data[offset : offset + 4]) == b"PK\x03\x04":
        demand(offset + _LOCAL.size <= len(data), "the pack ends within a header")
        fields = _LOCAL.unpack_from(data, offset)
        crc, size, length = fields[6], fields[7], fields[9]
        start = offset + _LOCAL.size + length
        demand(0 < length <= _MAX_NAME and start + size <= len(data), "the pack ends within a file")
        raw = bytes(data[offset + _LOCAL.size : start])
        name = raw.decode("ascii", errors="replace")
        demand(_NAME.fullmatch(name) is not None and name not in members, f"the pack has a file named {name!a}")
        told = f"the header of {name} is not the one that a pack has"
        demand(bytes(data[offset:start]) == _local(raw, size, crc), told)
        directory += _central(raw, size, crc, offset)
        members[name] = data[start : start + size]
        if zlib.crc32(members[name]) != crc:
            wrong = wrong or name
        offset = start + size
        demand(len(members) <= _MAX_MEMBERS, "the pack has too many files")
    _check_names(list(members))
    end = _DIRECTORY_END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), offset, 0)
    demand(bytes(data[offset:]) == directory + end, "the directory of the pack is not that of its files")
    demand(not wrong, f"the bytes of {wrong} do not have the CRC-32 that its header says", FailedError)
    return members


def _inflated(data: memoryview) -> Iterator[bytes]:
    demand(bytes(data[: len(_GZIP)]) == _GZIP, "the file of entries does not begin as that of a pack")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    crc, size, at, waiting = 0, 0, len(_GZIP), b""
    while not inflate.eof:
        if not waiting:
            waiting = bytes(data[at : at + _PIECE])
            at += len(waiting)
        try:
            piece = inflate.decompress(waiting, _PIECE)
        except zlib.error:
            raise MalformedError("the entries do not expand") from None
        demand(bool(piece or waiting or inflate.eof), "the file of entries is cut short")
        waiting = inflate.unconsumed_tail
        crc, size = zlib.crc32(piece, crc), size + len(piece)
        yield piece
    rest = inflate.unused_data + bytes(data[at:])
    told = "the file of entries does not end in their checksum"
    demand(rest == struct.pack("<II", crc, size & 0xFFFFFFFF), told)


def read_entries(data: memoryview, count: int) -> Iterator[bytes]:
    """Yield the entries of a file, one after another.

    Args:
        data: The file.
        count: How many it must hold.

    Raises:
        MalformedError: Not such a file, or another number of entries.
    """
    seen, rest = 0, b""
    for piece in _inflated(data):
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            seen += 1
            demand(
                seen <= count and len(line) <= _MAX_ENTRY, f"there are more than {count} entries, or one is too long"
            )
            yield line
        demand(len(rest) <= _MAX_ENTRY, "an entry is too long")
    demand(not rest and seen == count, f"there are {seen} entries, not {count}")
