"""Recorded history for tests of replay and impact: what a gateway would have recorded of requests."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ledger.bodies import BundleReference
from ledger.bodies import Decision as DecisionBody
from ledger.body_fields import Commitment
from ledger.commitments import SALT_BYTES
from ledger.ports import Opening, commit
from ledger.records import Record
from policies.bundles import Bundle
from policies.courses import enforced
from policies.evaluate import Evaluator
from policies.impact import Located
from policies.model import Decision, DecisionRequest, encode_request, public_facts
from policies.replay_results import RecordedDecision

if TYPE_CHECKING:
    from tests.support.service import EnforcerClient

_POSTED = 1000

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
        user=None if request.principal.user is None else session_pseudonym(f"user {request.principal.user}"),
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


def post_history(
    enforcer: EnforcerClient, evaluator: Evaluator, bundle: Bundle, requests: Sequence[DecisionRequest]
) -> list[str]:
    """Let a bundle decide requests, and post the records of it; each record has its request's time.

    Returns:
        The decisions' ids, in order.
    """
    evaluations = asyncio.run(evaluator.evaluate_many(bundle, requests))
    batch: list[tuple[Record, Sequence[Opening]]] = []
    for request, evaluation in zip(requests, evaluations, strict=True):
        message, message_opening = commit("message", secrets.token_bytes(SALT_BYTES), b"{}")
        asked, request_opening = commit("request", secrets.token_bytes(SALT_BYTES), encode_request(request))
        body = decision_body(evaluation.decision, request, request_commitment=asked)
        record = enforcer.record(msgspec.structs.replace(body, message=message), time_ms=request.time.now_ms)
        batch.append((record, (message_opening, request_opening)))
    for start in range(0, len(batch), _POSTED):
        enforcer.post(batch[start : start + _POSTED]).raise_for_status()
    return [record.record_id for record, _ in batch]
