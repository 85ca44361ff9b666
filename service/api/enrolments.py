"""Enrolment: tokens for machines that shall become enforcers, and what they do with them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import Field

from ledger.errors import ConflictError, NotFoundError
from service.api.common import (
    PROBLEMS,
    HostingDep,
    RequestBody,
    ServicesDep,
    bearer_of,
    hosting_of,
    json_response,
    permitted,
    work_for,
)
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission, token_digest
from service.enrolling import EnrolmentClaim, log_of_enrolment_token
from service.enrolment import enrol, trust_given
from service.enrolment_tokens import EnrolmentToken, EnrolmentTokens, new_enrolment_token
from service.problems import UnauthenticatedError
from service.version import VERSION
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["access"], responses=PROBLEMS, route_class=ServiceRoute)

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Key = Annotated[str, Field(min_length=44, max_length=44)]
_MS: Final = 1000
_HOUR_SECONDS: Final = 3600
_WEEK_SECONDS: Final = 7 * 86_400


class EnrolmentTokenRequest(RequestBody):
    """An enrolment token to issue."""

    enforcer_id: _Name
    lifetime_seconds: Annotated[int, Field(ge=60, le=_WEEK_SECONDS)] = _HOUR_SECONDS


class EnrolmentRequest(RequestBody):
    """What a gateway asks for; see docs/fleet.md."""

    enforcer_id: _Name
    public_key: Annotated[_Key, Field(description="Ed25519, base64: signs its records")]
    sealing_key: Annotated[_Key, Field(description="X25519, base64: the pseudonym key is sealed to it")]
    token_sha256: Annotated[_Digest, Field(description="of the API token that the gateway made")]
    version: _Name
    signature: Annotated[str, Field(min_length=88, max_length=88, description="by the public key's private one")]


def _tokens(services: Services) -> EnrolmentTokens:
    return EnrolmentTokens(services.database, services.clock)


async def _presented(request: Request) -> EnrolmentToken:
    """Return the enrolment token that a request presents; whether it can still be used is not judged here.

    Raises:
        UnauthenticatedError: There is none, it is unknown or revoked: a stranger does not learn which, nor which logs
            there are (invariant 12).
    """
    hosting = hosting_of(request)
    given = bearer_of(request) or ""
    log_id = log_of_enrolment_token(given)
    token = None
    if log_id is not None:
        store = EnrolmentTokens(hosting.database, hosting.clock)
        token = await asyncio.to_thread(store.find, log_id, token_digest(given))
    if token is None or token.revoked:
        raise UnauthenticatedError("an enrolment token is needed: it is unknown, expired or revoked")
    work_for(request, hosting.find(token.log_id))
    return token


_PresentedDep = Annotated[EnrolmentToken, Depends(_presented)]


@router.post(
    "/v1/enrolment-tokens",
    status_code=201,
    summary="Issue an enrolment token",
    response_description="The token, shown once; and a digest of whom its holder will be told to trust.",
)
async def issue_enrolment_token(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ADMINISTER))],
    wanted: EnrolmentTokenRequest,
) -> Response:
    """Issue a token with which one machine becomes this one enforcer, once; that it was issued is recorded first."""
    if wanted.enforcer_id == services.settings.service_id:
        raise ConflictError("that is the service's own id")
    token = new_enrolment_token(caller.log_id)
    digest = token_digest(token)
    trust = await asyncio.to_thread(trust_given, services)
    draft = services.access.draft(
        caller, "issue_enrolment_token", "enforcer", target_id=wanted.enforcer_id, digest=digest, items=1
    )
    await services.access.record([draft])
    expires_ms = services.clock.now_ms() + wanted.lifetime_seconds * _MS
    await asyncio.to_thread(_tokens(services).issue, caller.log_id, digest, wanted.enforcer_id, expires_ms=expires_ms)
    answer = {
        "enforcer_id": wanted.enforcer_id,
        "token": token,
        "token_sha256": digest,
        "expires_ms": expires_ms,
        "trust_sha256": trust.digest,
    }
    return json_response(answer, 201)


@router.delete(
    "/v1/enrolment-tokens/{token_sha256}",
    status_code=204,
    summary="Revoke an enrolment token",
    response_description="Nobody can use it any more.",
)
async def revoke_enrolment_token(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ADMINISTER))],
    token_sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
) -> Response:
    """End an enrolment token that was not used yet."""
    if not await asyncio.to_thread(_tokens(services).revoke, caller.log_id, token_sha256):
        raise NotFoundError("there is no such enrolment token, or it was used or revoked before")
    draft = services.access.draft(caller, "revoke_enrolment_token", "token", target_id=token_sha256, items=1)
    await services.access.record([draft])
    return Response(status_code=204)


@router.get(
    "/v1/enrolments",
    summary="What an enrolment token is for",
    response_description="The enforcer and the log that it leads to.",
)
async def look_at_enrolment(hosting: HostingDep, token: _PresentedDep) -> Response:
    """Tell the holder of an enrolment token what its keys and its configuration have to say."""
    services = hosting.find(token.log_id)
    if token.expires_ms <= services.clock.now_ms():
        raise UnauthenticatedError("the enrolment token has expired")
    return json_response({"enforcer_id": token.enforcer_id, "version": VERSION, **_identity(services)})


@router.post(
    "/v1/enrolments",
    status_code=201,
    summary="Enrol a gateway",
    response_description="It is introduced, and its API token counts; the same again is answered in the same way.",
)
async def enrol_gateway(hosting: HostingDep, token: _PresentedDep, wanted: EnrolmentRequest) -> Response:
    """Introduce a gateway that proves that it holds its key; its enrolment token is used by that."""
    services = hosting.find(token.log_id)
    claim = EnrolmentClaim(
        enforcer_id=wanted.enforcer_id,
        enrolment=token.token_sha256,
        public_key=wanted.public_key,
        sealing_key=wanted.sealing_key,
        token_sha256=wanted.token_sha256,
        version=wanted.version,
    )
    done = await enrol(services, _tokens(services), token, claim, wanted.signature)
    answer = {
        "enforcer_id": wanted.enforcer_id,
        "leaf_index": done.leaf_index,
        "version": VERSION,
        **_identity(services),
        "trust_policy": done.trust.trust_policy,
        "bundle_keys": done.trust.bundle_keys,
        "pseudonym_key_id": done.pseudonym_key_id,
        "pseudonym_key": done.pseudonym_key,
    }
    return json_response(answer, 201)


def _identity(services: Services) -> dict[str, object]:
    identity = services.identity
    return {
        "log_id": identity.log_id,
        "tenant": identity.tenant,
        "environment": identity.environment,
        "simulated": identity.simulated,
    }
