"""AuthZEN 1.0: an enforcement point that is not ours asks for decisions, and may find out how."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response

from ledger.errors import MalformedError
from service.access_requests import Use
from service.access_submissions import CAPABILITY
from service.api.common import PROBLEMS, HostingDep, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.authzen import Box, Question, answer, parse_box, parse_question
from service.deciding import Recorded
from service.fairness import takes_records
from service.wiring.services import Services

__all__ = ["REQUESTS", "check_key", "router"]

router = APIRouter(tags=["decision point"], responses=PROBLEMS, route_class=ServiceRoute)

_EVALUATION: Final = "/access/v1/evaluation"
_EVALUATIONS: Final = "/access/v1/evaluations"
REQUESTS: Final = "/access/v1/requests"
"""Where people are asked to agree to what was denied; see `service.api.access_requests`."""
_MAX_BODY_BYTES: Final = 1024 * 1024
_KEY: Final = re.compile(r"[A-Za-z0-9_.:-]{8,128}")
_IdempotencyKey = Annotated[str | None, Header(description="asked again under it, the same answer is given again")]
_Asking = Annotated[Caller, Depends(permitted(Permission.DECIDE))]


def _takes(required: tuple[str, ...], properties: dict[str, str]) -> dict[str, Any]:
    members = {name: {"type": kind} for name, kind in properties.items()}
    schema = {"type": "object", "required": list(required), "properties": members}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_FOUR: Final = {"subject": "object", "action": "object", "resource": "object", "context": "object"}


@router.get(
    "/.well-known/authzen-configuration",
    summary="Where decisions are asked for",
    response_description="The decision point's metadata; there is no search.",
)
async def configuration(request: Request, hosting: HostingDep) -> Response:
    """Return AuthZEN's metadata: the endpoints under the address that the caller used."""
    base = str(request.base_url).rstrip("/")
    document: dict[str, object] = {
        "policy_decision_point": base,
        "access_evaluation_endpoint": base + _EVALUATION,
        "access_evaluations_endpoint": base + _EVALUATIONS,
    }
    if hosting.takes_access_requests:
        document |= {"access_request_endpoint": base + REQUESTS, "capabilities": [CAPABILITY]}
    return json_response(document, headers={"Cache-Control": "public, max-age=300"})


@router.post(
    _EVALUATION,
    openapi_extra=_takes(("subject", "action", "resource"), _FOUR),
    summary="Ask for one decision",
    response_description="The decision; it is recorded.",
)
async def evaluate(
    request: Request, services: ServicesDep, caller: _Asking, idempotency_key: _IdempotencyKey = None
) -> Response:
    """Decide by the active bundle, record the decision, and answer."""
    takes_records.set(True)
    with services.bytes_in_hand.take() as room:
        body = await read_body(request, _MAX_BODY_BYTES, room)
        question = parse_question(body, services.decision_point.now_ms)
        (recorded,) = await _decide(services, caller, Box((question,), "execute_all"), idempotency_key)
        return json_response(await _answer(services, recorded))


@router.post(
    _EVALUATIONS,
    openapi_extra=_takes((), {**_FOUR, "evaluations": "array", "options": "object"}),
    summary="Ask for several decisions at once",
    response_description="The decisions in the order of the questions; all are recorded, in one batch.",
)
async def evaluate_several(
    request: Request, services: ServicesDep, caller: _Asking, idempotency_key: _IdempotencyKey = None
) -> Response:
    """Decide a box of questions; without a box, the one question that there is."""
    takes_records.set(True)
    with services.bytes_in_hand.take() as room:
        body = await read_body(request, _MAX_BODY_BYTES, room)
        box = parse_box(body, services.decision_point.now_ms)
        if isinstance(box, Question):
            (recorded,) = await _decide(services, caller, Box((box,), "execute_all"), idempotency_key)
            return json_response(await _answer(services, recorded))
        done = await _decide(services, caller, box, idempotency_key)
        return json_response({"evaluations": [await _answer(services, recorded) for recorded in done]})


def check_key(key: str | None) -> None:
    """Refuse an idempotency key that is none.

    Raises:
        MalformedError: It is none.
    """
    if key is not None and _KEY.fullmatch(key) is None:
        raise MalformedError("an Idempotency-Key has 8 to 128 letters, digits, or _ . : -")


async def _decide(services: Services, caller: Caller, box: Box, key: str | None) -> list[Recorded]:
    check_key(key)

    async def use(question: Question, revision: str | None) -> Use:
        return await services.access_requests.use(question, revision, caller)

    done = await services.decision_point.decide(
        box.questions, semantic=box.semantic, token_sha256=caller.token_sha256, key=key, use=use
    )
    services.metrics.records.labels("decision").inc(len(done))
    return done


async def _answer(services: Services, recorded: Recorded) -> dict[str, object]:
    besides = await services.access_requests.told(recorded.decision_id, recorded.leaf_index, recorded.body)
    return answer(recorded.decision_id, recorded.leaf_index, recorded.body, recorded.detail, besides)
