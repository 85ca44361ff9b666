"""A wire that can be cut: a relay between a client and a real server, which breaks off at a word of the test's choice.

Faults at our own ports are injected by `tests.support.faults`. Here the real client library meets what a network does:
a request that never arrives, an answer that never comes back although the server did what it was asked, and silence.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Self

_CHUNK = 65_536
_PATIENCE_SECONDS = 30
_LONGEST_WORD = 256


class Cut(StrEnum):
    """How the wire ends a conversation."""

    LOST = "the request never arrives"
    UNANSWERED = "the answer never comes back"
    SILENT = "the server is asked and nothing is heard"


class Wire:
    """Relays connections to a server; use it as a context manager.

    One conversation is broken for each `cut` that was armed: the next that says the word.
    """

    def __init__(self, server: str | tuple[str, int], folder: Path | None = None) -> None:
        """Relay to a server.

        Args:
            server: Path of its Unix socket, or host and port.
            folder: Where to listen by a Unix socket of the same name; None listens on 127.0.0.1.
        """
        self._server = server
        self._armed: list[tuple[bytes, Cut]] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.struck = 0
        if folder is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(folder / Path(str(server)).name))
            self._listener.listen()

    @property
    def port(self) -> int:
        """The port that the wire listens on."""
        return int(self._listener.getsockname()[1])

    def cut(self, word: bytes, how: Cut) -> None:
        """Break off the next conversation in which a client says the word."""
        with self._lock:
            self._armed.append((word, how))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._server, tuple):
            return socket.create_connection(self._server, _PATIENCE_SECONDS)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        return server

    def _relay(self, client: socket.socket) -> None:
        with client, self._connect() as server, suppress(OSError):
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            silenced = threading.Event()
            back = threading.Thread(target=self._answers, args=(server, client, silenced), daemon=True)
            back.start()
            before = b""
            while data := client.recv(_CHUNK):
                how = self._due(before, data)
                before = (before + data)[-_LONGEST_WORD:]
                if how is None:
                    server.sendall(data)
                    continue
                if how is Cut.LOST:
                    break
                silenced.set()
                server.sendall(data)
                if how is Cut.UNANSWERED:
                    # Until the server has done what it was asked, as its answer, kept back, shows.
                    back.join(_PATIENCE_SECONDS)
                    break
            for connection in (client, server):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            back.join(_PATIENCE_SECONDS)
        with self._lock:
            self._open -= {client, server}

    def _due(self, before: bytes, data: bytes) -> Cut | None:
        with self._lock:
            for item in self._armed:
                # A word may be split between two reads; one that was said before the wire was armed does not count.
                if item[0] in before[-(len(item[0]) - 1) :] + data:
                    self._armed.remove(item)
                    self.struck += 1
                    return item[1]
        return None

    def _answers(self, server: socket.socket, client: socket.socket, silenced: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                if silenced.is_set():
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
