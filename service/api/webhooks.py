"""Webhooks: who is told what happens in the log."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from pydantic import Field, field_validator

from ledger.errors import ConfigError, ConflictError
from ledger.records import new_record_id
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission, may
from service.notification_events import EVENTS, SILENT, TEST, Event
from service.notification_sending import MAX_URL, check_url
from service.notification_signing import WebhookSigner
from service.notification_store import Webhook
from service.problems import Problem
from service.wiring.services import Services

__all__ = ["MAX_WEBHOOKS", "router"]

router = APIRouter(tags=["webhooks"], responses=PROBLEMS, route_class=ServiceRoute)

MAX_WEBHOOKS: Final = 64
_NAMES: Final = (*(kind.name for kind in EVENTS), SILENT)
_Manager = Annotated[Caller, Depends(permitted(Permission.MANAGE_WEBHOOKS))]
_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_WebhookId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_TEST_BODY: Final = b'{"type":"webhook.test","data":{}}'


class WebhookRequest(RequestBody):
    """Where something is to be sent to."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL)]
    events: Annotated[tuple[str, ...], Field(max_length=len(_NAMES), description="names; none for all")] = ()
    symmetric: Annotated[bool, Field(description="sign with a shared secret as well (v1)")] = False
    internal: Annotated[bool, Field(description="inside: plain http and private addresses will do")] = False

    @field_validator("events")
    @classmethod
    def _known(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in events if name not in _NAMES]:
            raise ValueError(f"there is no event {unknown[0][:64]}; there are {', '.join(_NAMES)}")
        return events


def _origin(url: str) -> str:
    """Return where a URL leads, without its path and query: at many receivers these are the password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" + ("/…" if parts.path.strip("/") or parts.query else parts.path)


def _view(webhook: Webhook, *, whole: bool = True) -> dict[str, object]:
    return {
        "id": webhook.webhook_id,
        "url": webhook.url if whole else _origin(webhook.url),
        "events": webhook.events,
        "symmetric": webhook.symmetric,
        "internal": webhook.internal,
        "state": webhook.state,
        "created_ms": webhook.created_ms,
        "delivered_ms": webhook.delivered_ms,
        "cursor": webhook.cursor,
        "failures": webhook.failures,
        "next_ms": webhook.next_ms,
        "error": webhook.error,
        "skipped": webhook.skipped,
        "recent": [asdict(one) for one in webhook.recent],
    }


def _signer(services: Services) -> WebhookSigner:
    if services.notifications.signer is None:
        raise ConflictError("there is no key for webhooks: make one, and name it in TALLYSTICK_WEBHOOK_KEY")
    return services.notifications.signer


@router.post(
    "/v1/webhooks",
    status_code=201,
    summary="Add a webhook",
    response_description="It is told of everything from now on; the secret is shown once.",
)
async def add_webhook(services: ServicesDep, caller: _Manager, wanted: WebhookRequest) -> Response:
    """Have people told of what happens from now on; recorded."""
    signer = _signer(services)
    try:
        check_url(wanted.url, internal=wanted.internal)
    except ConfigError as error:
        raise Problem(400, "malformed", "Malformed", str(error)) from error
    notifications = services.notifications
    if len(await asyncio.to_thread(notifications.store.all)) >= MAX_WEBHOOKS:
        raise ConflictError(f"a log has at most {MAX_WEBHOOKS} webhooks")
    now_ms = services.clock.now_ms()
    webhook = Webhook(
        webhook_id=new_record_id(now_ms, secrets.token_bytes(10)),
        url=wanted.url,
        events=tuple(name for name in _NAMES if not wanted.events or name in wanted.events),
        symmetric=wanted.symmetric,
        internal=wanted.internal,
        created_ms=now_ms,
        cursor=await asyncio.to_thread(notifications.size),
        told={},
    )
    # Recorded first: nobody is told of anything that the log does not know he is told of.
    await services.access.record(
        [services.access.draft(caller, "add_webhook", "webhook", target_id=webhook.webhook_id, purpose=wanted.url)]
    )
    await asyncio.to_thread(notifications.store.add, webhook)
    notifications.work.wake()
    secret = signer.secret(webhook.webhook_id) if wanted.symmetric else None
    return json_response({**_view(webhook), "public_key": signer.public_key, "secret": secret}, 201)


@router.get("/v1/webhooks", summary="Who is told", response_description="Every webhook, and how it stands.")
async def list_webhooks(services: ServicesDep, caller: _Reader) -> Response:
    """Return the webhooks of the log; only who may change them is told more of an address than its host."""
    notifications = services.notifications
    found = await asyncio.to_thread(notifications.store.all)
    key = None if notifications.signer is None else notifications.signer.public_key
    return json_response(
        {"items": [_view(one, whole=may(caller, Permission.MANAGE_WEBHOOKS)) for one in found], "public_key": key}
    )


@router.delete(
    "/v1/webhooks/{webhook_id}",
    status_code=204,
    summary="Remove a webhook",
    response_description="Nothing is sent there any more.",
)
async def remove_webhook(services: ServicesDep, caller: _Manager, webhook_id: _WebhookId) -> Response:
    """Send nothing more to a webhook; recorded."""
    await asyncio.to_thread(services.notifications.store.get, webhook_id)
    await services.access.record(
        [services.access.draft(caller, "remove_webhook", "webhook", target_id=webhook_id, items=1)]
    )
    await asyncio.to_thread(services.notifications.store.remove, webhook_id)
    return Response(status_code=204)


@router.post(
    "/v1/webhooks/{webhook_id}/test",
    summary="Try a webhook",
    response_description="What the receiver answered.",
)
async def test_webhook(services: ServicesDep, caller: _Manager, webhook_id: _WebhookId) -> Response:
    """Send one event of type ``webhook.test``, now and once."""
    webhook = await asyncio.to_thread(services.notifications.store.get, webhook_id)
    _signer(services)
    await services.access.record([services.access.draft(caller, "test_webhook", "webhook", target_id=webhook_id)])
    event = Event(f"msg_{secrets.token_hex(16)}", TEST, _TEST_BODY)
    status, error = await services.notifications.post(webhook, event)
    return json_response({"id": webhook_id, "taken": error == "", "status": status, "error": error})
