"""Which key agreement a TLS handshake came to, read from what the server sent before anything is encrypted.

Pure. rustls does not tell by its Python interface; but the server's choice stands in its ServerHello, in the clear, and
belongs to the transcript that the handshake authenticates: a handshake that succeeded used what stands there.

In TLS 1.2, which knows no hybrid, the choice stands in ServerKeyExchange.

Source: RFC 8446 sections 4.1.3, 4.1.4, 4.2.8 and 5.1; RFC 8422 section 5.4; IANA, TLS Supported Groups.
"""

from __future__ import annotations

from typing import Final

__all__ = ["GroupReader", "group_name"]

_MAX_BYTES: Final = 1 << 17
_HANDSHAKE: Final = 22
_CHANGE_CIPHER_SPEC: Final = 20
_SERVER_HELLO: Final = 2
_SERVER_KEY_EXCHANGE: Final = 12
_SERVER_HELLO_DONE: Final = 14
_KEY_SHARE: Final = 51
_SUPPORTED_VERSIONS: Final = 43
_TLS13: Final = b"\x03\x04"
_NAMED_CURVE: Final = 3
_RANDOM: Final = slice(2, 34)
_SESSION_ID_AT: Final = 34
# RFC 8446 section 4.1.3: a ServerHello with this random asks for another key share and is followed by a real one.
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_GROUPS: Final = {
    0x0017: "secp256r1",
    0x0018: "secp384r1",
    0x0019: "secp521r1",
    0x001D: "x25519",
    0x001E: "x448",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}


def group_name(number: int) -> str:
    """Return the name of a key agreement, as IANA has it; its number in hexadecimal if it is not one of ours."""
    return _GROUPS.get(number, f"0x{number:04x}")


class GroupReader:
    """Reads what a server sends until its choice is known.

    Attributes:
        done: Nothing more need be fed.
        group: The key agreement; None as long as it is not known, or if there was none to be read.
    """

    def __init__(self) -> None:
        """Begin with a connection's first byte."""
        self.done = False
        self.group: str | None = None
        self._bytes = 0
        self._records = bytearray()
        self._messages = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes that the server sent; whatever they are, nothing is raised."""
        if self.done:
            return
        self._bytes += len(data)
        self._records += data
        try:
            self._read_records()
        except (IndexError, ValueError):
            self._end(None)
        if self._bytes > _MAX_BYTES:
            self._end(None)

    def _end(self, group: str | None) -> None:
        if not self.done:
            self.done, self.group = True, group
            self._records.clear()
            self._messages.clear()

    def _read_records(self) -> None:
        while not self.done and len(self._records) >= 5:  # noqa: PLR2004  # type, version, length
            length = int.from_bytes(self._records[3:5])
            if len(self._records) < 5 + length:
                return
            kind, fragment = self._records[0], bytes(self._records[5 : 5 + length])
            del self._records[: 5 + length]
            if kind == _HANDSHAKE:
                self._messages += fragment
                self._read_messages()
            elif kind != _CHANGE_CIPHER_SPEC:  # an alert, or encrypted
                self._end(None)

    def _read_messages(self) -> None:
        while not self.done and len(self._messages) >= 4:  # noqa: PLR2004  # type and length
            length = int.from_bytes(self._messages[1:4])
            if len(self._messages) < 4 + length:
                return
            kind, body = self._messages[0], bytes(self._messages[4 : 4 + length])
            del self._messages[: 4 + length]
            if kind == _SERVER_HELLO and body[_RANDOM] != _RETRY:
                self._read_hello(body)
            elif kind == _SERVER_KEY_EXCHANGE and body[0] == _NAMED_CURVE:
                self._end(group_name(int.from_bytes(body[1:3])))
            elif kind in (_SERVER_KEY_EXCHANGE, _SERVER_HELLO_DONE):
                self._end(None)

    def _read_hello(self, body: bytes) -> None:
        extensions = _extensions(body)
        if extensions.get(_SUPPORTED_VERSIONS) != _TLS13:
            return  # TLS 1.2: the choice follows
        share = extensions.get(_KEY_SHARE, b"")
        self._end(group_name(int.from_bytes(share[:2])) if len(share) > 4 else None)  # noqa: PLR2004  # group, length


def _extensions(body: bytes) -> dict[int, bytes]:
    at = _SESSION_ID_AT + 1 + body[_SESSION_ID_AT] + 3  # cipher suite and compression
    found: dict[int, bytes] = {}
    rest = body[at + 2 :]
    while len(rest) >= 4:  # noqa: PLR2004  # type and length
        length = int.from_bytes(rest[2:4])
        found[int.from_bytes(rest[:2])] = rest[4 : 4 + length]
        rest = rest[4 + length :]
    return found
