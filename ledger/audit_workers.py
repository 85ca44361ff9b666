"""Who checks the chunks of an audit: this process, or several.

Results come back in the order of the chunks, whoever is ready first, and only a few chunks are under way at a time:
what an audit takes of memory does not grow with the log.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Protocol, TypeVar

from ledger.audit_chunks import AuditSources, CheckedChunk, Chunk, ChunkAuditor, ChunkSetup
from ledger.errors import StorageError, TallystickError

__all__ = ["AuditWorkers", "InProcess", "Processes", "in_order", "thread_map"]

_UNDER_WAY: Final = 3
"""Chunks under way for each process: one that it checks, one that waits for it, one that waits for us."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_order(executor: Executor, function: Callable[[_T], _R], items: Iterable[_T], *, window: int) -> Iterator[_R]:
    """Yield the results of a function in the order of its arguments, with a bounded number of calls under way."""
    pending: deque[Future[_R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


class AuditWorkers(Protocol):
    """Checks chunks."""

    def check(self, setup: ChunkSetup, chunks: Iterable[Chunk]) -> Iterator[CheckedChunk]:
        """Yield what each chunk came to, in order.

        Raises:
            StorageError: A store could not be read, or a process came to an end.
        """
        ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """Checks chunks one after the other, here."""

    sources: AuditSources

    def check(self, setup: ChunkSetup, chunks: Iterable[Chunk]) -> Iterator[CheckedChunk]:
        """See `AuditWorkers.check`."""
        auditor = ChunkAuditor(self.sources, setup)
        for chunk in chunks:
            yield auditor.check(chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Checks chunks in several processes, each of which opens the stores for itself.

    Attributes:
        count: How many.
        open_sources: Opens them; it is sent to each process, and what it holds with it.
        here: The same, opened in this process, which checks a few chunks faster than others begin.
        niceness: Added to the processes' niceness, so that others come first.
        few: So many chunks, or fewer, are checked here.
    """

    count: int
    open_sources: Callable[[], AuditSources]
    here: AuditSources
    niceness: int = 0
    few: int = 4

    def check(self, setup: ChunkSetup, chunks: Iterable[Chunk]) -> Iterator[CheckedChunk]:
        """See `AuditWorkers.check`."""
        rest = iter(chunks)
        first = list(islice(rest, self.few + 1))
        if len(first) <= self.few:
            yield from InProcess(self.here).check(setup, first)
            return
        yield from self._check_apart(setup, chain(first, rest))

    def _check_apart(self, setup: ChunkSetup, chunks: Iterable[Chunk]) -> Iterator[CheckedChunk]:
        # Spawned, not forked: this process may have threads, and connections that are nobody else's.
        context = multiprocessing.get_context("spawn")
        begin = (self.open_sources, setup, self.niceness)
        executor = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin, initargs=begin)
        try:
            yield from in_order(executor, _check, chunks, window=_UNDER_WAY * self.count)
        except BrokenProcessPool as error:
            raise StorageError("a process of the audit came to an end") from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


_auditor: ChunkAuditor | TallystickError | None = None
"""Of a process of `Processes`: made once, when it begins."""


def _begin(open_sources: Callable[[], AuditSources], setup: ChunkSetup, niceness: int) -> None:
    global _auditor  # noqa: PLW0603  # the only thing that an initializer can leave behind
    if niceness:
        os.nice(niceness)
    try:
        _auditor = ChunkAuditor(open_sources(), setup)
    except TallystickError as error:
        # Told by the first chunk: an initializer that raises leaves nothing but a broken pool.
        _auditor = error


def _check(chunk: Chunk) -> CheckedChunk:
    if isinstance(_auditor, TallystickError):
        raise _auditor
    assert _auditor is not None
    return _auditor.check(chunk)


def thread_map(function: Callable[[_T], _R], items: Iterable[_T], *, threads: int) -> Iterator[_R]:
    """Yield the results of a function that mostly waits, in the order of its arguments."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="audit") as executor:
        yield from in_order(executor, function, items, window=2 * threads)
