"""AuthZEN's access requests: an enforcement point that is not ours asks people to agree to what was denied.

The profile's three endpoints; what they do is in `service.access_requests`.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response

from ledger.approvals import HeldCall
from service.access_submissions import parse_note, parse_submission, task_of
from service.api.authzen import REQUESTS, check_key
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["decision point"], responses=PROBLEMS, route_class=ServiceRoute)

_MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_NOTE_BYTES: Final = 16 * 1024
_Asking = Annotated[Caller, Depends(permitted(Permission.DECIDE))]
_SCHEMA: Final = {
    "type": "object",
    "required": ["subject", "action", "resource", "denial"],
    "properties": {
        name: {"type": "object"} for name in ("subject", "action", "resource", "context", "denial", "requested_access")
    },
}


def _answer(request: Request, services: Services, call: HeldCall, status: int = 200) -> Response:
    endpoint = str(request.base_url).rstrip("/") + REQUESTS
    document = task_of(call, services.clock.now_ms(), endpoint)
    headers = {"Cache-Control": "private, no-store"}
    if status != 200:  # noqa: PLR2004  # RFC 9110 section 15.3.1
        headers["Location"] = f"{endpoint}/{call.approval_id}"
    return json_response(document, status=status, headers=headers)


@router.post(
    REQUESTS,
    status_code=202,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}},
    summary="Ask people to agree to what was denied",
    response_description="The task: people see the request, and its status tells what they said.",
)
async def submit(
    request: Request,
    services: ServicesDep,
    caller: _Asking,
    idempotency_key: Annotated[str | None, Header(description="sent again under it, it is the same request")] = None,
) -> Response:
    """Put a denied evaluation before people, bound to exactly what was evaluated."""
    check_key(idempotency_key)
    with services.bytes_in_hand.take() as room:
        sent = parse_submission(await read_body(request, _MAX_BODY_BYTES, room))
        call = await services.access_requests.submit(sent, caller, idempotency_key)
    # Sent again, it may have been decided meanwhile: there is nothing to wait for then.
    return _answer(request, services, call, 202 if call.waits(services.clock.now_ms()) else 201)


@router.get(
    REQUESTS + "/{task_id}",
    summary="What came of an access request",
    response_description="The task, with the approval once people have agreed.",
)
async def status(request: Request, services: ServicesDep, caller: _Asking, task_id: str) -> Response:
    """Return a task of one's own: nobody who agreed is named, and no rule."""
    return _answer(request, services, await services.access_requests.task(task_id, caller))


@router.post(
    REQUESTS + "/{task_id}/cancel",
    summary="Withdraw an access request",
    response_description="The task, cancelled.",
)
async def cancel(request: Request, services: ServicesDep, caller: _Asking, task_id: str) -> Response:
    """End a task of one's own that still waits; nobody can agree to it any more."""
    note = parse_note(await read_body(request, _MAX_NOTE_BYTES))
    return _answer(request, services, await services.access_requests.cancel(task_id, caller, note))
