"""Recorded history for tests of replay and impact: what a gateway would have recorded of requests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from ledger.bodies import BundleReference, Commitment
from ledger.bodies import Decision as DecisionBody
from policies.bundles import Bundle
from policies.courses import enforced
from policies.evaluate import Evaluator
from policies.impact import Located
from policies.model import Decision, DecisionRequest, encode_request, public_facts
from policies.replay_results import RecordedDecision

COMMITMENT = Commitment(digest="0" * 64, size_bytes=0)


def session_pseudonym(session: str) -> str:
    """Return what stands for a session in records."""
    return hashlib.sha256(session.encode()).hexdigest()[:32]


def decision_body(
    decision: Decision, request: DecisionRequest, *, request_commitment: Commitment = COMMITMENT, name: str = "test"
) -> DecisionBody:
    """Return the record's body of a decision that was just made and enforced."""
    return DecisionBody(
        agent=request.principal.agent,
        server=request.resource.server,
        decision=decision.effect.value,  # type: ignore[arg-type]
        enforcement=enforced(decision.effect, decision.obligations),  # type: ignore[arg-type]
        mode="enforce",
        reason=decision.reason,
        evaluation_us=1,
        session=session_pseudonym(request.state.session),
        message=COMMITMENT,
        method=request.action,
        tool=request.resource.name,
        tags=request.resource.tags,
        facts=public_facts(request),
        bundle=BundleReference(
            name=name,
            revision=decision.bundle_revision,
            engine=decision.engine,
            engine_version=decision.engine_version,
        ),
        rules=decision.rules,
        failed_condition=decision.failed_condition,
        obligations=decision.obligations,
        request=request_commitment,
    )


def recorded_decisions(evaluator: Evaluator, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Located]:
    """Return what is recorded of requests that a bundle decided, one leaf after another."""
    evaluations = asyncio.run(evaluator.evaluate_many(bundle, requests))
    return [
        Located(
            leaf,
            request.time.now_ms,
            RecordedDecision(
                record_id=f"00000000-0000-7000-8000-{leaf:012x}",
                body=decision_body(evaluation.decision, request),
                request=encode_request(request),
            ),
        )
        for leaf, (request, evaluation) in enumerate(zip(requests, evaluations, strict=True))
    ]
