"""A wire to an S3 server that breaks as a test asks: answers lost, refused, slow, cut short, changed on the way.

Everything else passes unchanged, the signed Host header included, so that client, signature, retries and checksums are
the real ones.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.s3 import S3Server

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class Fault(Enum):
    """What becomes of a request."""

    LOST = auto()  # It is refused with 503 and never reaches the server.
    KEPT = auto()  # The server does it; the answer never comes.
    KEPT_503 = auto()  # The server does it; the answer says 503.
    CUT = auto()  # The answer's body breaks off in the middle.
    CHANGED = auto()  # One bit of the answer's body is another.
    SLOW = auto()  # No answer comes until the test ends.
    REFUSED = auto()  # The server never sees it; the answer says that it is invalid.
    KEPT_REFUSED = auto()  # The server does it; the answer says that it was denied.
    SKEWED = auto()  # It is refused because the clocks differ.


_REFUSALS = {
    Fault.LOST: (503, "SlowDown"),
    Fault.KEPT_503: (503, "ServiceUnavailable"),
    Fault.REFUSED: (400, "InvalidArgument"),
    Fault.KEPT_REFUSED: (403, "AccessDenied"),
    Fault.SKEWED: (403, "RequestTimeTooSkewed"),
}


class Wire:
    """The rules of a proxy, and what passed it.

    Attributes:
        requests: Method and path of every request, in order.
        before: Called with them before each request goes on.
    """

    def __init__(self, server: S3Server) -> None:
        self.target = urlsplit(server.endpoint).netloc
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] | None = None
        self.ended = threading.Event()
        self._armed: list[tuple[str, str, Fault]] = []
        self._lock = threading.Lock()

    def arm(self, fault: Fault, method: str, containing: str = "", times: int = 1) -> None:
        """Let the next so many requests of a method, whose path contains something, end so."""
        self._armed += [(method, containing, fault)] * times

    def due(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            for rule in self._armed:
                if rule[0] == method and rule[1] in path:
                    self._armed.remove(rule)
                    return rule[2]
        return None


class _Handler(BaseHTTPRequestHandler):
    wire: Wire
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else text)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes, int]:
        connection = http.client.HTTPConnection(self.wire.target, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        data = answer.read()
        length = int(answer.headers.get("Content-Length") or len(data))
        connection.close()
        return answer.status, headers, data, length

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.wire.before is not None:
            self.wire.before(self.command, self.path)
        fault = self.wire.due(self.command, self.path)
        if fault in (Fault.LOST, Fault.REFUSED, Fault.SKEWED):
            self._refuse(*_REFUSALS[fault])
            return
        status, headers, data, length = self._forward(body)
        if fault in (Fault.KEPT, Fault.SLOW):
            if fault is Fault.SLOW:
                self.wire.ended.wait(30)
            self.close_connection = True
        elif fault in (Fault.KEPT_503, Fault.KEPT_REFUSED):
            self._refuse(*_REFUSALS[fault])
        else:
            self._answer(status, headers, self._broken(fault, data), length)

    def _broken(self, fault: Fault | None, data: bytes) -> bytes:
        if fault is Fault.CUT:
            self.close_connection = True
            return data[: len(data) // 2]
        return bytes([data[0] ^ 1]) + data[1:] if fault is Fault.CHANGED else data

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815  # as http.server calls them


@contextmanager
def s3_proxy(server: S3Server) -> Iterator[tuple[S3Server, Wire]]:
    """Start a proxy in front of a server; yield the server as it is reached through it, and the wire."""
    wire = Wire(server)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"wire": wire}))
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield S3Server(server.name, f"http://127.0.0.1:{proxy.server_address[1]}"), wire
    finally:
        wire.ended.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
