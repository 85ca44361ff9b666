"""What the routes share: the caller and his log, bounded bodies, JSON answers.

Which log a request is for is decided here, once: by its token (`authenticated`), or by its path (`log_of_path`). The
routes are given that log's `Services` and know of no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

import msgspec
from fastapi import Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import ClientDisconnect

from ledger.errors import NotFoundError
from service.auth import Caller, Permission, require
from service.fairness import Room, current_log
from service.hosting import Hosting
from service.problems import PersonNeededError, Problem, UnauthenticatedError
from service.wiring.services import Services

__all__ = [
    "PROBLEMS",
    "HostingDep",
    "RequestBody",
    "ServicesDep",
    "UnderBundle",
    "authenticated",
    "bearer_of",
    "demand",
    "hosting_of",
    "json_response",
    "log_of_path",
    "permitted",
    "places_held",
    "read_body",
    "services_of",
    "work_for",
]

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        400: "Malformed",
        401: "No valid token",
        403: "Not permitted",
        404: "Not found",
        408: "The body took too long",
        409: "Conflict",
        413: "Too large",
        422: "Does not verify or fit",
        429: "Overloaded; retry",
        503: "Unavailable; retry",
    }.items()
}
"""Problem answers, for the API's description."""


class RequestBody(BaseModel):
    """What a route takes as JSON.

    A member that is not known is refused: a misspelt lifetime would make a token that never ends.
    """

    model_config = ConfigDict(extra="forbid")


class UnderBundle(RequestBody):
    """Under which bundle decisions are made again."""

    bundle: Annotated[
        str,
        Field(pattern=r"^(recorded|active|[0-9a-f]{64})$", description="recorded: each under its own; or a revision"),
    ] = "recorded"
    archive: Annotated[
        dict[str, object] | None, Field(description="a proposed bundle's archive; instead of `bundle`")
    ] = None
    purpose: Annotated[
        str | None,
        Field(min_length=8, max_length=1000, description="recorded, in the vault; an archive needs one"),
    ] = None

    @model_validator(mode="after")
    def _say_why(self) -> Self:
        if self.archive is not None and self.purpose is None:
            raise ValueError("decisions are made again under a proposed bundle for a purpose, which is recorded")
        return self


def hosting_of(request: Request) -> Hosting:
    """Return the hosting that the application was made with."""
    hosting: Hosting = request.app.state.hosting
    return hosting


HostingDep = Annotated[Hosting, Depends(hosting_of)]


def bearer_of(request: Request) -> str | None:
    """Return the bearer token that a request carries, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


@contextmanager
def places_held(request: Request) -> Iterator[None]:
    """Hold, until the block ends, the place among its log's requests that `work_for` takes for a request in it."""
    with ExitStack() as held:
        request.state.held = held
        yield


def work_for(request: Request, services: Services) -> None:
    """Note which log a request is for: its metrics count the request, its places and share of the threads bear it.

    Raises:
        OverloadedError: The log has no place for it; other logs have places of their own.
    """
    if getattr(request.state, "services", None) is services:
        return
    request.state.services = services
    current_log.set(services.identity.log_id)
    held: ExitStack | None = getattr(request.state, "held", None)
    if held is not None:
        held.enter_context(services.places.take())


async def authenticated(request: Request) -> Caller:
    """Return whom the request's bearer token speaks for; the token is looked up once for each request.

    Raises:
        UnauthenticatedError: There is none, or it is not valid.
        NotFoundError: It is for a log that this service does not have.
        StateError: Its log is not open.
        OverloadedError: Its log has too many requests in hand.
    """
    known: Caller | None = getattr(request.state, "caller", None)
    if known is not None:
        return known
    token = bearer_of(request)
    if token is None:
        raise UnauthenticatedError("a token is needed: Authorization: Bearer ts1.…")
    hosting = hosting_of(request)
    caller = await asyncio.to_thread(hosting.tokens.authenticate, token)
    # INVARIANT 12: the token names the log; nothing else of a request can lead to another one.
    services = hosting.find(caller.log_id)
    work_for(request, services)
    if caller.person is not None:
        await services.people.admit(caller)
    request.state.caller = caller
    if caller.enforcer_id is not None:
        services.contacts.heard(caller.enforcer_id)
    return caller


async def services_of(request: Request) -> Services:
    """Return the parts of the caller's log.

    Raises:
        UnauthenticatedError: There is no valid token.
    """
    await authenticated(request)
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def log_of_path(request: Request, log_id: str, permission: Permission, *, public: bool) -> Services:
    """Return the parts of the log that a path names, for whoever may see it.

    Args:
        request: Who asks.
        log_id: As the path has it.
        permission: What a caller needs, where the log is not public.
        public: Whether this is something that a public log shows to everybody.

    Raises:
        NotFoundError: The caller has no such log, whether there is one or not.
        UnauthenticatedError: A token is needed, whether there is such a log or not.
        ForbiddenError: The caller's role does not hold the permission.
    """
    hosting = hosting_of(request)
    if hosting.only is not None:
        hosting.find(log_id)
    if public and hosting.is_open(log_id) and hosting.find(log_id).settings.public_log:
        work_for(request, hosting.find(log_id))
        return hosting.find(log_id)
    caller = await authenticated(request)
    # INVARIANT 12: a stranger's token does not learn which other logs there are.
    if caller.log_id != log_id:
        raise NotFoundError("this service has no such log")
    await demand(request, caller, permission)
    return hosting.find(log_id)


async def demand(request: Request, caller: Caller, permission: Permission) -> None:
    """Refuse a caller as `service.auth.require` does; that a machine tried what takes a person is recorded.

    Raises:
        ForbiddenError: The role does not hold the permission, or it takes a person.
    """
    try:
        require(caller, permission)
    except PersonNeededError:
        services: Services = request.state.services
        await services.people.record_refusal(caller, permission)
        raise


@dataclass(frozen=True, slots=True)
class permitted:  # noqa: N801  # routes read it as a word: Depends(permitted(Permission.REPLAY))
    """A dependency that gives the caller if its role holds a permission; it can be asked which one that is.

    Attributes:
        permission: What the route asks for.
    """

    permission: Permission

    async def __call__(self, request: Request) -> Caller:
        """Return the caller.

        Raises:
            UnauthenticatedError: There is no valid token.
            ForbiddenError: Its role does not hold the permission, or it takes a person.
        """
        caller = await authenticated(request)
        await demand(request, caller, self.permission)
        return caller


async def read_body(request: Request, limit_bytes: int, room: Room | None = None) -> bytes:
    """Read a request's body, at most ``limit_bytes`` and for no longer than the settings allow.

    Args:
        request: The request.
        limit_bytes: The largest body.
        room: Takes what is read, if it is to be counted; as much as the request declares, before anything is read.

    Raises:
        OverloadedError: There is no room for it.
        Problem: It is larger (413), took too long (408), or broke off (400).
    """
    seconds = hosting_of(request).settings.max_body_seconds
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, limit_bytes, room)
    except TimeoutError:
        raise Problem(408, "too-slow", "Too slow", f"a request body takes at most {seconds:g} s") from None
    except ClientDisconnect:
        # Nobody is there to be told; the answer ends the request without a failure in our log.
        raise Problem(400, "incomplete", "Incomplete", "the request's body broke off") from None


async def _read(request: Request, limit_bytes: int, room: Room | None) -> bytes:
    too_large = Problem(413, "too-large", "Too large", f"a request body has at most {limit_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise too_large
    if room is not None and declared.isdecimal():
        room.reach(int(declared))
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise too_large
        if room is not None:
            room.reach(size)
        chunks.append(chunk)
    return b"".join(chunks)


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON; `msgspec.Raw` members stand as they are."""
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=headers)
