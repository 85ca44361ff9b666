"""The file of entries: one gzip member, one entry a line, and bounds on what it may expand to."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest

from evidence.entry_files import EntryFileWriter, read_entries
from ledger.errors import MalformedError
from ledger.tiles import MAX_ENTRY_BYTES
from tests.support.packs import pack_entries

ENTRIES = [b'{"n":%d}' % number for number in range(1000)]


def read(data: bytes, count: int) -> list[bytes]:
    return list(read_entries(memoryview(data), count))


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_what_is_written_is_read(count: int) -> None:
    assert read(pack_entries(ENTRIES[:count]), count) == ENTRIES[:count]


def test_any_gzip_program_expands_it() -> None:
    assert gzip.decompress(pack_entries(ENTRIES)) == b"".join(entry + b"\n" for entry in ENTRIES)


def test_the_header_names_no_file_and_no_time() -> None:
    assert pack_entries(ENTRIES)[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_the_longest_entries_are_read_across_pieces() -> None:
    entries = [bytes([65 + number]) * (MAX_ENTRY_BYTES - number) for number in range(5)]
    assert read(pack_entries(entries), 5) == entries


@pytest.mark.parametrize("count", [0, 999, 1001])
def test_another_number_of_entries_than_expected_is_refused(count: int) -> None:
    with pytest.raises(MalformedError):
        read(pack_entries(ENTRIES), count)


@pytest.mark.parametrize("entry", [b"a\nb", b"x" * (MAX_ENTRY_BYTES + 1)])
def test_what_is_no_entry_is_not_written(entry: bytes) -> None:
    with pytest.raises(MalformedError):
        EntryFileWriter(io.BytesIO()).write(entry)


def test_a_bomb_is_refused_after_its_first_line_and_never_expanded() -> None:
    bomb = gzip.compress(bytes(200_000_000), mtime=0)
    bomb = pack_entries([])[:10] + bomb[10:]
    pieces = read_entries(memoryview(bomb), 10)
    with pytest.raises(MalformedError, match="too long"):
        next(pieces)


def test_many_lines_beyond_the_expected_are_refused_as_they_come() -> None:
    bomb = pack_entries([b""] * 300_000)
    with pytest.raises(MalformedError, match="more than 10"):
        read(bomb, 10)


def _with_name(data: bytes) -> bytes:
    return data[:3] + b"\x08" + data[4:10] + b"name\0" + data[10:]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[:-8],
        lambda data: data[:20],
        lambda data: data[:10],
        lambda data: data[:0],
        lambda data: data + b"\0",
        lambda data: data + data,
        lambda data: data[:-8] + bytes(4) + data[-4:],
        lambda data: data[:-4] + bytes(4),
        lambda data: data[:4] + b"\1" + data[5:],
        _with_name,
        lambda data: b"PK" + data[2:],
        lambda data: data[:10] + b"\xff" * 20,
    ],
)
def test_another_gzip_file_is_refused(change: object) -> None:
    data = change(pack_entries(ENTRIES))  # type: ignore[operator]
    with pytest.raises(MalformedError):
        read(data, len(ENTRIES))


def test_a_last_line_without_line_feed_is_refused() -> None:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    text = b"a\nb"
    body = deflate.compress(text) + deflate.flush()
    data = pack_entries([])[:10] + body + zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    for count in (1, 2):
        with pytest.raises(MalformedError):
            read(data, count)
