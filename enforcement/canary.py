"""A second bundle, evaluated in shadow: what it would have decided otherwise is recorded, and nothing else is done.

What is elsewhere: which bundle that is (`enforcement.policy_source` hears of it with the bundle in force), comparing
(`policies.shadows`).

INVARIANT: what is enforced neither waits for this nor depends on it. `Canary.offer` takes a decision that is settled
and durable, and only puts it into a queue; the queue is bounded, and so is the canary's share of the spool
(`Room.SHADOW`). What does not fit is dropped and counted; whatever fails here is counted, and never fatal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import structlog

from enforcement.batches import Batch, Item, Room
from enforcement.metrics import Metrics
from enforcement.ports import CanarySource, Unavailable
from enforcement.recorder import Recorder
from ledger import bodies
from ledger.envelopes import EnvelopeKey
from ledger.errors import LedgerError, MalformedError, PolicySyntaxError, VerificationError
from ledger.ports import Draft
from ledger.tasks import Repeating
from policies.bundles import Bundle, parse_archive
from policies.evaluate import Evaluation
from policies.model import Decision, DecisionRequest
from policies.shadows import differences
from policies.signatures import verify_signature
from policies.windows import read_windows

__all__ = ["MAX_WAITING", "Canary", "CanaryEvaluator"]

_LOG: Final = structlog.get_logger(__name__)

MAX_WAITING: Final = 512
"""Decisions that wait to be compared."""

_MAX_WAITING_CHARS: Final = 8 << 20
"""Of arguments of those that wait."""

_AT_ONCE: Final = 32
_COUNT_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 3600.0
_RETRY_SECONDS: Final = 30.0
_MAX_ENDED: Final = 16
"""Former canaries whose last counts could not be recorded yet."""

_Result: TypeAlias = Literal["equal", "different", "incomparable", "dropped", "unrecorded"]


@runtime_checkable
class CanaryEvaluator(Protocol):
    """Asks a policy, in a lane of its own; `policies.evaluate.Evaluator` is one."""

    async def evaluate_apart(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> Sequence[Evaluation]:
        """Return one evaluation for each request, in order, without holding up anybody who waits for one."""
        ...


class _Settled(NamedTuple):
    decision_id: str
    request: DecisionRequest
    decision: Decision


@dataclass(slots=True)
class _Tally:
    """What was done with one canary since that was last recorded."""

    revision: str
    equal: int = 0
    different: int = 0
    incomparable: int = 0
    dropped: int = 0
    unrecorded: int = 0

    def body(self) -> bodies.ShadowCount:
        return bodies.ShadowCount(
            revision=self.revision,
            equal=self.equal,
            different=self.different,
            incomparable=self.incomparable,
            dropped=self.dropped,
            unrecorded=self.unrecorded,
        )

    def take_off(self, told: bodies.ShadowCount) -> None:
        self.equal -= told.equal
        self.different -= told.different
        self.incomparable -= told.incomparable
        self.dropped -= told.dropped
        self.unrecorded -= told.unrecorded


@dataclass(frozen=True, slots=True)
class _Parts:
    source: CanarySource
    evaluator: CanaryEvaluator
    recorder: Recorder
    trusted: Sequence[EnvelopeKey]


class Canary:
    """Compares settled decisions with what the canary says. Owned by the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        """Compare nothing before `start`."""
        self._metrics = metrics
        self._parts: _Parts | None = None
        self._tally: _Tally | None = None  # of the canary of now
        self._ended: deque[_Tally] = deque(maxlen=_MAX_ENDED)
        self._bundle: Bundle | None = None
        self._waiting: deque[_Settled] = deque()
        self._waiting_chars = 0
        self._count_at = 0.0
        self._work = Repeating(
            "canary",
            self._turn,
            retry_seconds=_RETRY_SECONDS,
            on_failure=lambda error: _LOG.error("canary_failed", error=type(error).__name__),
        )

    @property
    def revision(self) -> str | None:
        """Revision of the canary that is at hand, so that decisions are compared with it; None if none is."""
        return None if self._bundle is None else self._bundle.revision

    def start(
        self,
        source: CanarySource,
        evaluator: CanaryEvaluator,
        recorder: Recorder,
        trusted: Sequence[EnvelopeKey] = (),
    ) -> None:
        """Begin.

        Args:
            source: Where the canary comes from.
            evaluator: Asks it.
            recorder: Makes records durable.
            trusted: Keys that must have signed it; none if nobody need have.
        """
        self._parts = _Parts(source, evaluator, recorder, tuple(trusted))
        self._work.start()

    async def stop(self) -> None:
        """End; what was not compared by now is dropped, and the counts are recorded."""
        await self._work.stop()
        self.follow(None)
        if self._parts is not None:
            await self._count_ended(self._parts)

    def follow(self, revision: str | None) -> None:
        """Take up another canary, or none."""
        if revision == (None if self._tally is None else self._tally.revision):
            return
        if self._tally is not None:
            self._add(self._tally, "dropped", len(self._waiting))
            self._ended.append(self._tally)
        self._waiting.clear()
        self._waiting_chars = 0
        self._bundle = None
        self._tally = None if revision is None else _Tally(revision)
        self._work.wake()

    def offer(self, decision_id: str, request: DecisionRequest, decision: Decision) -> None:
        """Have a decision that is settled compared, some time later."""
        tally = self._tally
        if tally is None or decision.bundle_revision == tally.revision:
            return
        chars = len(request.arguments)
        full = len(self._waiting) >= MAX_WAITING or self._waiting_chars + chars > _MAX_WAITING_CHARS
        if full or self._bundle is None:
            self._add(tally, "dropped")
            return
        self._waiting.append(_Settled(decision_id, request, decision))
        self._waiting_chars += chars
        self._work.wake()

    def _add(self, tally: _Tally, result: _Result, number: int = 1) -> None:
        setattr(tally, result, getattr(tally, result) + number)
        self._metrics.shadows.labels(result).inc(number)

    async def _turn(self) -> float:
        assert self._parts is not None  # it was started
        parts = self._parts
        await self._count_ended(parts)
        tally = self._tally
        if tally is None:
            return _RETRY_SECONDS if self._ended else _IDLE_SECONDS
        if self._bundle is None:
            bundle = await _fetch(parts, tally.revision)
            if self._tally is tally:  # it may have ended meanwhile
                self._bundle = bundle
        elif self._waiting:
            await self._compare(parts, tally, self._bundle, self._take())
        if monotonic() >= self._count_at:
            self._count_at = monotonic() + _COUNT_SECONDS
            await self._count(parts, tally)
        if self._tally is not tally or self._waiting:
            return 0.0
        return _RETRY_SECONDS if self._bundle is None else _COUNT_SECONDS

    def _take(self) -> list[_Settled]:
        taken = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        self._waiting_chars -= sum(len(item.request.arguments) for item in taken)
        return taken

    async def _compare(self, parts: _Parts, tally: _Tally, bundle: Bundle, settled: Sequence[_Settled]) -> None:
        windows = read_windows(bundle)
        asked = [item for item in settled if not windows.missing(item.request)]
        self._add(tally, "incomparable", len(settled) - len(asked))
        try:
            answers = await parts.evaluator.evaluate_apart(bundle, [item.request for item in asked])
            compared = [
                (item, answer.decision, differences(item.decision, answer.decision))
                for item, answer in zip(asked, answers, strict=True)
            ]
        except asyncio.CancelledError:
            self._add(tally, "dropped", len(asked))
            raise
        except Exception as error:  # noqa: BLE001  # whatever the evaluation makes of them: it is counted
            _LOG.error("canary_not_evaluated", revision=tally.revision, error=type(error).__name__)
            self._add(tally, "incomparable", len(asked))
            return
        drafts: list[Draft] = []
        for item, answer, fields in compared:
            if fields:
                drafts.append(_draft(item, bundle, answer, fields))
            self._add(tally, "incomparable" if fields is None else "different" if fields else "equal")
        # Each by itself, so that one that cannot be recorded takes no other along; they share a transaction.
        results = await asyncio.gather(*(_record(parts, draft) for draft in drafts))
        self._add(tally, "unrecorded", results.count(False))

    async def _count_ended(self, parts: _Parts) -> None:
        while self._ended:
            if not await self._count(parts, self._ended[0]):
                return
            self._ended.popleft()

    async def _count(self, parts: _Parts, tally: _Tally) -> bool:
        told = tally.body()
        if told == bodies.ShadowCount(revision=tally.revision):
            return True
        if not await _record(parts, Draft(body=told)):
            return False  # it goes with the next
        tally.take_off(told)
        return True


async def _record(parts: _Parts, draft: Draft) -> bool:
    """Record something where there is room for it; return whether it was."""
    item = Item(parts.recorder.new_record_id(), draft)
    try:
        await parts.recorder.record(Batch(items=(item,), room=Room.SHADOW), strict=False)
    except LedgerError as error:
        _LOG.warning("shadow_not_recorded", error=type(error).__name__)
        return False
    return True


async def _fetch(parts: _Parts, revision: str) -> Bundle | None:
    """Return the canary if it is the one that was named, loads here, and all have signed it who must."""
    archive = await parts.source.canary()
    try:
        bundle = None if isinstance(archive, Unavailable) else parse_archive(archive)
        if bundle is None or bundle.revision != revision:
            _LOG.warning("canary_not_available", revision=revision)
            return None
        read_windows(bundle)
        if parts.trusted:
            envelope = await parts.source.signature(revision)
            verify_signature(b"" if isinstance(envelope, Unavailable) else envelope, bundle, parts.trusted)
    except (MalformedError, PolicySyntaxError, VerificationError) as error:
        _LOG.error("canary_refused", revision=revision, error=type(error).__name__)
        return None
    _LOG.info("canary_taken_up", revision=revision)
    return bundle


def _draft(settled: _Settled, bundle: Bundle, answer: Decision, fields: tuple[str, ...]) -> Draft:
    reference = bodies.BundleReference(
        name=bundle.manifest.name,
        revision=bundle.revision,
        engine=answer.engine,
        engine_version=answer.engine_version,
    )
    body = bodies.Shadow(
        decision_id=settled.decision_id,
        enforced=settled.decision.effect.value,
        enforced_revision=settled.decision.bundle_revision,
        bundle=reference,
        decision=answer.effect.value,
        reason=answer.reason,
        differs=fields,
        rules=answer.rules,
        failed_condition=answer.failed_condition,
        obligations=answer.obligations,
        drift=answer.drift,
    )
    return Draft(body=body)
