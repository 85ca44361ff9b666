"""MCP callers: raw HTTP, one connection each, every call sent when the one before is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from benchmarks.measure import BenchmarkError
from tests.support.mcp_messages import body_of, headers_of

__all__ = ["Way", "one_by_one", "saturated", "soaked", "streamed"]

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_TOOL = "refund_customer"
_EVENTS = 2
"""What the stub's streams have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way for a call to go.

    Attributes:
        name: What it is called.
        url: Where it begins.
        token: What the caller presents.
        amount: What it asks for; the policy refuses more than 500.
        allowed: Whether the call must arrive.
        note: What else it says; the stub answers some by a stream.
    """

    name: str
    url: str
    token: str
    amount: int = 12
    allowed: bool = True
    note: str = "a benchmark"

    def headers(self) -> dict[str, str]:
        """Return the header lines."""
        return {name.decode(): value.decode() for name, value in headers_of(name=_TOOL, token=self.token)}

    def body(self, number: int) -> bytes:
        """Return the message of one call."""
        return body_of(name=_TOOL, arguments={"amount": self.amount, "note": self.note}, request_id=number)


async def _call(session: aiohttp.ClientSession, way: Way, number: int) -> None:
    async with session.post(way.url, data=way.body(number), headers=way.headers()) as response:
        answer = await response.json()
    if ("result" in answer) is not way.allowed or answer.get("id") != number:
        raise BenchmarkError(f"{way.name}: {response.status} {answer}")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=_TIMEOUT, connector=aiohttp.TCPConnector(limit=0))


async def one_by_one(way: Way, count: int) -> list[float]:
    """Call a way, one call at a time; return the milliseconds of each call.

    One more call goes ahead, which opens the connection and is not counted.
    """
    taken: list[float] = []
    async with _session() as session:
        await _call(session, way, 0)
        for number in range(1, count + 1):
            started = perf_counter()
            await _call(session, way, number)
            taken.append(1000 * (perf_counter() - started))
    return taken


async def saturated(way: Way, *, callers: int, seconds: float) -> tuple[int, float]:
    """Let callers call one way for a while; return how many calls were answered, and in how many seconds."""
    done = 0

    async def one(session: aiohttp.ClientSession, end: float) -> None:
        nonlocal done
        while perf_counter() < end:
            await _call(session, way, done)
            done += 1

    async with _session() as session:
        started = perf_counter()
        await asyncio.gather(*(one(session, started + seconds) for _ in range(callers)))
        return done, perf_counter() - started


async def soaked(way: Way, *, callers: int, count: int) -> list[float]:
    """Let callers make so many calls of one way; return the milliseconds of each, in the order in which they ended."""
    taken: list[float] = []
    numbers = iter(range(count))

    async def one(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            started = perf_counter()
            await _call(session, way, number)
            taken.append(1000 * (perf_counter() - started))

    async with _session() as session:
        await asyncio.gather(*(one(session) for _ in range(callers)))
    return taken


async def _stream(session: aiohttp.ClientSession, way: Way, number: int) -> float:
    """Make a call that is answered by a stream; return the milliseconds until its first event was there."""
    started, first = perf_counter(), None
    events = bytearray()
    async with session.post(way.url, data=way.body(number), headers=way.headers()) as response:
        async for chunk in response.content.iter_any():
            events += chunk.replace(b"\r", b"")
            if first is None and b"\n\n" in events:
                first = 1000 * (perf_counter() - started)
    if first is None or events.count(b"\n\n") != _EVENTS or b'"result"' not in events:
        raise BenchmarkError(f"{way.name}: {response.status}, no stream of {_EVENTS} events")
    return first


async def streamed(way: Way, *, callers: int, each: int) -> list[float]:
    """Let callers make calls that are answered by streams; return the milliseconds to each first event.

    Every caller makes one more call ahead, which opens its connection and is not counted.
    """
    taken: list[float] = []

    async def one(session: aiohttp.ClientSession, place: int) -> None:
        for number in range(each + 1):
            first = await _stream(session, way, place * (each + 1) + number)
            if number:
                taken.append(first)

    async with _session() as session:
        await asyncio.gather(*(one(session, place) for place in range(callers)))
    return taken
