"""Replay: a recorded decision, made again under the same bundle or another.

A decision is a function of bundle and request, and the record's vaulted request holds every fact, so evaluating it
again answers two questions: did the policy of then really say what the record says, and what would another policy have
said? Where no exact answer exists, the result says why, by class, and nothing is guessed.

Whether the opened request is the one that the leaf commits to is the caller's to establish
(`ledger.commitments.open_commitment`); whether the replay is itself recorded, too. That the request is of the call that
the leaf speaks of is looked at here: a decision about another call is not the same decision.

INVARIANT 8: replay is a function of (bundle, recorded request).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET

from ledger.bodies import Decision as DecisionBody
from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import Bundle
from policies.evaluate import Evaluator, Reason
from policies.model import Decision, DecisionRequest, decode_request, public_facts
from policies.replay_results import DecisionSummary, RecordedDecision, ReplayClass, ReplayResult
from policies.signals import SIGNALS
from policies.windows import read_windows

__all__ = [
    "COMPARED_FIELDS",
    "LIMITS",
    "UNREPLAYABLE",
    "DecisionSummary",
    "RecordedDecision",
    "ReplayClass",
    "ReplayResult",
    "differing_fields",
    "replay",
    "replay_many",
    "summary_of",
]

UNREPLAYABLE: Final = frozenset({"opa_server"})
"""Engines whose answers depend on more than bundle and request."""

COMPARED_FIELDS: Final = ("effect", "rules", "failed_condition", "obligations", "drift", "reason")
"""What two decisions are compared by; the reason last, for it may be the enforcement point's."""

# The enforcement point has reasons of its own (``ledger_unavailable``, …), in whose place the engine's is not recorded.
_ENGINE_REASONS: Final = frozenset(Reason)
# With these the engine has given no answer of its own: a limit struck, or it failed.
LIMITS: Final = frozenset({Reason.ENGINE_ERROR, Reason.LIMITED})
_ASKS_OUTSIDE: Final = "an OPA server decides by what it holds when it is asked, and that is in no record"


def _recorded(body: DecisionBody) -> DecisionSummary:
    bundle = body.bundle
    return DecisionSummary(
        effect=body.decision,
        rules=body.rules,
        failed_condition=body.failed_condition,
        obligations=body.obligations,
        reason=body.reason,
        bundle_revision=None if bundle is None else bundle.revision,
        engine=None if bundle is None else bundle.engine,
        engine_version=None if bundle is None else bundle.engine_version,
        drift=body.drift,
    )


def summary_of(decision: Decision) -> DecisionSummary:
    """Return what a decision that was just made is compared by."""
    return DecisionSummary(
        effect=decision.effect,
        rules=decision.rules,
        failed_condition=decision.failed_condition,
        obligations=decision.obligations,
        reason=decision.reason,
        bundle_revision=decision.bundle_revision,
        engine=decision.engine,
        engine_version=decision.engine_version,
        drift=decision.drift,
    )


def differing_fields(original: DecisionSummary, replayed: DecisionSummary) -> tuple[str, ...]:
    """Return which of the compared fields differ; the reason counts where the original's is an engine's."""
    fields = COMPARED_FIELDS if original.reason in _ENGINE_REASONS else COMPARED_FIELDS[:-1]
    return tuple(name for name in fields if getattr(original, name) != getattr(replayed, name))


def _contradictions(body: DecisionBody, request: DecisionRequest) -> tuple[str, ...]:
    """Return what the record says of its call in the open and the request that was evaluated says otherwise."""
    said: list[tuple[str, object, object]] = [
        ("agent", body.agent, request.principal.agent),
        ("server", body.server, request.resource.server),
        ("tags", body.tags, request.resource.tags),
    ]
    # Absent from a record where they are no names.
    if body.method is not None:
        said.append(("method", body.method, request.action))
    if body.tool is not None:
        said.append(("tool", body.tool, request.resource.name))
    if body.facts is not None:
        facts = public_facts(request)
        said += [(name, getattr(body.facts, name), getattr(facts, name)) for name in facts.__struct_fields__]
    return tuple(name for name, recorded, evaluated in said if recorded != evaluated)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How far a replay can be relied on, and why no further."""

    classification: ReplayClass
    explanation: str = ""


def _request_of(original: RecordedDecision) -> DecisionRequest | _Standing:
    """Return the request to evaluate, or why there is none."""
    body = original.body
    if body.bundle is None:
        told = f"no policy was asked: the enforcement point refused the message itself ({body.reason})"
        return _Standing(ReplayClass.MISSING_FACT, told)
    if body.capture is not None:
        told = f"withheld before it was recorded: the call's arguments (capture: {body.capture})"
        return _Standing(ReplayClass.MASKED, told)
    if body.request is None:
        return _Standing(ReplayClass.MISSING_FACT, f"no request could be built from the message ({body.reason})")
    if original.request is None or original.withheld:
        return _absent(original)
    try:
        return decode_request(original.request)
    except MalformedError:
        return _Standing(ReplayClass.MISSING_FACT, "the recorded request is not of a version that this program reads")


def _with_windows_known(
    bundle: Bundle, requests: Sequence[DecisionRequest | _Standing]
) -> list[DecisionRequest | _Standing]:
    """Return the requests that hold what a bundle's windows ask for; for others, why they cannot be evaluated.

    What another declaration measured under the same name is not taken for it (invariant 8).
    """
    try:
        windows = read_windows(bundle)
    except PolicySyntaxError:  # it does not load, which is what the evaluation will say
        return list(requests)
    checked: list[DecisionRequest | _Standing] = []
    for item in requests:
        missing = () if isinstance(item, _Standing) else windows.missing(item)
        told = f"the request does not say what the bundle's windows ask for ({', '.join(missing)})"
        checked.append(_Standing(ReplayClass.MISSING_FACT, told) if missing else item)
    return checked


def _absent(original: RecordedDecision) -> _Standing:
    if original.damaged:
        return _Standing(ReplayClass.MISSING_FACT, "the request's payload is lost or damaged; an audit says which")
    if original.withheld:
        told = f"withheld before it was recorded: {', '.join(original.withheld)}"
        return _Standing(ReplayClass.MASKED, told)
    return _Standing(ReplayClass.ERASED, "the request's payload is gone; the record only commits to it")


def _standing(original: DecisionSummary, replayed: DecisionSummary) -> _Standing:
    failed = [when for when, summary in (("then", original), ("now", replayed)) if summary.reason in LIMITS]
    if failed:
        return _Standing(ReplayClass.LIMITED, f"the engine failed or was stopped {' and '.join(failed)}")
    if (original.engine, original.engine_version) != (replayed.engine, replayed.engine_version):
        told = (
            f"decided by {original.engine} {original.engine_version}, "
            f"replayed by {replayed.engine} {replayed.engine_version}"
        )
        return _Standing(ReplayClass.ENGINE_CHANGED, told)
    return _Standing(ReplayClass.EXACT)


def _not_replayed(original: RecordedDecision, standing: _Standing) -> ReplayResult:
    return ReplayResult(
        record_id=original.record_id,
        classification=standing.classification,
        explanation=standing.explanation,
        same=None,
        differences=(),
        original=_recorded(original.body),
        replayed=None,
    )


def _lacks_signals(original: RecordedDecision, request: DecisionRequest, decision: Decision) -> bool:
    """Tell whether a bundle asks for signals that a request of another bundle's time does not hold.

    Under its own bundle the same request was refused for the same reason, and that is its exact replay.
    """
    bundle = original.body.bundle
    refused = (decision.reason, decision.detail) == (Reason.REQUEST_ERROR, SIGNALS)
    return refused and request.signals is UNSET and (bundle is None or bundle.revision != decision.bundle_revision)


def _replayed(original: RecordedDecision, request: DecisionRequest, decision: Decision) -> ReplayResult:
    if _lacks_signals(original, request, decision):
        told = "the bundle reads signals, and the request says nothing of what safeguards found"
        return _not_replayed(original, _Standing(ReplayClass.MISSING_FACT, told))
    recorded, replayed = _recorded(original.body), summary_of(decision)
    standing = _standing(recorded, replayed)
    differences = differing_fields(recorded, replayed) + _contradictions(original.body, request)
    return ReplayResult(
        record_id=original.record_id,
        classification=standing.classification,
        explanation=standing.explanation,
        same=not differences,
        differences=differences,
        original=recorded,
        replayed=replayed,
        session_started_ms=request.state.started_ms if request.state.calls else None,
    )


async def replay_many(
    originals: Sequence[RecordedDecision], bundle: Bundle | None, evaluator: Evaluator
) -> list[ReplayResult]:
    """Make recorded decisions again under a bundle; one result for each, in order.

    A bundle that does not load denies every request (``bundle_error``), as it would have done then; to hear why, ask
    `Evaluator.check` first.

    Args:
        originals: The recorded decisions.
        bundle: The bundle of then, or any other; None if there is none, so that nothing can be evaluated. Under its
            bundle of then a decision is made by the engine of then, if that version is installed or in the cellar.
        evaluator: Evaluates it.
    """
    # Reading many requests is too long for an event loop that others wait for; so is comparing.
    found = await asyncio.to_thread(lambda: [_request_of(original) for original in originals])
    if bundle is None:
        absent = _Standing(ReplayClass.MISSING_FACT, "there is no bundle to replay under")
        return [
            _not_replayed(original, item if isinstance(item, _Standing) else absent)
            for original, item in zip(originals, found, strict=True)
        ]
    engine = bundle.manifest.engine
    versions = await asyncio.to_thread(evaluator.engine_versions, engine)  # for the cellar is files
    if not versions:
        absent = _Standing(ReplayClass.ENGINE_CHANGED, f"no engine named {engine} is installed")
        found = [item if isinstance(item, _Standing) else absent for item in found]
    if engine in UNREPLAYABLE:
        absent = _Standing(ReplayClass.MISSING_FACT, _ASKS_OUTSIDE)
        found = [item if isinstance(item, _Standing) else absent for item in found]
    found = await asyncio.to_thread(_with_windows_known, bundle, found)
    decisions = await _decisions(originals, found, bundle, evaluator, versions)
    return await asyncio.to_thread(_results, originals, found, decisions)


def _results(
    originals: Sequence[RecordedDecision],
    found: Sequence[DecisionRequest | _Standing],
    decisions: Mapping[int, Decision],
) -> list[ReplayResult]:
    return [
        _not_replayed(original, item) if isinstance(item, _Standing) else _replayed(original, item, decisions[place])
        for place, (original, item) in enumerate(zip(originals, found, strict=True))
    ]


def _engine_of_then(original: RecordedDecision, bundle: Bundle, versions: Sequence[str]) -> str | None:
    """Return the recorded engine's version if the bundle is the recorded one and that version is there; else None."""
    then = original.body.bundle
    if then is None or (then.revision, then.engine) != (bundle.revision, bundle.manifest.engine):
        return None
    return then.engine_version if then.engine_version in versions else None


async def _decisions(
    originals: Sequence[RecordedDecision],
    found: Sequence[DecisionRequest | _Standing],
    bundle: Bundle,
    evaluator: Evaluator,
    versions: Sequence[str],
) -> dict[int, Decision]:
    """Evaluate what can be, under its bundle of then by its engine of then if there is one; return it by place."""
    groups: dict[str | None, list[tuple[int, DecisionRequest]]] = {}
    for place, (original, item) in enumerate(zip(originals, found, strict=True)):
        if isinstance(item, DecisionRequest):
            groups.setdefault(_engine_of_then(original, bundle, versions), []).append((place, item))
    decisions: dict[int, Decision] = {}
    for version, group in groups.items():
        requests = [request for _, request in group]
        evaluations = await evaluator.evaluate_many(bundle, requests, engine_version=version)
        for (place, _), evaluation in zip(group, evaluations, strict=True):
            decisions[place] = evaluation.decision
    return decisions


async def replay(original: RecordedDecision, bundle: Bundle, evaluator: Evaluator) -> ReplayResult:
    """Make one recorded decision again under a bundle; see `replay_many`."""
    (result,) = await replay_many([original], bundle, evaluator)
    return result
