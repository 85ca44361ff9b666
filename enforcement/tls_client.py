"""The client's side of TLS, for aiohttp: rustls, which offers X25519MLKEM768 first, and our rules over it.

rustls checks the server's certificate, and that it was issued for the host that was asked for. What it does not tell is
which key agreement came of it: that is read from the ServerHello by the way (`enforcement.tls_hello`). In strict mode a
connection without a post-quantum half ends with its handshake: nothing is sent on it.

Source: RFC 8446; draft-ietf-tls-ecdhe-mlkem; RFC 9525 (names of services).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import rtls
from cryptography.hazmat.primitives.serialization import Encoding

from enforcement.config_upstream import PinSettings
from enforcement.server_pins import check_certificate
from enforcement.tls_files import Material
from enforcement.tls_hello import GroupReader
from enforcement.tls_listener import Groups
from enforcement.tls_peer import UNKNOWN, TLSPeer
from ledger.errors import ConfigError

__all__ = ["ClientContext", "ClientRules", "client_context", "group_of"]

_MINIMUM: Final = {"1.2": rtls.TLSVersion.TLSv1_2, "1.3": rtls.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRules:
    """What a server must offer.

    Attributes:
        groups: ``strict`` refuses a server whose key agreement has no post-quantum half.
        minimum: Oldest version of TLS.
        pin: Which server it must be, beside what an authority says.
    """

    groups: Groups = "permissive"
    minimum: Literal["1.2", "1.3"] = "1.2"
    pin: PinSettings | None = None


def client_context(
    material: Material, rules: ClientRules, *, on_connected: Callable[[TLSPeer], None] = lambda _: None
) -> ClientContext:
    """Return the context of new connections to servers.

    Args:
        material: What is presented, and whom to believe; without authorities, those of the system.
        rules: What a server must offer.
        on_connected: Told of every handshake that succeeded.

    Raises:
        ConfigError: rustls does not take the files.
    """
    context = ClientContext(rtls.PROTOCOL_TLS_CLIENT)
    context.rules = rules
    context.on_connected = on_connected
    context.minimum_version = _MINIMUM[rules.minimum]
    try:
        if material.authorities is None:
            context.load_default_certs()
        else:
            pem = b"".join(authority.public_bytes(Encoding.PEM) for authority in material.authorities)
            context.load_verify_locations(cadata=pem)
        if material.credential is not None:
            context.load_cert_chain(material.credential.chain_pem(), material.credential.key_pem())
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")  # reads all of it
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError("rustls does not take the certificate, its key, or an authority") from error
    return context


class ClientContext(rtls.SSLContext):
    """A context whose connections know their key agreement.

    Attributes:
        rules: What a server must offer.
        on_connected: Told of every handshake that succeeded.
    """

    rules: ClientRules
    on_connected: Callable[[TLSPeer], None]

    def wrap_bio(  # type: ignore[override]  # as asyncio calls it
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002  # the standard library's signature
        server_hostname: str | None = None,
    ) -> _Handshake:
        """Return one connection's TLS, over memory."""
        assert not server_side
        return _Handshake(self, _Tap(incoming), outgoing, server_hostname)


class _Tap:
    """Bytes on their way in, read along until the server's choice is known."""

    def __init__(self, incoming: ssl.MemoryBIO) -> None:
        self._incoming = incoming
        self.reader = GroupReader()

    def read(self, n: int = -1) -> bytes:
        data: bytes = self._incoming.read(n)
        if data and not self.reader.done:
            self.reader.feed(data)
        return data

    def write(self, data: bytes) -> int:
        """Put back what was not used; it is read again, though not by the reader."""
        return int(self._incoming.write(data))

    @property
    def pending(self) -> int:
        return int(self._incoming.pending)

    @property
    def eof(self) -> bool:
        return bool(self._incoming.eof)


class _Handshake(rtls.SSLObject):
    """One connection's TLS; ends with its handshake if it is not what the rules ask for."""

    def __init__(
        self, context: ClientContext, incoming: _Tap, outgoing: ssl.MemoryBIO, server_hostname: str | None
    ) -> None:
        self._rules = context.rules
        self._on_connected = context.on_connected
        self._tap = incoming
        self._told = False
        # A tap is read as a BIO is, and so is one of the standard library.
        super().__init__(context, cast("Any", incoming), cast("Any", outgoing), server_hostname=server_hostname)

    @property
    def group(self) -> str:
        """The key agreement."""
        return self._tap.reader.group or UNKNOWN

    def do_handshake(self) -> None:
        super().do_handshake()
        if self._told:
            return
        self._told = True
        if self._rules.pin is not None:
            check_certificate(cast("bytes | None", self.getpeercert(binary_form=True)), self._rules.pin)
        cipher = self.cipher()
        peer = TLSPeer(version=self.version() or UNKNOWN, group=self.group, cipher=cipher[0] if cipher else UNKNOWN)
        if self._rules.groups == "strict" and not peer.hybrid:
            raise ssl.SSLError("the server's key agreement has no post-quantum half")
        self._on_connected(peer)


def group_of(ssl_object: object) -> str | None:
    """Return the key agreement of a connection; None if it is not one of ours.

    Args:
        ssl_object: The transport's ``ssl_object``.
    """
    return ssl_object.group if isinstance(ssl_object, _Handshake) else None
