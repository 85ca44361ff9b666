"""Sessions: what one agent did, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from ledger.errors import NotFoundError
from ledger.records import Record, decode_entry
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.wiring import Services

__all__ = ["router", "stream_gaps"]

router = APIRouter(tags=["sessions"], responses=PROBLEMS, route_class=ServiceRoute)


def _read(services: Services, session: str) -> tuple[list[tuple[int, bytes]], list[dict[str, object]]]:
    log_id = services.identity.log_id
    indexes = services.catalog.session(log_id, session)
    if not indexes:
        raise NotFoundError(f"there is no session {session}")
    entries = [(index, next(services.reader.entries(index, index + 1))) for index in indexes]
    return entries, stream_gaps(services, [decode_entry(entry) for _, entry in entries])


def stream_gaps(services: Services, records: Sequence[Record]) -> list[dict[str, object]]:
    """Return, for each enforcer that wrote these records, how many of its numbers are missing in between.

    Raises:
        StorageError: The catalogue failed.
    """
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for record in records:
        first, last = spans.get((record.enforcer_id, record.epoch), (record.seq, record.seq))
        spans[record.enforcer_id, record.epoch] = (min(first, record.seq), max(last, record.seq))
    return [
        {
            "enforcer_id": enforcer_id,
            "epoch": epoch,
            "first_seq": first,
            "last_seq": last,
            "missing": last
            - first
            + 1
            - services.catalog.count_between(services.identity.log_id, enforcer_id, epoch, first, last),
        }
        for (enforcer_id, epoch), (first, last) in spans.items()
    ]


@router.get(
    "/v1/sessions/{session}",
    summary="One session in order",
    response_description="The session's records, and whether any are missing.",
)
async def get_session(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))],
    session: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")],
) -> Response:
    """Return a session's decisions and outcomes in log order, and whether records are missing in between."""
    entries, streams = await asyncio.to_thread(_read, services, session)
    draft = services.access.draft(caller, "read", "session", target_id=session, items=len(entries))
    await services.access.record([draft])
    events = [{"leaf_index": index, "record": msgspec.Raw(entry)} for index, entry in entries]
    return json_response({"session": session, "events": events, "streams": streams})
