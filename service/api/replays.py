"""Replays: past requests against the policy version of then, or any other."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import Field

from ledger.canonical import canonical_bytes
from ledger.errors import UnknownBundleError
from ledger.ports import Draft
from ledger.records import Record
from policies.bundles import MAX_BUNDLE_BYTES, Bundle, parse_archive
from policies.replay import RecordedDecision, ReplayResult, replay_many
from service.api.common import PROBLEMS, ServicesDep, UnderBundle, demand, json_response, permitted
from service.api.decisions import find_decision
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.left_out import of_replays
from service.replays import recorded_decision
from service.wiring.services import Services

__all__ = ["router"]

_MAX_REPLAYS = 500


class _ReplayRoute(ServiceRoute):
    """A route that takes a bundle's archive beside the ids of decisions."""

    max_json_bytes = 2 * MAX_BUNDLE_BYTES + ServiceRoute.max_json_bytes


router = APIRouter(tags=["replays"], responses=PROBLEMS, route_class=_ReplayRoute)


class ReplayRequest(UnderBundle):
    """Which decisions, and under which bundle."""

    decision_ids: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]],
        Field(min_length=1, max_length=_MAX_REPLAYS),
    ]


def _find(services: Services, decision_ids: list[str]) -> list[Record]:
    return [find_decision(services, decision_id)[2] for decision_id in decision_ids]


def _opened(services: Services, records: list[Record]) -> list[RecordedDecision]:
    return [recorded_decision(record, services.vault) for record in records]


def _accesses(services: Services, caller: Caller, wanted: ReplayRequest, chosen: Bundle | None) -> list[Draft]:
    """Return the records of a replay.

    Rules that the caller wrote himself can ask a payload one question after another: under a proposed bundle each
    decision is an opening of its own, with its purpose.
    """
    draft = services.access.draft(
        caller,
        "replay",
        "bundle" if chosen else "decisions",
        target_id=chosen.revision if chosen else None,
        items=len(wanted.decision_ids),
    )
    if wanted.archive is None:
        return [draft]
    openings = [
        services.access.draft(caller, "open_payload", "record", target_id=decision_id, items=1, purpose=wanted.purpose)
        for decision_id in wanted.decision_ids
    ]
    return [draft, *openings]


async def _chosen(services: Services, caller: Caller, wanted: ReplayRequest) -> Bundle | None:
    """Return the one bundle to replay under, or None for each decision's own."""
    if wanted.archive is not None:
        archive = canonical_bytes(wanted.archive)
        bundle = parse_archive(archive)
        # Kept, so that what the payloads were asked stays known; it is published by nobody.
        await asyncio.to_thread(services.bundle_archives.put, caller.log_id, bundle.revision, archive)
        return bundle
    if wanted.bundle == "recorded":
        return None
    if wanted.bundle == "active":
        active = await services.bundles.active_bundle()
        if active is None:
            raise UnknownBundleError("no bundle is active")
        return active
    return await services.bundles.bundle(wanted.bundle)


async def _replay(
    services: Services, originals: list[RecordedDecision], chosen: Bundle | None
) -> list[tuple[str | None, ReplayResult]]:
    """Return each result with the revision it was replayed under, in the order asked for."""
    groups: dict[str | None, list[int]] = {}
    for position, original in enumerate(originals):
        own = original.body.bundle.revision if original.body.bundle else None
        groups.setdefault(chosen.revision if chosen else own, []).append(position)
    results: dict[int, tuple[str | None, ReplayResult]] = {}
    for revision, positions in groups.items():
        # Where no bundle was consulted, none is now either.
        bundle = chosen or (await services.bundles.bundle(revision) if revision else None)
        replayed = await replay_many([originals[p] for p in positions], bundle, services.evaluator)
        results.update({p: (revision, result) for p, result in zip(positions, replayed, strict=True)})
    return [results[position] for position in range(len(originals))]


def _view(revision: str | None, result: ReplayResult) -> dict[str, object]:
    return {
        "decision_id": result.record_id,
        "class": result.classification.value,
        "explanation": result.explanation,
        "same": result.same,
        "differences": result.differences,
        "replayed_under": revision,
        "original": asdict(result.original),
        "replayed": None if result.replayed is None else asdict(result.replayed),
    }


@router.post(
    "/v1/replays",
    summary="Replay decisions",
    response_description="What came of each replay, and how many came out the same.",
)
async def replay_decisions(
    request: Request,
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.REPLAY))],
    wanted: ReplayRequest,
) -> Response:
    """Evaluate recorded requests again; the replay is itself recorded, before anything is opened."""
    if wanted.archive is not None:
        # Rules of one's own can ask a payload one question after another, which is to open it.
        await demand(request, caller, Permission.OPEN_PAYLOADS)
    records = await asyncio.to_thread(_find, services, wanted.decision_ids)
    chosen = await _chosen(services, caller, wanted)
    # INVARIANT: the access record is durable before anything is handed out.
    await services.access.record(_accesses(services, caller, wanted, chosen))
    originals = await asyncio.to_thread(_opened, services, records)
    results = await _replay(services, originals, chosen)
    same = sum(result.same is True for _, result in results)
    different = sum(result.same is False for _, result in results)
    items = [_view(revision, result) for revision, result in results]
    left_out = of_replays((result.classification.value, result.same) for _, result in results)
    return json_response({"same": same, "different": different, "results": items, "left_out": left_out})
