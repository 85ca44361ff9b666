"""Keys of the service: which there are, and the steps of their life."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from pydantic import Field

from ledger.canonical import MAX_SAFE_INTEGER
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.key_life import compromise_key, introduce_key, published_policy, retire_key, standings
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["keys"], responses=PROBLEMS, route_class=ServiceRoute)

_KEY_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$"
_KeyId = Annotated[str, Path(pattern=_KEY_ID)]
_Admin = Annotated[Caller, Depends(permitted(Permission.ADMINISTER))]


class IntroductionRequest(RequestBody):
    """A key to introduce; its file is among the service's."""

    key_id: Annotated[str, Field(pattern=_KEY_ID)]


class RetirementRequest(RequestBody):
    """How a key is retired."""

    give_up_algorithm: Annotated[
        bool, Field(description="retire the last log key of its algorithm: the other one signs alone")
    ] = False


class CompromiseRequest(RequestBody):
    """Up to where a key was the log's own."""

    after_size: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER, description="the last tree size for which it counts")]
    purpose: Annotated[str, Field(min_length=8, max_length=1000, description="why; recorded, in the vault")]


def _done(services: Services, key_id: str, leaf: int, status: int = 200) -> Response:
    policy = published_policy(services).encode()
    return json_response({"key_id": key_id, "leaf_index": leaf, "trust_policy": policy}, status)


@router.get(
    "/v1/keys",
    summary="Keys of the service",
    response_description="Every key with its state, and the trust policy for auditors.",
)
async def list_keys(
    services: ServicesDep, _caller: Annotated[Caller, Depends(permitted(Permission.READ_LOG))]
) -> Response:
    """Return where each key stands, by the log's own key records; nothing secret."""
    found = await asyncio.to_thread(standings, services)
    policy = published_policy(services).encode()
    return json_response({"items": [asdict(key) for key in found], "trust_policy": policy})


@router.post(
    "/v1/keys",
    status_code=201,
    summary="Introduce a key",
    response_description="It is in the log and in use, beside the one that it will replace.",
)
async def introduce(services: ServicesDep, caller: _Admin, wanted: IntroductionRequest) -> Response:
    """Introduce a key whose file stands among the service's; `tallystick keys rotate` makes one and comes here."""
    leaf = await introduce_key(services, caller, wanted.key_id)
    return _done(services, wanted.key_id, leaf, 201)


@router.post(
    "/v1/keys/{key_id}/retirement",
    summary="Retire a key",
    response_description="It counts no more; its successor does.",
)
async def retire(
    services: ServicesDep, caller: _Admin, key_id: _KeyId, wanted: RetirementRequest | None = None
) -> Response:
    """Retire a key that has a successor; of a log key, once a checkpoint carries both lines."""
    give_up = wanted is not None and wanted.give_up_algorithm
    leaf = await retire_key(services, caller, key_id, give_up_algorithm=give_up)
    return _done(services, key_id, leaf)


@router.post(
    "/v1/keys/{key_id}/compromise",
    summary="Declare a key compromised",
    response_description="What it signs for larger trees counts no more; it cannot be taken back.",
)
async def compromise(services: ServicesDep, caller: _Admin, key_id: _KeyId, wanted: CompromiseRequest) -> Response:
    """Declare that a key was not the log's own any more after a tree size."""
    leaf = await compromise_key(services, caller, key_id, after_size=wanted.after_size, purpose=wanted.purpose)
    return _done(services, key_id, leaf)
