"""The walk of an impact: decisions in log order, evaluated page by page, counted by `policies.impact`.

Where the decisions come from, and who records that they were opened, is the caller's. A page is evaluated under one
bundle, or each decision under its own; its results are taken in in log order, whatever order they were evaluated in.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, TypeVar

from ledger.errors import UnknownBundleError
from ledger.tasks import end
from policies.bundles import Bundle
from policies.evaluate import Evaluator
from policies.impact import Impact, ImpactLine, Located
from policies.recomputed import Rebuilt
from policies.replay import replay_many
from policies.replay_results import ReplayResult
from policies.windows import read_windows

__all__ = ["Ended", "FindBundle", "ImpactWalk", "Step"]

_MAX_BUNDLES: Final = 64

FindBundle: TypeAlias = Callable[[str], Awaitable[Bundle]]
"""Returns the bundle of a revision, or raises `UnknownBundleError`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A session ended here.

    Attributes:
        session: Its pseudonym.
    """

    session: str


Step: TypeAlias = Located | Ended
"""What a walk needs to see of a log, in log order."""


class _Page(Protocol):
    """What a walk needs of a page.

    Attributes:
        steps: In log order.
    """

    @property
    def steps(self) -> Sequence[Step]: ...


_P = TypeVar("_P", bound=_Page)


class ImpactWalk:
    """Evaluates pages and feeds an `Impact`; one task owns it."""

    def __init__(self, impact: Impact, evaluator: Evaluator, find: FindBundle, *, candidate: Bundle | None) -> None:
        """Begin, or, with facts as recorded, go on.

        Args:
            impact: Takes the results.
            evaluator: Evaluates.
            find: Finds the bundles of then.
            candidate: The bundle that all decisions are made again under; None for each under its own.

        Raises:
            PolicySyntaxError: State is recomputed, and the bundle's windows cannot be read.
        """
        self.impact = impact
        self._evaluator = evaluator
        self._find = find
        self._candidate = candidate
        self._bundles: OrderedDict[str, Bundle | None] = OrderedDict()
        self._rebuilt: Rebuilt | None = None
        if impact.state == "recomputed" and candidate is not None:
            self._rebuilt = Rebuilt(read_windows(candidate), impact.read_from_ms)

    async def take(self, page: Sequence[Step]) -> list[ImpactLine]:
        """Take in the next page; returns the lines of those decisions that did not come out exactly as recorded.

        Raises:
            PolicyError: Too many sessions are to be told apart.
            LedgerError: A bundle could not be read.
        """
        return await self._count(page, await self._evaluate(page))

    async def over(self, pages: AsyncIterable[_P]) -> AsyncGenerator[tuple[_P, list[ImpactLine]]]:
        """Take in pages; yields each with its lines. While one is counted, the next is evaluated.

        Raises:
            PolicyError: Too many sessions are to be told apart.
            LedgerError: A bundle, or the log, could not be read.
        """
        ahead: tuple[_P, asyncio.Task[list[ReplayResult]]] | None = None
        try:
            async for page in pages:
                behind, ahead = ahead, (page, asyncio.create_task(self._evaluate(page.steps)))
                if behind is not None:
                    yield behind[0], await self._count(behind[0].steps, await behind[1])
            if ahead is not None:
                yield ahead[0], await self._count(ahead[0].steps, await ahead[1])
        finally:
            await end(None if ahead is None else ahead[1])

    async def _evaluate(self, page: Sequence[Step]) -> list[ReplayResult]:
        """Return what comes of decisions; of none where state is recomputed: each waits for those before it."""
        if self._rebuilt is not None:
            return []
        return await self._evaluated([step for step in page if isinstance(step, Located)])

    async def _count(self, page: Sequence[Step], results: Sequence[ReplayResult]) -> list[ImpactLine]:
        if self._rebuilt is not None:
            return await self._take_rebuilt(page, self._rebuilt)
        # A page of lines is too long for an event loop that others wait for.
        return await asyncio.to_thread(self._counted, page, results)

    def _counted(self, page: Sequence[Step], results: Iterable[ReplayResult]) -> list[ImpactLine]:
        remaining = iter(results)
        lines: list[ImpactLine] = []
        for step in page:
            if isinstance(step, Ended):
                self.impact.end_session(step.session)
            elif (line := self.impact.take(step, next(remaining))) is not None:
                lines.append(line)
        return lines

    async def _take_rebuilt(self, page: Sequence[Step], rebuilt: Rebuilt) -> list[ImpactLine]:
        """Take in a page in waves: in each, calls none of which depends on what comes of another."""
        lines: list[ImpactLine] = []
        wave: list[Located] = []
        depends: set[Hashable] = set()
        for step in page:
            wanted = {("session", step.session)} if isinstance(step, Ended) else rebuilt.depends_on(step)
            if not depends.isdisjoint(wanted):
                lines += await self._wave(wave, rebuilt)
                wave, depends = [], set()
            if isinstance(step, Ended):
                rebuilt.end_session(step.session)
            else:
                wave.append(step)
                depends |= wanted
        return lines + await self._wave(wave, rebuilt)

    async def _wave(self, wave: Sequence[Located], rebuilt: Rebuilt) -> list[ImpactLine]:
        if not wave or self._candidate is None:
            return []
        stated = await asyncio.to_thread(lambda: [rebuilt.restated(located) for located in wave])
        results = await replay_many([original for original, _ in stated], self._candidate, self._evaluator)
        lines: list[ImpactLine] = []
        for located, (_, doubt), result in zip(wave, stated, results, strict=True):
            rebuilt.settle(located, result)
            if (line := self.impact.take(located, result, doubt)) is not None:
                lines.append(line)
        return lines

    async def _evaluated(self, decisions: Sequence[Located]) -> list[ReplayResult]:
        originals = [located.original for located in decisions]
        if self._candidate is not None:
            return await replay_many(originals, self._candidate, self._evaluator)
        groups: dict[str | None, list[int]] = {}
        for position, original in enumerate(originals):
            own = None if original.body.bundle is None else original.body.bundle.revision
            groups.setdefault(own, []).append(position)
        results: dict[int, ReplayResult] = {}
        for revision, positions in groups.items():
            bundle = None if revision is None else await self._bundle(revision)
            replayed = await replay_many([originals[position] for position in positions], bundle, self._evaluator)
            results.update(zip(positions, replayed, strict=True))
        return [results[position] for position in range(len(originals))]

    async def _bundle(self, revision: str) -> Bundle | None:
        if revision in self._bundles:
            self._bundles.move_to_end(revision)
            return self._bundles[revision]
        try:
            found = await self._find(revision)
        except UnknownBundleError:
            # A decision that names a bundle of which no copy is at hand cannot be made again: it is told apart.
            found = None
        self._bundles[revision] = found
        if len(self._bundles) > _MAX_BUNDLES:
            self._bundles.popitem(last=False)
        return found
