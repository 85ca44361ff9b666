"""Evidence packs: asked for, watched, downloaded."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path
from fastapi.responses import FileResponse, Response
from pydantic import Field

from evidence.catalogue import framework_names
from ledger.errors import NotFoundError
from ledger.notes import encode_base64
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.packs import PackJob, PackOrder
from service.problems import Problem
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["evidence packs"], responses=PROBLEMS, route_class=ServiceRoute)

_JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_MEDIA_TYPES = {"pdf": "application/pdf", "zip": "application/zip"}
_Caller = Annotated[Caller, Depends(permitted(Permission.MAKE_PACKS))]


class PackRequestBody(RequestBody):
    """A period, and what to judge it by."""

    from_ms: Annotated[int, Field(ge=0, le=2**53 - 1, description="POSIX milliseconds")]
    to_ms: Annotated[int, Field(ge=0, le=2**53 - 1, description="exclusive")]
    frameworks: Annotated[tuple[str, ...], Field(max_length=32, description="empty for all")] = ()
    title: Annotated[str, Field(min_length=1, max_length=200)] = "Evidence pack"
    zone: Annotated[str, Field(min_length=1, max_length=64, description="IANA zone of the report's times")] = "UTC"


def _view(services: Services, job: PackJob) -> dict[str, object]:
    links = {suffix: f"/v1/evidence-packs/{job.job_id}.{suffix}" for suffix in _MEDIA_TYPES}
    return {
        "job_id": job.job_id,
        "state": job.state,
        "step": services.packs.step(job),
        "request": msgspec.to_builtins(job.order),
        "created_ms": job.created_ms,
        "finished_ms": job.finished_ms,
        "pack_id": job.pack_id,
        "tree_size": job.leaves,
        "zip_sha256": job.zip_sha256,
        "pdf_sha256": job.pdf_sha256,
        "error": job.error,
        "links": links if job.state == "done" else {},
    }


@router.post(
    "/v1/evidence-packs",
    status_code=202,
    summary="Ask for an evidence pack",
    response_description="It is being made; its state is at the Location.",
)
async def order_pack(services: ServicesDep, caller: _Caller, wanted: PackRequestBody) -> Response:
    """Begin a pack for a period; it is made in the background from the checkpoint that covers this request."""
    order = PackOrder(
        from_ms=wanted.from_ms,
        to_ms=wanted.to_ms,
        frameworks=wanted.frameworks,
        title=wanted.title,
        zone=wanted.zone,
    )
    job = await services.packs.order(caller, order)
    return json_response(_view(services, job), 202, {"Location": f"/v1/evidence-packs/{job.job_id}"})


@router.get(
    "/v1/evidence-packs",
    summary="Evidence packs, newest first",
    response_description="The newest packs, and the frameworks that there are.",
)
async def list_packs(services: ServicesDep, _caller: _Caller) -> Response:
    """Return the newest hundred jobs, and the frameworks that there are."""
    jobs = await asyncio.to_thread(services.packs.store.newest)
    return json_response({"items": [_view(services, job) for job in jobs], "frameworks": framework_names()})


async def _send(services: Services, caller: Caller, job_id: str, suffix: Literal["pdf", "zip"]) -> Response:
    job = await asyncio.to_thread(services.packs.store.get, job_id)
    if job.state != "done":
        raise Problem(409, "not-ready", "Not ready", f"the evidence pack is {job.state}")
    path = services.packs.store.path(job_id, suffix)
    if not await asyncio.to_thread(path.is_file):
        raise NotFoundError(f"the file of the evidence pack {job_id} is gone")
    digest = job.pdf_sha256 if suffix == "pdf" else job.zip_sha256
    draft = services.access.draft(caller, f"download_{suffix}", "pack", target_id=job_id, digest=digest, items=1)
    encoded = encode_base64(bytes.fromhex(digest or ""))
    # INVARIANT: the delivery is recorded before anything is handed out.
    await services.access.record([draft])
    return FileResponse(
        path,
        media_type=_MEDIA_TYPES[suffix],
        filename=f"tallystick-{job_id}.{suffix}",
        headers={"Cache-Control": "private, no-store", "Repr-Digest": f"sha-256=:{encoded}:"},
    )


@router.get(
    "/v1/evidence-packs/{job_id}.pdf",
    summary="The report",
    response_description="The PDF.",
    response_class=FileResponse,
)
async def get_pdf(services: ServicesDep, caller: _Caller, job_id: _JobId) -> Response:
    """Return the report alone; the delivery is recorded."""
    return await _send(services, caller, job_id, "pdf")


@router.get(
    "/v1/evidence-packs/{job_id}.zip", summary="The pack", response_description="The ZIP.", response_class=FileResponse
)
async def get_zip(services: ServicesDep, caller: _Caller, job_id: _JobId) -> Response:
    """Return the whole pack, to be verified with `tallystick verify`; the delivery is recorded."""
    return await _send(services, caller, job_id, "zip")


@router.get(
    "/v1/evidence-packs/{job_id}",
    summary="State of an evidence pack",
    response_description="How far it is, and its digests once it is there.",
)
async def get_pack(services: ServicesDep, _caller: _Caller, job_id: _JobId) -> Response:
    """Return how far a pack is, and its digests once it is there."""
    return json_response(_view(services, await asyncio.to_thread(services.packs.store.get, job_id)))
