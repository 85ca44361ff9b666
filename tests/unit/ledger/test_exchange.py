"""One request to somebody whom we do not control: its time-out bounds all of it, the look-up of the name included."""

from __future__ import annotations

import socket
import threading
from typing import Any

import httpx
import pytest

from ledger.errors import UpstreamError
from ledger.exchange import BoundedExchange

LONGEST_SECONDS = 20


def exchange(url: str, **parts: Any) -> BoundedExchange:
    return BoundedExchange(url, whom="the witness", media_type="text/plain", **{"timeout_seconds": 0.05, **parts})


def test_a_name_server_that_is_silent_holds_nobody_up_beyond_the_time_out(monkeypatch):
    told, answered = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[Any]:
        told.wait(LONGEST_SECONDS)
        answered.set()
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(UpstreamError, match="did not answer within"):
            exchange("http://witness.example/w").post(b"")
        assert not answered.is_set()
    finally:
        told.set()
    assert answered.wait(LONGEST_SECONDS)


def test_one_exchange_posts_as_often_as_it_is_asked():
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(request.content)))
    asked = exchange("http://witness.example/w", transport=transport, timeout_seconds=5.0)
    assert [asked.post(body).body for body in (b"1", b"2")] == [b"1", b"2"]
