"""TLS between a socket and uvicorn: the handshake first, then HTTP over what OpenSSL decrypts.

asyncio's own TLS takes contexts of the standard library alone, whose OpenSSL may know no post-quantum key agreement and
does not say which was negotiated. Here OpenSSL works over memory (`OpenSSL.SSL.Connection`), and a protocol moves the
bytes:

* the handshake must be over within a deadline, and of too many handshakes the oldest are ended;
* what a client sends together with the last message of its handshake is read at once;
* a failed handshake ends with OpenSSL's alert, so that the other side can say why, and without a line in the log;
* the HTTP protocol begins only afterwards, and every request of the connection says in its scope who is at its end.

Flow control is the socket's own: all that OpenSSL encrypts goes to its transport at once, and nothing is read from it
while HTTP does not want more. As with HTTP in the clear, a client that closes its side has gone.

Source: ASGI TLS extension, version 0.2; RFC 8446 section 6 (alerts, closure).
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final, cast

from OpenSSL import SSL
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from enforcement.tls_listener import Listener, Refused, reason_of
from enforcement.tls_peer import extension_of

__all__ = ["TLSTransport", "tls_protocol_class"]

_RECORD_BYTES: Final = 16_384
_FLUSH_BYTES: Final = 65_536
# A burst of connections is accepted before the first of them is read: one that is so young may have spoken already.
_SPARED_SECONDS: Final = 1.0
# A socket that is closed while something unread waits resets the connection, and the alert is lost with it.
_ALERT_SECONDS: Final = 1.0


def tls_protocol_class(listener: Listener, inner: type[H11Protocol]) -> type[asyncio.Protocol]:
    """Return the protocol that uvicorn runs for each connection: TLS, and ``inner`` inside of it.

    Args:
        listener: Contexts, rules and bounds.
        inner: What speaks HTTP.
    """
    handshakes: dict[_TLSConnection, float] = {}  # since when, oldest first
    return type("TLS", (_TLSConnection,), {"listener": listener, "inner_class": inner, "handshakes": handshakes})


class TLSTransport(asyncio.Transport):
    """What the HTTP protocol writes to: encrypted, and on to the socket."""

    def __init__(self, connection: _TLSConnection, raw: asyncio.Transport, context: SSL.Context) -> None:
        """Take the connection that encrypts and the transport beneath it."""
        super().__init__()
        self._connection = connection
        self._raw = raw
        self._context = context

    def get_extra_info(self, name: str, default: object = None) -> Any:  # noqa: ANN401  # as asyncio has it
        """Say that there is TLS, and what else the socket knows."""
        return self._context if name == "sslcontext" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._connection.ended or self._raw.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, encrypted."""
        self._connection.send(data)

    def close(self) -> None:
        """Say that this was all, and close once it has been sent."""
        self._connection.close()

    def abort(self) -> None:
        """End the connection at once, whatever waits to be sent."""
        self._connection.abort()

    def pause_reading(self) -> None:
        """Take nothing more from the socket."""
        self._connection.pause()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._connection.resume()

    def is_reading(self) -> bool:
        """Whether it is being read."""
        return self._raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Bound what waits to be sent."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the bounds of what waits to be sent."""
        return self._raw.get_write_buffer_limits()

    def can_write_eof(self) -> bool:
        """One side alone is never closed."""
        return False

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return what speaks HTTP."""
        return self._connection.inner

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Put another protocol in its place."""
        self._connection.inner = cast("H11Protocol", protocol)


class _TLSConnection(asyncio.Protocol):
    """One connection, from its first byte; made by uvicorn in place of an HTTP protocol."""

    listener: Listener
    inner_class: type[H11Protocol]
    handshakes: dict[_TLSConnection, float]
    inner: H11Protocol

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._arguments = (config, server_state, app_state)
        self._loop = _loop or asyncio.get_running_loop()
        self._connections = cast("set[Any]", server_state.connections)
        self._raw: asyncio.Transport | None = None
        self._ssl = self.listener.open()
        self._deadline: asyncio.TimerHandle | None = None
        self._established = False
        self._paused = False
        self.ended = False

    # --- what the socket's transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        self._connections.add(self)  # so that uvicorn's `shutdown` finds it
        self.handshakes[self] = monotonic()
        self._deadline = self._loop.call_later(self.listener.handshake_seconds, self._refuse, "late")
        while len(self.handshakes) > self.listener.max_handshakes:
            oldest, since = next(iter(self.handshakes.items()))
            if monotonic() - since < _SPARED_SECONDS:
                break
            oldest._refuse("crowded")  # noqa: SLF001  # of the same class

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        self._ssl.bio_write(data)
        if self._established or self._handshake():
            self._deliver()

    def eof_received(self) -> bool | None:
        if self._established:
            self.inner.eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        was_ended, self.ended = self.ended, True
        self._over()
        if self._established:
            self.inner.connection_lost(exc)
        elif not was_ended:
            self.listener.refused("gone")

    def pause_writing(self) -> None:
        if self._established:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self._established:
            self.inner.resume_writing()

    # --- what uvicorn tells a connection whose handshake is not over

    def shutdown(self) -> None:
        """End with the server."""
        self.abort()

    # --- the handshake

    def _handshake(self) -> bool:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error as error:
            self._flush()  # the alert says why
            self._refuse(reason_of(error))
            return False
        return self._admit()

    def _admit(self) -> bool:
        admitted = self.listener.admit(self._ssl)
        if isinstance(admitted, str):
            self._refuse(admitted)
            return False
        self._flush()
        self._over()
        peer, certificate = admitted
        assert self._raw is not None
        config, server_state, app_state = self._arguments
        self.inner = self.inner_class(config, server_state, app_state, self._loop)
        self.inner.app = cast("Any", _saying(cast("ASGIApp", self.inner.app), extension_of(peer, certificate)))
        self._established = True
        self.listener.accepted(peer)
        self.inner.connection_made(TLSTransport(self, self._raw, self._ssl.get_context()))
        return True

    def _refuse(self, reason: Refused) -> None:
        if self.ended or self._established:
            return
        self.ended = True
        self._over()
        self.listener.refused(reason)
        assert self._raw is not None
        if reason in ("late", "crowded"):
            self._raw.abort()
        else:
            self._raw.write_eof()
            self._deadline = self._loop.call_later(_ALERT_SECONDS, self._raw.abort)

    def _over(self) -> None:
        """Stop waiting for the handshake."""
        self.handshakes.pop(self, None)
        self._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # --- afterwards

    def _deliver(self) -> None:
        try:
            while not self._paused and not self.ended:
                data = self._ssl.recv(_RECORD_BYTES)
                self.inner.data_received(data)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.inner.eof_received()
            self.close()
        except SSL.Error:
            self._flush()  # the alert, then nothing: what was read so far may have been cut by somebody in between
            self.abort()
        if not self.ended:
            self._flush()  # what TLS itself has to say, such as a new key

    def _flush(self) -> None:
        assert self._raw is not None
        more = True
        while more:
            try:
                data = self._ssl.bio_read(_FLUSH_BYTES)
            except SSL.WantReadError:
                return
            self._raw.write(data)
            more = len(data) == _FLUSH_BYTES

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; nothing after the end."""
        if self.ended or not data:
            return
        try:
            self._ssl.sendall(data)
        except SSL.Error:
            self.abort()
            return
        self._flush()

    def close(self) -> None:
        """Say that this was all, and close once it has been sent."""
        if self.ended:
            return
        self.ended = True
        assert self._raw is not None
        try:
            self._ssl.shutdown()
            self._flush()
        except SSL.Error:
            self._raw.abort()
            return
        self._raw.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.ended = True
        if self._raw is not None:
            self._raw.abort()

    def pause(self) -> None:
        """Read nothing more."""
        self._paused = True
        if self._raw is not None:
            self._raw.pause_reading()

    def resume(self) -> None:
        """Go on: first with what was decrypted already, which no readiness of the socket would tell of."""
        if not self._paused or self.ended:
            return
        self._paused = False
        assert self._raw is not None
        self._raw.resume_reading()
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self.ended:
            self._deliver()


def _saying(app: ASGIApp, extension: dict[str, Any]) -> ASGIApp:
    """Return an application whose every request says who is at the end of its connection."""

    async def saying(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {**(scope.get("extensions") or {}), "tls": extension}
        await app(scope, receive, send)

    return saying
