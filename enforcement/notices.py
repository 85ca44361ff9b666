"""Notifications of a server, judged once for each method and stream.

The first of a method is the message of the decision; the outcome, when the stream is over, says how many passed under
it. A server that reports progress a thousand times asks nothing new the second time (ADR 0034). What stops callers,
a kill or a containment, is looked up for each: none passes while it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from enforcement.verdicts import Completion, Inbound, Permitted, Verdict
from policies.signals import Signals

__all__ = ["MAX_METHODS", "Notices"]

MAX_METHODS: Final = 32
"""Most methods of notifications in one stream; what is of yet another one does not pass."""


@dataclass(slots=True)
class _Method:
    permitted: Permitted | None
    passed: int = 0


class Notices:
    """Knows which notifications pass in one stream. Owned by the event loop."""

    def __init__(
        self,
        judge: Callable[[Inbound], Awaitable[Verdict]],
        complete: Callable[[Permitted, Completion], Awaitable[bool]],
        standing: Callable[[Permitted], str | None],
        looked: Callable[[], tuple[Signals | None, int]] = lambda: (None, 0),
        let_go: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        """Begin with nothing judged.

        Args:
            judge: Judges a message; see `enforcement.passage.Passage.judge`.
            complete: Records what became of a permitted one.
            standing: Says why a permitted one must not go on after all; see `Passage.standing_against`.
            looked: Says what inspection found in them, and how many places were redacted, where their outcome says so.
            let_go: Says how many of a method inspection has let go; None if nobody looks through them.
        """
        self._looked = looked
        self._let_go = let_go
        self._judge = judge
        self._complete = complete
        self._standing = standing
        self._methods: dict[str, _Method] = {}
        self._judging = asyncio.Lock()
        self._closed = False

    async def admits(self, method: str, first: Callable[[], Awaitable[Inbound]]) -> bool:
        """Whether a notification passes; it counts as passed if it does, and if inspection lets it go.

        Args:
            method: Its method.
            first: Returns it as a message to be judged, if it is the first of its method.
        """
        known = self._methods.get(method) or await self._judged(method, first)
        if known is None or known.permitted is None or self._closed or self._standing(known.permitted) is not None:
            return False
        known.passed += 1
        return True

    def end(self) -> bool:
        """Let nothing pass any more; tell whether `close` has anything to record."""
        self._closed = True
        return bool(self._methods) or self._judging.locked()

    async def close(self) -> None:
        """Record what passed, when the stream is over; nothing passes any more."""
        self._closed = True
        async with self._judging:  # what is being judged has its outcome too
            methods, self._methods = self._methods, {}
        for name, method in methods.items():
            if method.permitted is not None:
                signals, redacted = self._looked()
                let_go = self._let_go(name)
                passed = method.passed if let_go is None else let_go
                completion = Completion(status="completed", messages=passed, signals=signals, redacted=redacted)
                await self._complete(method.permitted, completion)

    async def _judged(self, method: str, first: Callable[[], Awaitable[Inbound]]) -> _Method | None:
        async with self._judging:  # of two firsts only one is
            known = self._methods.get(method)
            if known is None and len(self._methods) < MAX_METHODS and not self._closed:
                verdict = await self._judge(await first())
                known = self._methods[method] = _Method(verdict if isinstance(verdict, Permitted) else None)
            return known
