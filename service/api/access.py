"""Enforcers and tokens: who may write to the log, and who may read it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from pydantic import Field

from ledger.bodies import KeyEvent
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.keyring import IntroducedKey, Keyring
from ledger.notes import decode_base64
from ledger.ports import Draft
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission, Role, new_token, token_digest
from service.enrolment import introduced_at, introduction_of, is_introduced
from service.enrolment_tokens import EnrolmentTokens
from service.key_records import append_on_newest_keys
from service.wiring.services import Services

__all__ = ["router"]

router = APIRouter(tags=["access"], responses=PROBLEMS, route_class=ServiceRoute)

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_EnforcerId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_ED25519_KEY_BYTES = 32


class EnforcerRequest(RequestBody):
    """An enforcer to introduce."""

    enforcer_id: _Name
    public_key: Annotated[str, Field(min_length=44, max_length=44, description="Ed25519, base64")]


def _retirement(key: IntroducedKey) -> KeyEvent:
    return KeyEvent(
        action="retired", purpose="enforcer", algorithm=key.algorithm, subject=key.subject, key_id=key.key_id
    )


def _keys_of(keyring: Keyring, enforcer_id: str) -> list[IntroducedKey]:
    return [key for key in keyring.keys if (key.purpose, key.subject) == ("enforcer", enforcer_id)]


@router.post(
    "/v1/enforcers",
    status_code=201,
    summary="Introduce an enforcer",
    response_description="It is introduced, or was already with this key; its token is shown once.",
)
async def introduce_enforcer(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ADMINISTER))],
    wanted: EnforcerRequest,
) -> Response:
    """Record an enforcer's key in the log and return its token, once; repeating it gives a further token."""
    public_key = decode_base64(wanted.public_key)
    if len(public_key) != _ED25519_KEY_BYTES:
        raise MalformedError("an Ed25519 key has 32 bytes")
    if wanted.enforcer_id == services.settings.service_id:
        raise ConflictError("that is the service's own id")
    token = new_token(caller.log_id)
    access = services.access.draft(
        caller,
        "introduce_enforcer",
        "enforcer",
        target_id=wanted.enforcer_id,
        digest=token_digest(token),
        items=1,
    )

    def records() -> list[Draft]:
        known = is_introduced(services.keyring, wanted.enforcer_id, public_key)
        return [access] if known else [Draft(body=introduction_of(wanted.enforcer_id, public_key)), access]

    # Of two who introduce one enforcer at the same time, here or elsewhere, the second sees what the first recorded.
    async with services.enrolment:
        await append_on_newest_keys(services.key_records, services.recorder, records)
        await _issue(services, caller, wanted.enforcer_id, public_key, token)
    identity = services.identity
    return json_response(
        {
            "enforcer_id": wanted.enforcer_id,
            "token": token,
            "token_sha256": token_digest(token),
            "leaf_index": introduced_at(services.keyring, wanted.enforcer_id, public_key),
            "log_id": identity.log_id,
            "tenant": identity.tenant,
            "environment": identity.environment,
            "simulated": identity.simulated,
        },
        201,
    )


async def _issue(services: Services, caller: Caller, enforcer_id: str, public_key: bytes, token: str) -> None:
    """Make an enforcer's token valid, unless the enforcer was retired meanwhile."""
    await asyncio.to_thread(
        services.tokens.issue, caller.log_id, Role.ENFORCER, enforcer_id, enforcer_id=enforcer_id, token=token
    )
    # A retirement elsewhere revokes the tokens that it finds. It may have looked before ours was there: then it stands
    # in the log by now.
    await asyncio.to_thread(services.key_records.refresh)
    if public_key not in services.keyring.enforcer_keys(enforcer_id):
        await asyncio.to_thread(services.tokens.revoke, caller.log_id, token_digest(token))
        raise ConflictError(f"the enforcer {enforcer_id} was retired at this moment")


@router.delete(
    "/v1/enforcers/{enforcer_id:path}",
    summary="Retire an enforcer",
    response_description="Its keys count for no later record, and its tokens open nothing any more.",
)
async def retire_enforcer(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ADMINISTER))],
    enforcer_id: _EnforcerId,
) -> Response:
    """Record that an enforcer is gone for good: its keys end in the log, its tokens are revoked.

    Evidence no longer waits for it. Stop it in order first: what it did after its last record stays unknown otherwise.
    Its id can be introduced again, with another key. What is repeated ends what is left.
    """
    if enforcer_id == services.settings.service_id:
        raise ConflictError("that is the service's own id")
    access = services.access.draft(caller, "retire_enforcer", "enforcer", target_id=enforcer_id, items=1)
    ending: list[IntroducedKey] = []

    def records() -> list[Draft]:
        keys = _keys_of(services.keyring, enforcer_id)
        if not keys:
            raise NotFoundError(f"there is no enforcer {enforcer_id}")
        ending[:] = [key for key in keys if key.last_leaf is None]
        return [*(Draft(body=_retirement(key)) for key in ending), access]

    async with services.enrolment:
        done = await append_on_newest_keys(services.key_records, services.recorder, records)
        revoked = await asyncio.to_thread(services.tokens.revoke_enforcer, caller.log_id, enforcer_id)
        enrolments = EnrolmentTokens(services.database, services.clock)
        await asyncio.to_thread(enrolments.revoke_enforcer, caller.log_id, enforcer_id)
    return json_response(
        {
            "enforcer_id": enforcer_id,
            "key_ids": [key.key_id for key in ending],
            "leaf_index": done[0].index if ending else None,
            "tokens_revoked": revoked,
        }
    )


class TokenRequest(RequestBody):
    """A token to issue."""

    role: Annotated[Role, Field(description="not enforcer: introduce one instead")]
    name: _Name
    lifetime_days: Annotated[int | None, Field(ge=1, le=3650)] = None


@router.post(
    "/v1/tokens",
    status_code=201,
    summary="Issue a token",
    response_description="The token, shown once.",
)
async def issue_token(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ADMINISTER))],
    wanted: TokenRequest,
) -> Response:
    """Issue a token for a role; it is shown once. That it was issued, and by whom, is recorded first."""
    if wanted.role is Role.ENFORCER:
        raise MalformedError("an enforcer's token is issued when the enforcer is introduced")
    token = new_token(caller.log_id)
    digest = token_digest(token)
    await services.access.record([services.access.draft(caller, "issue_token", "token", target_id=digest, items=1)])
    await asyncio.to_thread(
        services.tokens.issue,
        caller.log_id,
        wanted.role,
        wanted.name,
        lifetime_days=wanted.lifetime_days,
        token=token,
        # A machine's tokens are its owner's as well, or a chain of them would be a second person.
        owner=caller.owner if caller.person is None else caller.person.owner,
    )
    answer = {"name": wanted.name, "role": wanted.role.value, "token": token, "token_sha256": digest}
    return json_response(answer, 201)


@router.delete(
    "/v1/tokens/{token_sha256}",
    status_code=204,
    summary="Revoke a token",
    response_description="The token opens nothing any more.",
)
async def revoke_token(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.ADMINISTER))],
    token_sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
) -> Response:
    """End a token at once."""
    if not await asyncio.to_thread(services.tokens.revoke, caller.log_id, token_sha256):
        raise NotFoundError("there is no such token, or it was revoked before")
    draft = services.access.draft(caller, "revoke_token", "token", target_id=token_sha256, items=1)
    await services.access.record([draft])
    return Response(status_code=204)
