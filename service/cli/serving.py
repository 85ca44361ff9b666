"""Serving until somebody says stop: listening sockets, signals, and the order in which things end.

uvicorn listens for signals itself, and raises them anew as soon as it has stopped. A process that was told to
terminate would then be gone before it had closed its log in order, so that the signals are ours here. What fails
before the first request is an error of ours too, not a line in uvicorn's log and a status of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import uvicorn

from ledger.errors import ConfigError

__all__ = ["STOP_SECONDS", "listen", "serve_until_stopped"]

STOP_SECONDS: Final = 10
"""Requests that take longer than this after a signal are broken off."""

_BACKLOG: Final = 1024
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once requests are answered."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let those go first who only wait."""
        self._ending()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: A name or address of this machine.
        port: A port, or 0 for any that is free.

    Raises:
        ConfigError: Nothing can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named: asyncio turns Nagle's algorithm off only for sockets that say they are TCP.
        listening = socket.socket(family, kind, protocol)
    except UnicodeError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: that is no host's name") from error
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening


async def serve_until_stopped(
    config: uvicorn.Config,
    listening: socket.socket,
    *,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    ready: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
    also: Sequence[socket.socket] = (),
    parent: socket.socket | None = None,
) -> None:
    """Start, answer requests until a signal comes, let those in hand end, and stop.

    Args:
        config: How uvicorn runs the application; its lifespan is off, ``start`` and ``stop`` are in its place.
        listening: Where it listens; closed afterwards.
        start: What has to be there before the first request. If it raises, nothing was served.
        stop: Its counterpart.
        ready: Called once requests are answered.
        ending: Called once no more are taken, before those in hand are awaited.
        also: Where it listens as well; closed afterwards.
        parent: A connection to whoever watches over this process: its end is a signal to stop.
    """
    with contextlib.ExitStack() as sockets:
        for one in (listening, *also):
            sockets.enter_context(one)
        await start()
        try:
            await _serve(_Server(config, ready, ending), [listening, *also], parent)
        finally:
            await stop()


async def _serve(server: uvicorn.Server, listening: list[socket.socket], parent: socket.socket | None) -> None:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, server.handle_exit, number, None)
    if parent is not None:
        loop.add_reader(parent, _parent_is_gone, loop, server, parent)
    try:
        await server.serve(sockets=listening)
    finally:
        if parent is not None:
            loop.remove_reader(parent)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _parent_is_gone(loop: asyncio.AbstractEventLoop, server: uvicorn.Server, parent: socket.socket) -> None:
    # It says nothing on this connection: that there is something to read means that it has ended.
    loop.remove_reader(parent)
    server.handle_exit(signal.SIGTERM, None)
