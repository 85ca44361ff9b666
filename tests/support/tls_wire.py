"""A wire that is listened to, and what a listener without keys can read of a TLS handshake.

The parser has nothing to do with the product's own: what the tests say of the bytes is a second opinion.

Source: RFC 8446 sections 4.1.2, 4.1.3, 4.2.1, 4.2.7, 4.2.8 and 5.1.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

X25519MLKEM768 = 0x11EC
X25519 = 0x001D
TLS13 = 0x0304
APPLICATION_DATA, ALERT, HANDSHAKE = 23, 21, 22


@dataclass
class Conversation:
    """The bytes of one connection."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


@dataclass
class Capture:
    """Everything that passed a relay."""

    port: int = 0
    conversations: list[Conversation] = field(default_factory=list)

    def everything(self) -> bytes:
        return b"".join(bytes(one.sent + one.received) for one in self.conversations)


@asynccontextmanager
async def listening_in(port: int) -> AsyncIterator[Capture]:
    """Relay connections to a port of this machine, and keep what passes."""
    capture = Capture()
    tasks: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        talk = Conversation()
        capture.conversations.append(talk)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pump(reader, back, talk.sent), _pump(there, writer, talk.received))
        finally:
            for one in (writer, back):
                one.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    capture.port = server.sockets[0].getsockname()[1]
    try:
        yield capture
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while data := await reader.read(65_536):
            kept += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


@dataclass(frozen=True)
class Handshake:
    """What both sides said in the clear."""

    offered: tuple[int, ...]
    shares: tuple[int, ...]
    version: int
    group: int
    share_bytes: int


def read_handshake(talk: Conversation) -> Handshake:
    """Return the offer and the choice of one connection; anything else fails the test."""
    hello = _extensions(_first_message(talk.sent, 1), server=False)
    chosen = _extensions(_first_message(talk.received, 2), server=True)
    (count,) = struct.unpack_from("!H", hello[10])
    offered = struct.unpack_from(f"!{count // 2}H", hello[10], 2)
    group, length = struct.unpack_from("!HH", chosen[51])
    return Handshake(
        offered=offered,
        shares=tuple(_shares(hello[51][2:])),
        version=struct.unpack("!H", chosen[43])[0],
        group=group,
        share_bytes=length,
    )


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each record; bytes that are none fail the test."""
    at = 0
    while at + 5 <= len(data):
        kind, version, length = struct.unpack_from("!BHH", data, at)
        assert kind in (20, ALERT, HANDSHAKE, APPLICATION_DATA), kind
        assert version in (0x0301, 0x0303)
        yield kind, bytes(data[at + 5 : at + 5 + length])
        at += 5 + length


def _first_message(data: bytes, wanted: int) -> bytes:
    stream = b"".join(content for kind, content in records(data) if kind == HANDSHAKE)
    assert stream[0] == wanted
    return stream[4 : 4 + int.from_bytes(stream[1:4])]


def _extensions(body: bytes, *, server: bool) -> dict[int, bytes]:
    at = 34
    at += 1 + body[at]
    at += 2 if server else 2 + int.from_bytes(body[at : at + 2])
    at += 1 if server else 1 + body[at]
    end = at + 2 + int.from_bytes(body[at : at + 2])
    at += 2
    found = {}
    while at < end:
        kind, length = struct.unpack_from("!HH", body, at)
        found[kind] = body[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _shares(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        group, length = struct.unpack_from("!HH", data, at)
        yield group
        at += 4 + length
