"""The evidence packs: what was asked for, how far it is, and the files. Packs are made by `service.packs`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from service.api.packs import get_pdf, get_zip
from service.auth import Permission, require
from service.packs import PackJob
from service.web.guard import Dashboard, DashboardDep, PageRoute, ReaderDep
from service.web.integrity import look
from service.web.rendering import PAGE_HEADERS
from service.web.sessions import WebSession

__all__ = ["router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


def _pack_reader(session: ReaderDep) -> WebSession:
    require(session.caller, Permission.MAKE_PACKS)
    return session


_PackReaderDep = Annotated[WebSession, Depends(_pack_reader)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A job with what is being done for it right now."""

    job: PackJob
    step: str


def _lines(dashboard: Dashboard) -> list[_Line]:
    packs = dashboard.services.packs
    return [_Line(job=job, step=packs.step(job)) for job in packs.store.newest()]


@router.get("/packs")
async def show_packs(request: Request, dashboard: DashboardDep, session: _PackReaderDep) -> Response:
    """List the evidence packs, newest first."""
    lines = await asyncio.to_thread(_lines, dashboard)
    integrity = await asyncio.to_thread(look, dashboard.services)
    access = dashboard.services.access
    # INVARIANT: the access record is durable before anything is handed out.
    await access.record([access.draft(session.caller, "view", "packs", items=len(lines))])
    return dashboard.pages.page(
        "packs.html", session=session, path=request.url.path, integrity=integrity, lines=lines, live="/live"
    )


def _sealed(response: Response) -> Response:
    response.headers.update({**PAGE_HEADERS, "Cache-Control": "no-store"})
    return response


@router.get("/packs/{job_id}.pdf")
async def download_report(dashboard: DashboardDep, session: _PackReaderDep, job_id: _JobId) -> Response:
    """Hand out a pack's report; the delivery is recorded."""
    return _sealed(await get_pdf(dashboard.services, session.caller, job_id))


@router.get("/packs/{job_id}.zip")
async def download_pack(dashboard: DashboardDep, session: _PackReaderDep, job_id: _JobId) -> Response:
    """Hand out a whole pack; the delivery is recorded."""
    return _sealed(await get_zip(dashboard.services, session.caller, job_id))
