"""Serving until somebody says stop: what is closed, in which order, and what is said if it cannot begin."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest
import uvicorn
from sse_starlette.sse import AppStatus

from ledger.errors import ConfigError
from service.cli.serving import listen, serve_until_stopped


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as opened:
        yield opened


class Case:
    """Notes what happens to an application, in order."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.seen: list[str] = []
        self.failing: str | None = None
        self.signal: signal.Signals | None = signal.SIGTERM

    async def note(self, name: str) -> None:
        self.seen.append(name)
        await asyncio.sleep(0)
        if self.failing == name:
            raise ConfigError(f"{name} failed")

    async def application(self, _scope: object, _receive: object, _send: object) -> None:
        raise AssertionError("nothing is asked here")

    def ready(self) -> None:
        self.seen.append("ready")
        if self.failing == "ready":
            raise RuntimeError("nobody expected this")
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)

    def run(self) -> None:
        config = uvicorn.Config(self.application, lifespan="off", log_config=None, timeout_graceful_shutdown=1)

        async def whole() -> None:
            await serve_until_stopped(
                config,
                self.listening,
                start=lambda: self.note("start"),
                stop=lambda: self.note("stop"),
                ready=self.ready,
            )
            self.seen.append("returned")

        asyncio.run(asyncio.wait_for(whole(), 20))


@pytest.fixture
def case(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Case:
    # The SDK's streams note for the whole process that a uvicorn server was told to stop, and end at once ever after.
    monkeypatch.setattr(AppStatus, "should_exit", False)
    return Case(listening)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_is_not_raised_anew(case, number):
    before = signal.getsignal(number)
    case.signal = number
    case.run()
    assert case.seen == ["start", "ready", "stop", "returned"]
    assert case.listening.fileno() == -1
    assert signal.getsignal(number) == before


def test_what_cannot_start_serves_nothing_and_is_not_stopped_either(case):
    """`start` has let go of its parts itself."""
    case.failing = "start"
    with pytest.raises(ConfigError, match="start failed"):
        case.run()
    assert case.seen == ["start"]
    assert case.listening.fileno() == -1


def test_whatever_fails_while_it_serves_it_is_stopped_in_order(case):
    case.failing = "ready"
    with pytest.raises(RuntimeError, match="nobody expected this"):
        case.run()
    assert case.seen == ["start", "ready", "stop"]
    assert case.listening.fileno() == -1


def test_a_failure_while_stopping_is_not_hidden(case):
    case.failing = "stop"
    with pytest.raises(ConfigError, match="stop failed"):
        case.run()
    assert case.listening.fileno() == -1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_free_port_is_taken_and_said(host):
    with listen(host, 0) as opened:
        assert opened.getsockname()[1] > 0


def test_a_port_that_is_taken_is_an_error_that_names_it(listening):
    port = listening.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1",  # not an address of this machine
        "no-such-host.invalid",
        "127.0.0.1.1",
        "a" * 64 + ".example",
        "\u202e",
    ],
)
def test_a_place_where_nobody_can_listen_is_one_error_of_configuration(host, monkeypatch):
    def resolve(*arguments: object, **options: object) -> object:
        if str(arguments[0]).endswith((".invalid", ".1.1")):
            raise socket.gaierror(-2, "Name or service not known")
        return real(*arguments, **options)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen(host, 0)


def test_after_a_failure_the_socket_is_closed(monkeypatch, listening):
    opened: list[socket.socket] = []
    real = socket.socket

    def remember(*arguments: object) -> socket.socket:
        made = real(*arguments)
        opened.append(made)
        return made

    monkeypatch.setattr(socket, "socket", remember)
    with pytest.raises(ConfigError):
        listen("127.0.0.1", listening.getsockname()[1])
    assert [made.fileno() for made in opened] == [-1]
