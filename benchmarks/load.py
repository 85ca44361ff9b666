"""Requests to a service: as many as it takes, or as many as are offered, and how long each took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import aiohttp
import msgspec

from benchmarks.measure import BenchmarkError

__all__ = ["Post", "offer", "saturate"]

_NDJSON = {"content-type": "application/x-ndjson"}
_TIMEOUT = aiohttp.ClientTimeout(total=120)


@dataclass(frozen=True, slots=True)
class Post:
    """A request to be sent: who sends it, what, and how many records are in it."""

    token: str
    body: bytes
    records: int


class _Results(msgspec.Struct):
    results: list[msgspec.Raw]


_DECODER = msgspec.json.Decoder(_Results)


async def _send(session: aiohttp.ClientSession, url: str, post: Post) -> None:
    headers = {**_NDJSON, "authorization": f"Bearer {post.token}"}
    async with session.post(url, data=post.body, headers=headers) as response:
        answer = await response.read()
    if response.status != 201:
        raise BenchmarkError(f"the service answered {response.status}: {answer[:300]!r}")
    if len(_DECODER.decode(answer).results) != post.records:
        raise BenchmarkError("the service did not acknowledge every record")


async def _saturate(url: str, streams: Sequence[Sequence[Post]]) -> float:
    async def one(session: aiohttp.ClientSession, stream: Sequence[Post]) -> None:
        for post in stream:
            await _send(session, url, post)

    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        started = perf_counter()
        await asyncio.gather(*(one(session, stream) for stream in streams))
        return perf_counter() - started


def saturate(url: str, streams: Sequence[Sequence[Post]]) -> float:
    """Send streams side by side, each request of a stream as soon as the one before is answered; return seconds."""
    return asyncio.run(_saturate(url, streams))


async def _offer(url: str, posts: Sequence[Post], per_second: float) -> list[float]:
    latencies: list[float] = []

    async def one(session: aiohttp.ClientSession, post: Post, due: float) -> None:
        await _send(session, url, post)
        # From when it was due, not from when it was sent: a service that falls behind must not hide it.
        latencies.append(perf_counter() - due)

    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector) as session:
        started = perf_counter()
        tasks: list[asyncio.Task[None]] = []
        for number, post in enumerate(posts):
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - perf_counter()))
            tasks.append(asyncio.create_task(one(session, post, due)))
        await asyncio.gather(*tasks)
    return latencies


def offer(url: str, posts: Sequence[Post], per_second: float) -> list[float]:
    """Send requests at a fixed rate, whatever becomes of those before; return the seconds from due to answered."""
    return asyncio.run(_offer(url, posts, per_second))
