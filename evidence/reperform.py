"""Re-performance: every decision of the period, made again under its own bundle.

Whether a decision can be made again exactly is `policies.replay`'s to say; here decisions are taken in leaf order, in
batches, and grouped by bundle. The request of a decision is opened from the vault by a function that is given, which
checks it against the leaf's commitment; a payload that is gone leaves the decision listed as erased.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from evidence.replays import ReplayLine
from ledger.bodies import Decision
from ledger.errors import ErasedError, NotFoundError
from ledger.records import Record
from policies.bundles import Bundle
from policies.evaluate import Evaluator
from policies.replay import RecordedDecision, ReplayClass, ReplayResult, replay_many

__all__ = ["OpenRequest", "reperform"]

OpenRequest = Callable[[Record], bytes]
"""Opens the payload of a decision's field ``request`` and checks it against the leaf's commitment.

It raises `ErasedError` or `NotFoundError` where the payload is gone. Anything else that it raises ends the making of
the pack: a payload that does not open its commitment is no gap, it is a finding.
"""

_BATCH: Final = 256
_MAX_EXPLANATION: Final = 300
_Located = tuple[int, Record]


def _open(record: Record, body: Decision, open_request: OpenRequest) -> bytes | None:
    if body.request is None:
        return None
    try:
        return open_request(record)
    except (ErasedError, NotFoundError):
        return None


def _line(leaf: int, result: ReplayResult) -> ReplayLine:
    return ReplayLine(
        leaf=leaf,
        classification=result.classification.value,
        same=result.same,
        differences=result.differences,
        explanation=result.explanation[:_MAX_EXPLANATION],
    )


def _unreplayed(leaf: int, explanation: str) -> ReplayLine:
    return ReplayLine(leaf=leaf, classification=ReplayClass.MISSING_FACT.value, explanation=explanation)


def _opened(group: Sequence[_Located], open_request: OpenRequest) -> list[RecordedDecision]:
    originals = []
    for _, record in group:
        body = record.body
        assert isinstance(body, Decision)  # only decisions are grouped
        request = _open(record, body, open_request)
        originals.append(RecordedDecision(record_id=record.record_id, body=body, request=request))
    return originals


async def _replay_group(
    group: Sequence[_Located], bundle: Bundle, open_request: OpenRequest, evaluator: Evaluator
) -> list[ReplayLine]:
    originals = await asyncio.to_thread(_opened, group, open_request)
    results = await replay_many(originals, bundle, evaluator)
    return [_line(leaf, result) for (leaf, _), result in zip(group, results, strict=True)]


async def _replay_batch(
    batch: Sequence[_Located], bundles: Mapping[str, Bundle], open_request: OpenRequest, evaluator: Evaluator
) -> list[ReplayLine]:
    lines: list[ReplayLine] = []
    groups: defaultdict[str, list[_Located]] = defaultdict(list)
    for leaf, record in batch:
        body = record.body
        assert isinstance(body, Decision)  # the caller gives decisions only
        if body.bundle is None:
            lines.append(_unreplayed(leaf, f"no policy was asked ({body.reason})"))
        elif body.bundle.revision not in bundles:
            lines.append(_unreplayed(leaf, "no copy of the bundle is at hand"))
        else:
            groups[body.bundle.revision].append((leaf, record))
    for revision, group in groups.items():
        lines += await _replay_group(group, bundles[revision], open_request, evaluator)
    return sorted(lines, key=lambda line: line.leaf)


def _batches(decisions: Iterator[_Located]) -> Iterator[list[_Located]]:
    while batch := list(islice(decisions, _BATCH)):
        yield batch


async def reperform(
    decisions: Iterable[_Located],
    bundles: Mapping[str, Bundle],
    open_request: OpenRequest,
    evaluator: Evaluator,
    progress: Callable[[int], None],
) -> list[ReplayLine]:
    """Make decisions again, each under the bundle that it names.

    Args:
        decisions: Leaf and record of each, in leaf order.
        bundles: Bundles at hand, by revision.
        open_request: See `OpenRequest`; called in another thread.
        evaluator: Evaluates bundles.
        progress: Called with the number of decisions done.

    Returns:
        One line for each, in leaf order.

    Raises:
        CommitmentError: A payload does not open the commitment of its leaf.
    """
    lines: list[ReplayLine] = []
    batches = _batches(iter(decisions))
    # Reading the decisions may block, too.
    while batch := await asyncio.to_thread(next, batches, None):
        lines += await _replay_batch(batch, bundles, open_request, evaluator)
        progress(len(lines))
    return lines
