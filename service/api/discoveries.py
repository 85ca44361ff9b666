"""Discovery: what scans hand in, which servers they found that nobody registered, and what people say of those."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, ClassVar, Final, Literal, Self

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import Field, model_validator

from ledger.catalog import MAX_PAGE
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.bundles import actor_of
from service.discoveries import ScanReport, SeenServer
from service.discovery_book import DiscoveredServer, DiscoveryStep, Scanned
from service.wiring.services import Services

__all__ = ["MAX_SIGHTINGS", "discovered_view", "registered_names", "router"]


class _ScanRoute(ServiceRoute):
    """A route that takes a scan of many servers."""

    max_json_bytes: ClassVar[int] = 1 << 20


router = APIRouter(tags=["inventory"], responses=PROBLEMS, route_class=_ScanRoute)

MAX_SIGHTINGS: Final = 1_000
"""Servers that one scan hands in."""

_Reader = Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))]
_Scanner = Annotated[Caller, Depends(permitted(Permission.REPORT_DISCOVERIES))]
_Reviewer = Annotated[Caller, Depends(permitted(Permission.REVIEW_DISCOVERIES))]
_DiscoveryId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]
_Text = Annotated[str, Field(max_length=512)]
_Place = Annotated[str, Field(min_length=1, max_length=4096)]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=16)]
_Count = Annotated[int, Field(ge=0, le=2**40)]
_Time = Annotated[int, Field(ge=0, le=253_402_300_799_999, description="POSIX milliseconds")]
_Comment = Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]
_SCANS: Final = 20
_OF_SCANS: Final = (
    *("started_ms", "ended_ms", "version", "laboratory", "hosts", "ports", "closed", "asked", "unfinished"),
    *("requests", "files", "unread", "sightings", "unregistered", "actor", "actor_role"),
)


class SightingBody(RequestBody):
    """A server that a scan found."""

    standing: Literal["registered", "gateway", "bypass", "shadow"]
    source: Literal["network", "client"]
    transport: Literal["streamable_http", "sse", "stdio", "unknown"]
    place: Annotated[_Place, Field(description="its URL, or the program that a client starts; goes into the vault")]
    name: Annotated[_Text, Field(description="what it calls itself; goes into the vault")] = ""
    version: _Text = ""
    server: Annotated[_Name | None, Field(description="its name in the scanner's list of servers")] = None
    certainty: Literal["confirmed", "likely"] = "confirmed"
    needs_token: bool = False
    eras: Annotated[tuple[_Name, ...], Field(max_length=8)] = ()
    revisions: _Texts = ()
    client: Annotated[_Text | None, Field(min_length=1, description="which client has it configured")] = None
    file: Annotated[_Place | None, Field(description="in which file; goes into the vault")] = None
    disabled: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.standing in ("registered", "bypass") and self.server is None:
            raise ValueError(
                "a registered server has a name in the list, and so has one that a client goes to directly"
            )
        if self.standing == "shadow" and self.server is not None:
            raise ValueError("a server with a name in the list is no shadow server")
        if (self.source == "client") is (self.client is None):
            raise ValueError("a client is named exactly where its configuration says so")
        return self


class CountsBody(RequestBody):
    """How much a scan looked at."""

    hosts: _Count = 0
    ports: _Count = 0
    closed: _Count = 0
    asked: _Count = 0
    unfinished: _Count = 0
    requests: _Count = 0
    files: _Count = 0
    unread: _Count = 0


class GivenBody(RequestBody):
    """Where a scan was told to look; goes into the vault."""

    targets: Annotated[tuple[_Text, ...], Field(max_length=4096)] = ()
    ports: Annotated[str, Field(max_length=4096)] = ""
    paths: Annotated[tuple[_Place, ...], Field(max_length=256)] = ()
    folders: Annotated[tuple[_Place, ...], Field(max_length=1024)] = ()
    servers: Annotated[tuple[_Place, ...], Field(max_length=4096, description="names and URLs that were given")] = ()
    gateways: Annotated[tuple[_Place, ...], Field(max_length=256)] = ()
    unread: Annotated[tuple[_Place, ...], Field(max_length=1024, description="files that could not be read")] = ()


class ScanBody(RequestBody):
    """A scan, and everything that it found."""

    started_ms: _Time
    ended_ms: _Time
    version: _Name
    laboratory: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="digest of the code that asked")]
    given: GivenBody
    counts: CountsBody
    servers: Annotated[list[SightingBody], Field(max_length=MAX_SIGHTINGS)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ended_ms < self.started_ms:
            raise ValueError("a scan ends after it began")
        return self


class PurposeBody(RequestBody):
    """Why somebody looks where a server is."""

    purpose: _Comment


class WordBody(RequestBody):
    """Why a server is in order, or is not after all."""

    comment: _Comment


async def registered_names(services: Services) -> Collection[str]:
    """Return the servers that some gateway's list has now.

    Raises:
        LedgerError: A store failed.
    """
    return frozenset(line.name for line in (await services.inventory.look()).servers if line.state == "registered")


def _step_view(step: DiscoveryStep) -> dict[str, object]:
    event = step.event
    return {
        "action": event.action,
        "leaf_index": step.leaf,
        "record_id": step.record_id,
        "time_ms": step.time_ms,
        "standing": event.standing,
        "scan_id": event.scan_id,
        "actor": event.actor,
        "actor_role": event.actor_role,
    }


def discovered_view(server: DiscoveredServer, registered: Collection[str]) -> dict[str, object]:
    """Return a server that was found as routes tell it: what is public, and pseudonyms."""
    event, dismissal = server.latest.event, server.dismissal
    return {
        "id": server.discovery_id,
        "state": server.state(registered),
        "standing": event.standing,
        "source": event.source,
        "transport": event.transport,
        "place": event.place,
        "holder": event.holder,
        "client": event.client,
        "server": event.server,
        "listed": event.server in registered,
        "eras": list(event.eras),
        "revisions": list(event.revisions),
        "certainty": event.certainty,
        "needs_token": event.needs_token,
        "disabled": event.disabled,
        "sightings": server.sightings,
        "first_ms": server.first_ms,
        "first_leaf": server.first_leaf,
        "last_ms": server.latest.time_ms,
        "last_leaf": server.latest.leaf,
        "scan_id": event.scan_id,
        "dismissed_by": None if dismissal is None else dismissal.event.actor,
        "dismissed_ms": None if dismissal is None else dismissal.time_ms,
    }


def _scan_view(scan: Scanned) -> dict[str, object]:
    event = scan.event
    told = {name: getattr(event, name) for name in _OF_SCANS}
    return {"id": scan.scan_id, "leaf_index": scan.leaf, "time_ms": scan.time_ms, **told}


@router.post(
    "/v1/discoveries",
    status_code=201,
    summary="Hand in what a scan found",
    response_description="It is recorded; which of what it found nobody has registered.",
)
async def hand_in(services: ServicesDep, caller: _Scanner, scan: ScanBody) -> Response:
    """Record a scan and every server that it found, as one batch: all of it, or nothing."""
    done = await services.discoveries.hand_in(
        ScanReport(
            started_ms=scan.started_ms,
            ended_ms=scan.ended_ms,
            version=scan.version,
            laboratory=scan.laboratory,
            given={name: value for name, value in scan.given.model_dump().items() if value},
            counts=scan.counts.model_dump(),
            servers=[SeenServer(**one.model_dump()) for one in scan.servers],
        ),
        actor_of(caller, services.keys),
    )
    told = {"scan_id": done.scan_id, "leaf_index": done.leaf_index, "new": done.found}
    return json_response({**told, "recorded": len(scan.servers), "unregistered": list(done.unregistered)}, 201)


@router.get(
    "/v1/discoveries",
    summary="Servers that scans found",
    response_description="Those that nobody registered or dismissed, unless asked otherwise; and the latest scans.",
)
async def list_discoveries(
    services: ServicesDep,
    caller: _Reader,
    *,
    state: Annotated[Literal["open", "dismissed", "settled", "all"], Query(description="which")] = "open",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
) -> Response:
    """Return what scans found, by pseudonyms. None found says nothing of where no scan looked. Reading is recorded."""
    looked, registered = await services.discoveries.look(), await registered_names(services)
    found = [one for one in looked.servers if state in ("all", one.state(registered))]
    page = found[offset : offset + limit]
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(caller, "view", "discoveries", target_id=state, items=len(page))
    await services.access.record([draft])
    return json_response(
        {
            "items": [discovered_view(one, registered) for one in page],
            "open": sum(one.state(registered) == "open" for one in looked.servers),
            "scans": [_scan_view(one) for one in looked.scans[:_SCANS]],
            "next_offset": offset + limit if offset + limit < len(found) else None,
        }
    )


@router.get(
    "/v1/discoveries/{discovery_id}", summary="One of them", response_description="What the log says of it, in order."
)
async def get_discovery(services: ServicesDep, caller: _Reader, discovery_id: _DiscoveryId) -> Response:
    """Return one server that scans found, with the latest records about it. Reading it is recorded."""
    found = await services.discoveries.get(discovery_id)
    registered = await registered_names(services)
    # INVARIANT: the access record is durable before anything is handed out.
    await services.access.record(
        [services.access.draft(caller, "view", "discovery", target_id=found.discovery_id, items=1)]
    )
    view = discovered_view(found, registered)
    return json_response({**view, "steps": [_step_view(step) for step in found.steps]})


@router.post(
    "/v1/discoveries/{discovery_id}/open",
    summary="See where one is, for a purpose",
    response_description="Where it is and what it calls itself: a stranger's text.",
)
async def open_discovery(
    services: ServicesDep, caller: _Reviewer, discovery_id: _DiscoveryId, wanted: PurposeBody
) -> Response:
    """Open what is sealed of its latest sighting; that it was opened, by whom and why, is recorded first."""
    found = await services.discoveries.get(discovery_id)
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(
        caller, "open_payload", "record", target_id=found.latest.record_id, items=1, purpose=wanted.purpose
    )
    await services.access.record([draft])
    return json_response({"id": discovery_id, "details": await services.discoveries.details(found)})


async def _say(
    services: Services, caller: Caller, discovery_id: str, action: Literal["dismissed", "reopened"], comment: str
) -> Response:
    registered = await registered_names(services)
    leaf = await services.discoveries.say(discovery_id, action, registered, actor_of(caller, services.keys), comment)
    found = await services.discoveries.get(discovery_id)
    return json_response({"id": discovery_id, "state": found.state(registered), "leaf_index": leaf})


@router.post(
    "/v1/discoveries/{discovery_id}/dismiss",
    summary="Say that one is in order",
    response_description="It counts as unregistered no more, until it stands otherwise.",
)
async def dismiss(services: ServicesDep, caller: _Reviewer, discovery_id: _DiscoveryId, said: WordBody) -> Response:
    """Record a person's word, with the reason, that a server need not be registered."""
    return await _say(services, caller, discovery_id, "dismissed", said.comment)


@router.post(
    "/v1/discoveries/{discovery_id}/reopen",
    summary="Take that back",
    response_description="It counts as unregistered again.",
)
async def reopen(services: ServicesDep, caller: _Reviewer, discovery_id: _DiscoveryId, said: WordBody) -> Response:
    """Record a person's word that a dismissed server is not in order after all."""
    return await _say(services, caller, discovery_id, "reopened", said.comment)
