"""Impacts: what a bundle would have decided over a stretch of history. Asked for, watched, ended, downloaded."""

from __future__ import annotations

import asyncio
from pathlib import Path as FilePath
from typing import Annotated, Final, Literal, Self

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import FileResponse, Response
from pydantic import Field, model_validator

from ledger.canonical import canonical_bytes
from ledger.errors import NotFoundError, UnknownBundleError
from ledger.notes import encode_base64
from policies.bundles import MAX_BUNDLE_BYTES, Bundle, parse_archive
from policies.impact import Scope
from service.api.common import PROBLEMS, ServicesDep, UnderBundle, demand, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.impact_orders import ImpactJob, ImpactOrder
from service.impact_page import impact_page
from service.impacts import MAX_WARM_UP_MS
from service.problems import Problem
from service.wiring.services import Services

__all__ = ["router", "send_impact"]


class _ImpactRoute(ServiceRoute):
    """A route that takes a bundle's archive beside the order."""

    max_json_bytes = 2 * MAX_BUNDLE_BYTES + ServiceRoute.max_json_bytes


router = APIRouter(tags=["impacts"], responses=PROBLEMS, route_class=_ImpactRoute)

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Caller = Annotated[Caller, Depends(permitted(Permission.REPLAY))]
_MEDIA_TYPES: Final = {"json": "application/json", "ndjson": "application/x-ndjson", "html": "text/html; charset=utf-8"}


class ImpactRequestBody(UnderBundle):
    """A stretch of history, and what to make its decisions again under."""

    from_ms: Annotated[int, Field(ge=0, le=2**53 - 1, description="POSIX milliseconds")]
    to_ms: Annotated[int, Field(ge=0, le=2**53 - 1, description="exclusive")]
    agent: _Name | None = None
    server: _Name | None = None
    tool: _Name | None = None
    decision: Literal["PERMIT", "DENY", "INDETERMINATE", "NOT_APPLICABLE"] | None = None
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    state: Annotated[
        Literal["recorded", "recomputed"],
        Field(description="recomputed: counters and windows rebuilt in log order under the bundle"),
    ] = "recorded"
    warm_up_ms: Annotated[
        int, Field(ge=0, le=MAX_WARM_UP_MS, description="evaluated before the period as well, and not counted")
    ] = 0

    @model_validator(mode="after")
    def _name_a_bundle(self) -> Self:
        if self.state == "recomputed" and self.archive is None and self.bundle == "recorded":
            raise ValueError("state is recomputed under a bundle: name one")
        return self


def job_view(job: ImpactJob) -> dict[str, object]:
    """Return a job as the API shows it."""
    links = {suffix: f"/v1/impacts/{job.job_id}.{suffix}" for suffix in _MEDIA_TYPES}
    return {
        "job_id": job.job_id,
        "state": job.state,
        "request": msgspec.to_builtins(job.order),
        "requested_by": job.access.actor,
        "created_ms": job.created_ms,
        "finished_ms": job.finished_ms,
        "done_leaves": job.done_leaves,
        "all_leaves": job.all_leaves,
        "attempt": job.attempt,
        "report_sha256": job.report_sha256,
        "lines_sha256": job.lines_sha256,
        "error": job.error,
        "links": links if job.state == "done" else {},
    }


async def _proposed(services: Services, caller: Caller, archive: dict[str, object]) -> Bundle:
    """Keep a proposed bundle; it is published by nobody, but what the payloads were asked stays known."""
    data = await asyncio.to_thread(canonical_bytes, archive)
    bundle = await asyncio.to_thread(parse_archive, data)
    await services.evaluator.check(bundle)
    await asyncio.to_thread(services.bundle_archives.put, caller.log_id, bundle.revision, data)
    return bundle


async def _revision(services: Services, caller: Caller, wanted: ImpactRequestBody) -> str | None:
    """Return the revision to make all decisions again under, or None for each under its own."""
    if wanted.archive is not None:
        return (await _proposed(services, caller, wanted.archive)).revision
    if wanted.bundle == "recorded":
        return None
    if wanted.bundle == "active":
        active = await services.bundles.active_bundle()
        if active is None:
            raise UnknownBundleError("no bundle is active")
        return active.revision
    return (await services.bundles.bundle(wanted.bundle)).revision


@router.post(
    "/v1/impacts",
    status_code=202,
    summary="Ask what a bundle would have decided",
    response_description="It is being worked on; its state is at the Location.",
)
async def order_impact(request: Request, services: ServicesDep, caller: _Caller, wanted: ImpactRequestBody) -> Response:
    """Make the decisions of a period again, in the background; that somebody asks, and why, is recorded first."""
    if wanted.archive is not None:
        # Rules of one's own can ask a payload one question after another, which is to open it.
        await demand(request, caller, Permission.OPEN_PAYLOADS)
    order = ImpactOrder(
        from_ms=wanted.from_ms,
        to_ms=wanted.to_ms,
        bundle=await _revision(services, caller, wanted),
        scope=Scope(
            agent=wanted.agent,
            server=wanted.server,
            tool=wanted.tool,
            decision=wanted.decision,
            session=wanted.session,
        ),
        state=wanted.state,
        warm_up_ms=wanted.warm_up_ms,
    )
    job = await services.impacts.order(caller, order, purpose=wanted.purpose)
    return json_response(job_view(job), 202, {"Location": f"/v1/impacts/{job.job_id}"})


@router.get("/v1/impacts", summary="Impacts, newest first", response_description="The newest impacts.")
async def list_impacts(services: ServicesDep, _caller: _Caller) -> Response:
    """Return the newest hundred jobs."""
    jobs = await asyncio.to_thread(services.impacts.store.newest)
    return json_response({"items": [job_view(job) for job in jobs]})


async def send_impact(
    services: Services, caller: Caller, job_id: str, suffix: Literal["json", "ndjson", "html"]
) -> Response:
    """Hand out a file of an impact; the delivery is recorded first.

    Raises:
        NotFoundError: There is no such impact, or its file is gone.
        Problem: It is not done (409).
        EvidenceError: Its report cannot be read.
        LedgerError: The delivery could not be recorded.
    """
    job = await asyncio.to_thread(services.impacts.store.get, job_id)
    if job.state != "done":
        raise Problem(409, "not-ready", "Not ready", f"the impact is {job.state}")
    files = services.impacts.files
    path: FilePath = files.lines_path(job_id, job.attempt) if suffix == "ndjson" else files.report_path(job_id)
    if not await asyncio.to_thread(path.is_file):
        raise NotFoundError(f"the file of the impact {job_id} is gone")
    digest = job.lines_sha256 if suffix == "ndjson" else job.report_sha256
    page = await asyncio.to_thread(impact_page, services, job) if suffix == "html" else None
    draft = services.access.draft(caller, f"download_{suffix}", "impact", target_id=job_id, digest=digest, items=1)
    # INVARIANT: the access record is durable before anything is handed out.
    await services.access.record([draft])
    headers = {"Cache-Control": "private, no-store"}
    if page is not None:
        name = f'attachment; filename="tallystick-impact-{job_id}.html"'
        return Response(page, media_type=_MEDIA_TYPES[suffix], headers={**headers, "Content-Disposition": name})
    if digest is not None:
        headers["Repr-Digest"] = f"sha-256=:{encode_base64(bytes.fromhex(digest))}:"
    return FileResponse(
        path, media_type=_MEDIA_TYPES[suffix], filename=f"tallystick-impact-{job_id}.{suffix}", headers=headers
    )


@router.get(
    "/v1/impacts/{job_id}.json",
    summary="The report of an impact",
    response_description="Counts, flips, and what is left out.",
    response_class=FileResponse,
)
async def get_report(services: ServicesDep, caller: _Caller, job_id: _JobId) -> Response:
    """Return the report as JSON; the delivery is recorded."""
    return await send_impact(services, caller, job_id, "json")


@router.get(
    "/v1/impacts/{job_id}.ndjson",
    summary="The list of an impact",
    response_description="One JSON object a line, for each decision that did not come out exactly as recorded.",
    response_class=FileResponse,
)
async def get_lines(services: ServicesDep, caller: _Caller, job_id: _JobId) -> Response:
    """Return the list, in log order; the delivery is recorded."""
    return await send_impact(services, caller, job_id, "ndjson")


@router.get(
    "/v1/impacts/{job_id}.html",
    summary="The report of an impact, as a page",
    response_description="A page that stands alone.",
    response_class=FileResponse,
)
async def get_page(services: ServicesDep, caller: _Caller, job_id: _JobId) -> Response:
    """Return the report as a page without scripts; the delivery is recorded."""
    return await send_impact(services, caller, job_id, "html")


@router.get(
    "/v1/impacts/{job_id}",
    summary="State of an impact",
    response_description="How far it is, and its digests once it is there.",
)
async def get_impact(services: ServicesDep, _caller: _Caller, job_id: _JobId) -> Response:
    """Return how far an impact is, and its digests once it is there."""
    return json_response(job_view(await asyncio.to_thread(services.impacts.store.get, job_id)))


@router.delete("/v1/impacts/{job_id}", summary="End an impact", response_description="The impact, cancelled.")
async def cancel_impact(services: ServicesDep, caller: _Caller, job_id: _JobId) -> Response:
    """End an impact that is not done; who did is recorded, and that it was asked for stays recorded."""
    await asyncio.to_thread(services.impacts.store.get, job_id)
    await services.access.record([services.access.draft(caller, "cancel_impact", "impact", target_id=job_id)])
    return json_response(job_view(await services.impacts.cancel(job_id)))
