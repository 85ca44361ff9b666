"""The container: any ZIP program opens it, and our reader accepts nothing but what our writer writes."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from evidence.container import MAX_NAME_CHARS, digest_content, read_container, write_container
from ledger.canonical import sha256
from ledger.errors import MalformedError, VerificationError

MEMBERS = {"a/b.txt": b"hello", "empty": b"", "scope.json": b'{"a":1}', "z.pdf": bytes(range(256))}


def container(members: dict[str, bytes | Path] | None = None) -> bytes:
    file = io.BytesIO()
    assert write_container(file, dict(members or MEMBERS)) == len(file.getvalue())
    return file.getvalue()


def read(data: bytes) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in read_container(memoryview(data)).items()}


def made_by_zipfile(**options: object) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in MEMBERS.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            for option, value in options.items():
                setattr(info, option, value)
            archive.writestr(info, data)
    return file.getvalue()


def test_what_is_written_is_read() -> None:
    assert read(container()) == MEMBERS
    assert list(read(container())) == list(MEMBERS)


def test_any_zip_program_opens_it() -> None:
    with zipfile.ZipFile(io.BytesIO(container())) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == MEMBERS
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}


def test_the_same_members_give_the_same_bytes() -> None:
    assert container() == container()


def test_a_large_member_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(3_000_000))
    assert container({"large": path}) == container({"large": bytes(3_000_000)})
    assert digest_content(path) == digest_content(bytes(3_000_000))
    assert digest_content(path).sha256 == sha256(bytes(3_000_000)).hex()


def test_every_byte_is_accounted_for() -> None:
    data = bytearray(container())
    for position in range(len(data)):
        for bit in (1, 128):
            data[position] ^= bit
            with pytest.raises((MalformedError, VerificationError)):
                read_container(memoryview(bytes(data)))
            data[position] ^= bit
    assert read(bytes(data)) == MEMBERS


def test_a_container_that_is_cut_short_anywhere_is_refused() -> None:
    data = container()
    for cut in range(len(data)):
        with pytest.raises((MalformedError, VerificationError)):
            read_container(memoryview(data[:cut]))


@pytest.mark.parametrize("place", [0, 35, -22, None])
def test_bytes_that_are_put_in_are_refused(place: int | None) -> None:
    data = container()
    at = len(data) if place is None else place % len(data)
    with pytest.raises(MalformedError):
        read_container(memoryview(data[:at] + b"\0\0" + data[at:]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compress_type": zipfile.ZIP_DEFLATED},
        {"extra": struct.pack("<HHI", 0x5455, 4, 0)},
        {"comment": b"a comment"},
        {"date_time": (2025, 1, 1, 0, 0, 0)},
        {"external_attr": 0o120777 << 16},
        {"flag_bits": 0x800},
        {"create_system": 0},
    ],
    ids=str,
)
def test_a_zip_of_another_writer_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        read_container(memoryview(made_by_zipfile(**options)))


@pytest.mark.parametrize(
    "names",
    [
        ["../evil"],
        ["/etc/passwd"],
        ["a/../b"],
        ["a//b"],
        ["./a"],
        [".hidden"],
        ["a/.hidden"],
        ["a\\b"],
        ["C:evil"],
        ["a b"],
        ["a\n"],
        ["a\0"],
        ["é"],
        [""],
        ["a/"],
        ["-rf"],
        ["x" * (MAX_NAME_CHARS + 1)],
        ["a", "A"],
        ["a", "a/b"],
        ["A/b", "a"],
        [],
    ],
    ids=str,
)
def test_names_that_could_harm_or_collide_are_refused_on_both_sides(names: list[str]) -> None:
    with pytest.raises(MalformedError):
        write_container(io.BytesIO(), dict.fromkeys(names, b""))
    forged = forge([(name.encode(), b"") for name in names])
    with pytest.raises((MalformedError, VerificationError)):
        read_container(memoryview(forged))


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(MalformedError):
        read_container(memoryview(forge([(b"a", b"1"), (b"a", b"2")])))


def forge(members: list[tuple[bytes, bytes]]) -> bytes:
    """Write a container like ours, without looking at names."""
    import zlib

    local, central, offset = b"", b"", 0
    for name, data in members:
        common = (0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name), 0)
        header = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 10, *common) + name
        local += header + data
        central += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 3 << 8 | 10, 10, *common, 0, 0, 0, 0o100644 << 16, offset
        )
        central += name
        offset += len(header) + len(data)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(members), len(members), len(central), offset, 0)
    return local + central + end


def test_the_forger_of_these_tests_writes_what_the_writer_writes() -> None:
    assert forge([(name.encode(), data) for name, data in MEMBERS.items()]) == container()


def test_more_files_than_a_zip_can_count_are_refused() -> None:
    with pytest.raises(MalformedError):
        write_container(io.BytesIO(), {f"f{number}": b"" for number in range(2**16 - 1)})
