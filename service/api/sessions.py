"""Sessions: what one agent did, in order."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from ledger.canonical import MAX_SAFE_INTEGER
from ledger.catalog import MAX_PAGE
from ledger.completeness import SessionCount
from ledger.errors import NotFoundError
from ledger.records import Record, decode_entry
from service.api.common import PROBLEMS, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.left_out import ALWAYS, counted_calls
from service.left_out import of_a_page as left_out_of_a_page
from service.left_out import of_related as left_out_of_related
from service.left_out import of_the_pruned as left_out_of_the_pruned
from service.session_related import related_leaves
from service.wiring.services import Services

__all__ = ["router", "served_session", "stream_gaps"]

router = APIRouter(tags=["sessions"], responses=PROBLEMS, route_class=ServiceRoute)


@dataclass(frozen=True, slots=True)
class _Page:
    """A part of a session: its entries by leaf index, its streams, where the next part begins, what was pruned.

    With the last part comes what else belongs to its story.
    """

    entries: list[tuple[int, bytes]]
    streams: list[dict[str, object]]
    next_cursor: int | None
    calls: SessionCount | None
    pruned_below: int
    related: list[tuple[int, bytes]]
    related_cut: bool


def served_session(services: Services, session: str) -> tuple[list[int], int]:
    """Return the leaf indexes of a session that are served, and the minimum index if it has others; else 0.

    Raises:
        NotFoundError: There is no such session.
        PrunedError: No record of it is served any more.
        StorageError: A store failed.
    """
    indexes = services.catalog.session(services.identity.log_id, session)
    if not indexes:
        raise NotFoundError(f"there is no session {session}")
    services.minimum_index.require(indexes[-1])
    minimum = services.minimum_index.current()
    served = [index for index in indexes if index >= minimum]
    return served, minimum if len(served) < len(indexes) else 0


def _read(services: Services, session: str, cursor: int | None, limit: int) -> _Page:
    indexes, pruned_below = served_session(services, session)
    start = 0 if cursor is None else bisect_right(indexes, cursor)
    # With the record before the page, so that what is missing between two pages is told with one of them.
    first = max(0, start - 1)
    read = [(index, next(services.reader.entries(index, index + 1))) for index in indexes[first : start + limit]]
    streams = stream_gaps(services, [decode_entry(entry) for _, entry in read])
    more = start + limit < len(indexes)
    # Counted once, with the last page: only then is every record of the session told; never, if some are pruned.
    calls = None if more or pruned_below else counted_calls(map(services.reader.record, indexes))
    leaves, cut = ([], False) if more else related_leaves(services, session, indexes)
    related = [(index, next(services.reader.entries(index, index + 1))) for index in leaves]
    cursor = indexes[start + limit - 1] if more else None
    return _Page(read[start - first :], streams, cursor, calls, pruned_below, related, cut)


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


def _told(entries: Sequence[tuple[int, bytes]]) -> list[dict[str, object]]:
    return [{"leaf_index": index, "record": msgspec.Raw(entry)} for index, entry in entries]


@router.get(
    "/v1/sessions/{session}",
    summary="One session in order",
    response_description="A page of the session's records, and whether any are missing in it or right before it.",
)
async def get_session(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))],
    session: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")],
    cursor: Annotated[
        int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="next_cursor of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
) -> Response:
    """Return a session's decisions, outcomes and ends in log order, and whether records are missing in between.

    With the last page comes what else belongs to its story: steps of approvals, definitions of the tools that were
    called, departures from what is usual, containments.
    """
    page = await asyncio.to_thread(_read, services, session, cursor, limit)
    draft = services.access.draft(caller, "read", "session", target_id=session, items=len(page.entries))
    await services.access.record([draft])
    left_out = [
        *left_out_of_a_page("later records of the session", limit, more=page.next_cursor is not None),
        *left_out_of_the_pruned(page.pruned_below),
        *left_out_of_related(cut=page.related_cut),
        *ALWAYS,
    ]
    answer = {
        "session": session,
        "events": _told(page.entries),
        "related": _told(page.related),
        "streams": page.streams,
        "calls": None if page.calls is None else asdict(page.calls),
        "next_cursor": page.next_cursor,
        "left_out": left_out,
    }
    return json_response(answer)
