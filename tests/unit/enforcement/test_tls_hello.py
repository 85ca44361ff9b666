"""The server's choice, read from what it sends in the clear: of real handshakes, and of bytes that are none."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from enforcement.tls_files import read_material
from enforcement.tls_hello import GroupReader, group_name
from enforcement.tls_listener import TLSRules, server_context
from ledger.clock import SystemClock
from tests.support.pki import PKI


def answer_to(server: SSL.Connection, client: ssl.SSLContext) -> bytes:
    """Return everything that a server says to a client's first flight, and to its second if it asked for another."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk, said = client.wrap_bio(incoming, outgoing, server_hostname="localhost"), b""
    for _ in range(3):
        try:
            talk.do_handshake()
        except ssl.SSLWantReadError:
            server.bio_write(outgoing.read())
        with suppress(SSL.WantReadError):
            server.do_handshake()
        try:
            flight = server.bio_read(1 << 16)
        except SSL.WantReadError:
            break
        said += flight
        incoming.write(flight)
    return said


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


def server(pki: PKI) -> SSL.Connection:
    files = pki.server()
    material = read_material(files.certificate, f"file:{files.key}", Path(pki.ca), SystemClock())
    connection = SSL.Connection(server_context(material, TLSRules(minimum="1.2")), None)
    connection.set_accept_state()
    return connection


def client(pki: PKI, curve: str, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.set_ecdh_curve(curve)
    context.maximum_version = newest
    return context


@pytest.mark.parametrize(
    ("curve", "newest", "group"),
    [
        ("X25519", ssl.TLSVersion.TLSv1_3, "x25519"),
        ("prime256v1", ssl.TLSVersion.TLSv1_3, "secp256r1"),
        ("prime256v1", ssl.TLSVersion.TLSv1_2, "secp256r1"),
    ],
)
def test_the_choice_of_a_real_handshake_is_read_whole_or_byte_by_byte(
    pki: PKI, curve: str, newest: ssl.TLSVersion, group: str
) -> None:
    said = answer_to(server(pki), client(pki, curve, newest))
    whole, slow = GroupReader(), GroupReader()
    whole.feed(said)
    for at in range(len(said)):
        slow.feed(said[at : at + 1])
    assert (whole.done, whole.group, slow.group) == (True, group, group)


def hello(*, random: bytes = b"r" * 32, version: bytes = b"\x03\x04", share: bytes = b"\x11\xec\x00\x01k") -> bytes:
    extensions = b"\x00\x2b" + len(version).to_bytes(2) + version + b"\x00\x33" + len(share).to_bytes(2) + share
    body = b"\x03\x03" + random + b"\x00\x13\x01\x00" + len(extensions).to_bytes(2) + extensions
    message = b"\x02" + len(body).to_bytes(3) + body
    return b"\x16\x03\x03" + len(message).to_bytes(2) + message


RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def read(*flights: bytes) -> GroupReader:
    reader = GroupReader()
    for flight in flights:
        reader.feed(flight)
    return reader


def test_a_request_for_another_share_is_not_the_choice() -> None:
    asked = read(hello(random=RETRY, share=b"\x00\x1d"))
    assert (asked.done, asked.group) == (False, None)
    assert read(hello(random=RETRY, share=b"\x00\x1d"), b"\x14\x03\x03\x00\x01\x01", hello()).group == "X25519MLKEM768"


@pytest.mark.parametrize(
    "said",
    [
        hello(share=b""),
        hello(share=b"\x11\xec"),
        hello(share=b"\x11\xec\x00\x00"),
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x01a" + hello(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 70_000,
        b"\x16\x03\x03\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x03\x00\x05\x0c\x00\x00\x01\x01",
        b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
        b"\x16\x03\x03\x00\x04\x0b\xff\xff\xff" + b"\x16\x03\x03\x40\x00" * 1 + b"a" * 16_384 * 9,
    ],
)
def test_where_there_is_no_choice_to_be_read_there_is_none(said: bytes) -> None:
    reader = read(said)
    assert (reader.done, reader.group) == (True, None)
    reader.feed(hello())
    assert reader.group is None


def test_a_group_that_is_not_ours_is_named_by_its_number() -> None:
    assert read(hello(share=b"\x63\x99\x00\x01k")).group == "0x6399"
    assert group_name(0x11EC) == "X25519MLKEM768"


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_whatever_is_fed_nothing_is_raised(flights: list[bytes]) -> None:
    read(*flights)


@given(st.integers(min_value=0, max_value=200), st.integers(min_value=1, max_value=255))
def test_a_hello_with_any_byte_changed_raises_nothing(at: int, change: int) -> None:
    said = bytearray(hello())
    said[at % len(said)] ^= change
    read(bytes(said))
