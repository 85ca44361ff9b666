"""Many small appends of one process as few: whoever waits for the recorder takes along what came meanwhile.

The service's recorder writes one batch after the other, since its records are numbered; a batch is a transaction of the
database. Decisions that are asked for side by side would each wait for all before it. Here the first one writes, and
those that come while it does are one batch together, written by the first of them.

INVARIANT 1: an append returns when its own records are durable. A batch that fails, fails for everyone in it: a failure
that is not known to have left nothing may be told to nobody as success.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.ports import Acknowledgement, Draft, RecordSink

__all__ = ["GroupedSink"]

_MAX_GROUP: Final = 512
"""Drafts of one batch; a single larger append goes alone."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    drafts: Sequence[Draft]
    done: asyncio.Future[list[Acknowledgement]]


class GroupedSink:
    """A `RecordSink` that writes what waits together; methods belong to one event loop."""

    def __init__(self, sink: RecordSink) -> None:
        """Write through ``sink``."""
        self._sink = sink
        self._turn = asyncio.Lock()
        self._waiting: deque[_Waiting] = deque()

    async def append(self, drafts: Sequence[Draft]) -> list[Acknowledgement]:
        """See `RecordSink.append`; drafts of one call stay together and in order."""
        mine = _Waiting(drafts, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        # A caller that goes away leaves its drafts to whoever comes next, or finishes what it began for the others.
        return await asyncio.shield(asyncio.create_task(self._take_turn(mine)))

    async def _take_turn(self, mine: _Waiting) -> list[Acknowledgement]:
        async with self._turn:
            if not mine.done.done():
                await self._write(self._next_group())
        return mine.done.result()

    def _next_group(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        size = len(group[0].drafts)
        while self._waiting and size + len(self._waiting[0].drafts) <= _MAX_GROUP:
            group.append(self._waiting.popleft())
            size += len(group[-1].drafts)
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            done = iter(await self._sink.append([draft for one in group for draft in one.drafts]))
        except Exception as error:  # noqa: BLE001  # every caller in the group is told, and judges it
            for one in group:
                one.done.set_exception(error)
            return
        for one in group:
            one.done.set_result([next(done) for _ in one.drafts])
