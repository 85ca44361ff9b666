"""Erasure of a subject, and expiry on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import Field, model_validator

from ledger.erasure import Erased, ErasureOrder, Located
from ledger.expiry import Expiry
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.disclosures import Disclosures, disclosures_of
from service.keyset import KeySet
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["erasure and retention"], responses=PROBLEMS, route_class=ServiceRoute)

_Caller = Annotated[Caller, Depends(permitted(Permission.ERASE))]
_Pseudonym = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class ErasureRequest(RequestBody):
    """Who is to be erased, and why."""

    user: Annotated[str | None, Field(min_length=1, max_length=256, description="the user's name; not recorded")] = None
    pseudonym: Annotated[_Pseudonym | None, Field(description="instead: a subject as the log names it")] = None
    basis: Annotated[
        str, Field(min_length=8, max_length=1000, description="recorded, in the vault; must not name the subject")
    ]

    @model_validator(mode="after")
    def _one_of_two(self) -> ErasureRequest:
        if (self.user is None) == (self.pseudonym is None):
            raise ValueError("name the user or the pseudonym, and not both")
        return self

    def subjects(self, keys: KeySet) -> tuple[str, ...]:
        """Return the subject's pseudonyms, the present key's first."""
        return keys.pseudonyms("user", self.user) if self.user is not None else (self.pseudonym or "",)


@router.post(
    "/v1/erasures",
    summary="Erase a subject",
    response_description="The subject's payloads are unreadable for ever; who has seen them is listed.",
)
async def erase_subject(services: ServicesDep, caller: _Caller, wanted: ErasureRequest) -> Response:
    """Destroy a subject's keys, and with them every payload about it; leaves and proofs stay.

    Refused while a legal hold covers the subject. What is begun is finished, whatever becomes of the request.
    """
    order = ErasureOrder(
        subjects=wanted.subjects(services.keys),
        actor=services.access.actor(caller),
        actor_role=caller.role.value,
        basis=wanted.basis,
    )
    erased = await services.lifecycle.keeper.erase(order)
    about = sorted((item for one in erased for item in one.records), key=lambda item: item.index)
    seen = await asyncio.to_thread(_disclosures, services, about)
    return json_response(
        {
            "payloads": sum(one.payloads for one in erased),
            "key_ids": [key_id for one in erased for key_id in one.key_ids],
            "items": [_erased(one) for one in erased],
            "packs": msgspec.to_builtins(seen.packs),
            "openings": msgspec.to_builtins(seen.openings),
            "replays": msgspec.to_builtins(seen.replays),
        }
    )


def _erased(erased: Erased) -> dict[str, object]:
    return {
        "subject": erased.subject,
        "ordered_leaf": erased.ordered_leaf,
        "tombstone_leaf": erased.tombstone_leaf,
        "payloads": erased.payloads,
    }


def _disclosures(services: Services, about: Sequence[Located]) -> Disclosures:
    return disclosures_of(
        about,
        services.packs.store.made(),
        catalog=services.catalog,
        reader=services.reader,
        log_id=services.identity.log_id,
    )


class ExpiryRequest(RequestBody):
    """Whether anything is to happen."""

    dry_run: Annotated[bool, Field(description="only say what would expire")] = False


def _expiry(expiry: Expiry) -> dict[str, object]:
    return {
        "record_type": expiry.bucket.record_type,
        "day": expiry.bucket.day.isoformat(),
        "was_held": expiry.bucket.held,
        "payloads": expiry.payloads,
        "held": expiry.held,
        "tombstone_leaf": expiry.tombstone_leaf,
    }


@router.post(
    "/v1/expiries",
    summary="Let payloads expire that are past their time",
    response_description="What expired, or would, by record type and day.",
)
async def expire(services: ServicesDep, _caller: _Caller, wanted: ExpiryRequest) -> Response:
    """Do at once what the service does by itself every hour, or only say what that would be."""
    expirer = services.lifecycle.expirer
    done = await expirer.expire(dry_run=wanted.dry_run)
    return json_response(
        {
            "dry_run": wanted.dry_run,
            "policy": expirer.policy.digest,
            "classes": expirer.policy.classes,
            "items": [_expiry(expiry) for expiry in done],
        }
    )
