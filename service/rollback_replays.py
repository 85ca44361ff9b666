"""What a rollback would let through: the denials of the last day, replayed under the bundle that it leads to.

Only what was denied can be let through by another bundle, so that only denials are replayed. A denial that the
enforcement point made by itself stays one under any bundle. What cannot be replayed is counted as unknown: it speaks
neither for the rollback nor against it, and one person alone does not decide by it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ledger.catalog import MAX_PAGE, Catalog, DecisionQuery
from ledger.clock import Clock
from ledger.reader import EntryReader
from ledger.vault import Vault
from policies.bundle_lives import Foresight
from policies.bundles import Bundle
from policies.evaluate import Evaluator, Reason
from policies.model import Effect
from policies.replay import replay_many
from policies.replay_results import RecordedDecision, ReplayClass, ReplayResult
from service.replays import recorded_decision

__all__ = ["RollbackReplays"]

_DAY_MS: Final = 86_400_000
_MAX_REPLAYED: Final = 50_000
_DENIALS: Final = (Effect.DENY, Effect.INDETERMINATE, Effect.NOT_APPLICABLE)
_KNOWN: Final = frozenset({ReplayClass.EXACT, ReplayClass.ENGINE_CHANGED})
_NO_ANSWER: Final = frozenset({Reason.ENGINE_ERROR, Reason.LIMITED, Reason.BUNDLE_ERROR})


class RollbackReplays:
    """Replays denials of one log. Methods belong to one event loop."""

    def __init__(
        self, log_id: str, *, catalog: Catalog, reader: EntryReader, vault: Vault, evaluator: Evaluator, clock: Clock
    ) -> None:
        """Take the log's parts."""
        self._log_id = log_id
        self._catalog = catalog
        self._reader = reader
        self._vault = vault
        self._evaluator = evaluator
        self._clock = clock

    async def __call__(self, bundle: Bundle) -> Foresight:
        """Return what a bundle would have made of the denials of the last 24 hours.

        Raises:
            StorageError: A store failed.
        """
        replayed = loosened = unknown = 0
        from_ms = self._clock.now_ms() - _DAY_MS
        for effect in _DENIALS:
            before: int | None = None
            while True:
                query = DecisionQuery(from_ms=from_ms, decision=effect, before=before, limit=MAX_PAGE)
                found = await asyncio.to_thread(self._catalog.search, self._log_id, query)
                if not found:
                    break
                before = found[-1]
                if replayed + len(found) > _MAX_REPLAYED:
                    # The rest is not looked at, and nobody may say what would become of it.
                    unknown += len(found)
                    break
                page = await asyncio.to_thread(self._judged, found)
                results = await replay_many(page, bundle, self._evaluator)
                replayed += len(results)
                loosened += sum(_is_permitted(result) for result in results)
                unknown += sum(_is_unknown(result) for result in results)
        return Foresight(replayed, loosened, unknown)

    def _judged(self, leaves: list[int]) -> list[RecordedDecision]:
        """Return those decisions that a policy was asked about."""
        originals = [recorded_decision(self._reader.record(leaf), self._vault) for leaf in leaves]
        return [one for one in originals if one.body.bundle is not None and one.body.request is not None]


def _is_permitted(result: ReplayResult) -> bool:
    return result.replayed is not None and result.replayed.effect == Effect.PERMIT


def _is_unknown(result: ReplayResult) -> bool:
    if result.replayed is None or result.replayed.reason in _NO_ANSWER:
        return True
    return result.classification not in _KNOWN and not _is_permitted(result)
