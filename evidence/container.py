"""The container of a pack: a ZIP file of which every byte is accounted for.

Pure but for `write_container`, which writes where it is told and may read a large member from a file.

A general ZIP reader skips what it does not know: a comment, an extra field, bytes between two members, a second
directory. Here nothing is skipped. Members are stored, not compressed; every header field has one value; there are no
extra fields, comments, data descriptors or ZIP64 records. A container is therefore a function of its members: the
reader takes names, sizes and contents from the local headers, writes headers, directory and end record again and
compares them with what is there, byte for byte. Any ZIP program opens the result.

Names are ASCII, relative, without ``.`` parts, and distinct without regard to case; none is the folder of another. A
reader that unpacks such a container on any system writes exactly its members below one folder.

A local header of the member ``scope.json`` of 2 bytes (fields little-endian)::

    50 4b 03 04  0a 00  00 00  00 00  00 00 21 00  43 bf a6 a3  02 00 00 00  02 00 00 00  0a 00  00 00  73 63 6f 70 …
    signature    v1.0   flags  stored 1980-01-01   CRC-32       size         size         name   extra  name

Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from ledger.errors import EvidenceError, MalformedError, VerificationError

__all__ = [
    "MAX_CONTAINER_BYTES",
    "MAX_MEMBERS",
    "MAX_NAME_CHARS",
    "Content",
    "Digest",
    "digest_content",
    "read_container",
    "write_container",
]

MAX_CONTAINER_BYTES: Final = 2**32 - 2
"""Largest container: offsets and sizes are 32 bits wide, and the last value means ZIP64."""

MAX_MEMBERS: Final = 2**16 - 2
MAX_NAME_CHARS: Final = 300

Content: TypeAlias = bytes | Path
"""A member's bytes, or a file that holds them."""

_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<4sHHHHIIH")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_ZIP: Final = b"PK"
_CENTRAL_SIGNATURE: Final = b"PK\x01\x02"
_END_SIGNATURE: Final = b"PK\x05\x06"
_VERSION: Final = 10
_MADE_BY_UNIX: Final = 3 << 8 | _VERSION
_DATE: Final = 0x0021
"""1980-01-01, the first day of the format's calendar."""
_MODE: Final = 0o100644 << 16
_CHUNK_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    crc: int
    offset: int

    def local(self) -> bytes:
        name = self.name.encode()
        header = (_LOCAL_SIGNATURE, _VERSION, 0, 0, 0, _DATE, self.crc, self.size, self.size, len(name), 0)
        return _LOCAL.pack(*header) + name

    def central(self) -> bytes:
        name = self.name.encode()
        times = (_MADE_BY_UNIX, _VERSION, 0, 0, 0, _DATE)
        rest = (self.crc, self.size, self.size, len(name), 0, 0, 0, 0, _MODE, self.offset)
        return _CENTRAL.pack(_CENTRAL_SIGNATURE, *times, *rest) + name


def _directory(members: Sequence[_Member], offset: int) -> bytes:
    """Return the central directory and the end record."""
    directory = b"".join(member.central() for member in members)
    count = len(members)
    return directory + _END.pack(_END_SIGNATURE, 0, 0, count, count, len(directory), offset, 0)


def _check_names(names: Sequence[str]) -> None:
    if not 0 < len(names) <= MAX_MEMBERS:
        raise MalformedError(f"a pack has 1 to {MAX_MEMBERS} files, not {len(names)}")
    for name in names:
        if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
            raise MalformedError(f"a pack cannot hold a file named {name[:MAX_NAME_CHARS]!a}")
    folded = {name.casefold() for name in names}
    if len(folded) != len(names):
        raise MalformedError("two files of a pack have one name, or differ only in upper and lower case")
    for name in folded:
        parts = name.split("/")
        if any("/".join(parts[:count]) in folded for count in range(1, len(parts))):
            raise MalformedError(f"a pack has {name!a} below a file of that name")


def _chunks(content: Content | memoryview) -> Iterator[bytes | memoryview]:
    if isinstance(content, bytes | memoryview):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@dataclass(frozen=True, slots=True)
class Digest:
    """Length in bytes and SHA-256, in hexadecimal, of a member."""

    size: int
    sha256: str


def digest_content(content: Content | memoryview) -> Digest:
    """Return length and digest of a member."""
    hashed, size = hashlib.sha256(), 0
    for chunk in _chunks(content):
        hashed.update(chunk)
        size += len(chunk)
    return Digest(size, hashed.hexdigest())


def write_container(file: BinaryIO, members: Mapping[str, Content]) -> int:
    """Write a container.

    Args:
        file: Where to, from its present position on; nothing but the container is in it.
        members: Contents by name, in the order in which they shall stand.

    Returns:
        The number of bytes written.

    Raises:
        MalformedError: A name that a container cannot hold.
        EvidenceError: The members exceed `MAX_CONTAINER_BYTES`.
    """
    _check_names(list(members))
    written: list[_Member] = []
    offset = 0
    for name, content in members.items():
        crc, size = 0, 0
        for chunk in _chunks(content):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        if offset + size > MAX_CONTAINER_BYTES:
            raise EvidenceError(f"a pack has at most {MAX_CONTAINER_BYTES} bytes; choose a shorter period")
        member = _Member(name, size, crc, offset)
        header = member.local()
        file.write(header)
        for chunk in _chunks(content):
            file.write(chunk)
        written.append(member)
        offset += len(header) + size
    tail = _directory(written, offset)
    if offset + len(tail) > MAX_CONTAINER_BYTES:
        raise EvidenceError(f"a pack has at most {MAX_CONTAINER_BYTES} bytes; choose a shorter period")
    file.write(tail)
    return offset + len(tail)


def _read_member(data: memoryview, offset: int) -> tuple[_Member, memoryview]:
    """Return the member whose local header stands at ``offset``, and its content."""
    if offset + _LOCAL.size > len(data):
        raise MalformedError(f"the container ends within a header at byte {offset}")
    fields = _LOCAL.unpack_from(data, offset)
    crc, size, name_size = fields[6], fields[7], fields[9]
    if not 0 < name_size <= MAX_NAME_CHARS:
        raise MalformedError(f"the container has a name of {name_size} bytes at byte {offset}")
    start = offset + _LOCAL.size + name_size
    if start + size > len(data):
        raise MalformedError(f"the container ends within a file at byte {offset}")
    try:
        name = str(data[offset + _LOCAL.size : start], "ascii")
    except UnicodeDecodeError:
        raise MalformedError(f"the container has a name that is not ASCII at byte {offset}") from None
    member = _Member(name, size, crc, offset)
    if data[offset:start] != member.local():
        raise MalformedError(f"the header of {name!a} at byte {offset} of the container is not the one a pack has")
    return member, data[start : start + size]


def read_container(data: memoryview) -> dict[str, memoryview]:
    """Read a container, strictly; the inverse of `write_container`.

    Args:
        data: The whole container; the contents returned are views into it.

    Returns:
        Contents by name, in the order in which they stand.

    Raises:
        MalformedError: A byte is not accounted for: an unusual or damaged header, something between, before or behind
            the members, a name twice, a directory that is not that of the members.
        VerificationError: A member's bytes do not have the CRC-32 that its header says.
    """
    if len(data) > MAX_CONTAINER_BYTES:
        raise MalformedError(f"a pack has at most {MAX_CONTAINER_BYTES} bytes, not {len(data)}")
    if bytes(data[: len(_ZIP)]) != _ZIP:
        raise MalformedError("this is not a ZIP file; a pack is one, named .zip")
    members: list[_Member] = []
    contents: list[memoryview] = []
    offset = 0
    while bytes(data[offset : offset + 4]) == _LOCAL_SIGNATURE:
        member, content = _read_member(data, offset)
        members.append(member)
        contents.append(content)
        if len(members) > MAX_MEMBERS:
            raise MalformedError(f"a pack has at most {MAX_MEMBERS} files")
        offset += _LOCAL.size + len(member.name) + member.size
    names = [member.name for member in members]
    _check_names(names)
    if data[offset:] != _directory(members, offset):
        raise MalformedError(f"the directory at byte {offset} of the container is not that of its files")
    for member, content in zip(members, contents, strict=True):
        if zlib.crc32(content) != member.crc:
            raise VerificationError(f"the bytes of {member.name} do not have the CRC-32 that its header says")
    return dict(zip(names, contents, strict=True))
