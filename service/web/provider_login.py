"""Logging in by an OpenID provider: the way there, the way back, and what the provider says of logins that have ended.

The way there and the way back go by pages that lead on by themselves, and not by redirects: the browser sends our
login's cookie, which is SameSite=Strict, only where it comes from a page of ours.

Source: OpenID Connect Core 1.0 section 3.1 (code flow); RFC 7636; RFC 9700; Back-Channel Logout 1.0.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from service.api.common import work_for
from service.oidc.attempts import ATTEMPT_SECONDS, Attempt, begin, open_attempt, seal_attempt
from service.oidc.claims import person_of, role_of
from service.oidc.provider import OpenIDProvider
from service.problems import ForbiddenError, UnauthenticatedError
from service.roles import Role
from service.web.forms import read_form
from service.web.guard import Dashboard, Lobby, LobbyDep, PageRoute, safe_next
from service.web.login import Refusal, begin_session, refused
from service.web.sessions import SpentStates, log_of_secret

__all__ = ["router"]

_log = structlog.get_logger()

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_LogId = Annotated[str, Query(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")]
_Text = Annotated[str, Query(max_length=2048)]
_PEOPLE: Final = {role.value: role for role in Role if role not in (Role.ENFORCER, Role.CLIENT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """A log whose people log in by a provider."""

    dashboard: Dashboard
    provider: OpenIDProvider


def _door(lobby: Lobby, log_id: str | None) -> _Door:
    """Return the way in to a log; whoever names one that is not there learns no more than of one without a provider.

    Raises:
        NotFoundError: Nobody logs in to it by a provider.
    """
    dashboard = lobby.dashboard(log_id)
    provider = None if dashboard is None else dashboard.services.oidc
    if dashboard is None or provider is None or log_id not in ("", None, dashboard.services.identity.log_id):
        raise NotFoundError("nobody logs in to such a log by an identity provider")
    return _Door(dashboard=dashboard, provider=provider)


def _lead_on(request: Request, lobby: Lobby, target: str, *, saying: str) -> Response:
    return lobby.strangers.page("passing.html", session=None, path=request.url.path, target=target, saying=saying)


@router.get("/login/provider")
async def go_to_provider(
    request: Request,
    lobby: LobbyDep,
    wanted: Annotated[str, Query(alias="next", max_length=1024)] = "/",
    role: Annotated[str, Query(max_length=16)] = "",
    log: _LogId = "",
) -> Response:
    """Begin a login, and lead to the provider."""
    door = _door(lobby, log or None)
    services = door.dashboard.services
    work_for(request, services)
    asked = role if role in _PEOPLE else ""
    attempt = begin(services.identity.log_id, wanted=safe_next(wanted), role=asked, now_ms=services.clock.now_ms())
    url = await door.provider.login_url(state=attempt.state, nonce=attempt.nonce, verifier=attempt.verifier)
    response = _lead_on(request, lobby, url, saying=f"You log in at {door.provider.settings.host}.")
    lobby.cookies.set_attempt(response, seal_attempt(attempt, services.keys.pseudonym.seed), ATTEMPT_SECONDS)
    return response


@router.get("/login/callback")
async def come_back(
    request: Request,
    lobby: LobbyDep,
    state: _Text = "",
    code: _Text = "",
    iss: Annotated[str | None, Query(max_length=2048)] = None,
    error: _Text = "",
) -> Response:
    """Take the provider's answer: once, in the browser that asked, and for the log that it asked for."""
    log_id = log_of_secret(state)
    door = _door(lobby, log_id)
    services = door.dashboard.services
    work_for(request, services)
    try:
        attempt = open_attempt(
            lobby.cookies.attempt(request.cookies),
            services.keys.pseudonym_seeds,
            log_id=services.identity.log_id,
            state=state,
            now_ms=services.clock.now_ms(),
        )
        await _spend(door, attempt)
        response = await _let_in(request, lobby, door, attempt, "" if error else code, iss)
    except (UnauthenticatedError, ForbiddenError) as refusal:
        result = "no_role" if isinstance(refusal, ForbiddenError) else "provider_refused"
        told = f"{str(refusal)[:1].upper()}{str(refusal)[1:]}."
        response = await refused(request, lobby, Refusal(log_id=log_id, result=result, error=told))
    # Whatever came of it, this login is over: a new one begins with a new state.
    lobby.cookies.clear_attempt(response)
    return response


async def _spend(door: _Door, attempt: Attempt) -> None:
    services = door.dashboard.services
    spent = SpentStates(services.database, services.clock, services.identity.log_id)
    await asyncio.to_thread(spent.spend, attempt.state, seconds=ATTEMPT_SECONDS)


async def _let_in(
    request: Request, lobby: Lobby, door: _Door, attempt: Attempt, code: str, issuer: str | None
) -> Response:
    services, settings = door.dashboard.services, door.provider.settings
    if not code:
        raise UnauthenticatedError("the provider did not let you in")
    claims = await door.provider.redeem(code, nonce=attempt.nonce, verifier=attempt.verifier, issuer=issuer)
    person = person_of(claims, settings)
    role = role_of(claims, person, settings, log_id=services.identity.log_id, wanted=_PEOPLE.get(attempt.role))
    _, caller = await asyncio.to_thread(services.people.issue, person, role, seconds=settings.seconds)

    def arrive(path: str) -> Response:
        return _lead_on(request, lobby, path, saying="You are logged in.")

    # Session fixation: `begin_session` ends the session that the browser had, and gives it a new id.
    return await begin_session(request, lobby, door.dashboard, caller, attempt.wanted, arrive=arrive)


@router.post("/login/backchannel/{log_id}")
async def end_by_provider(
    request: Request, lobby: LobbyDep, log_id: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
) -> Response:
    """End the logins of which the provider says that they have ended; it calls this address itself."""
    door = _door(lobby, log_id)
    services = door.dashboard.services
    work_for(request, services)
    form = await read_form(request)
    headers = {"Cache-Control": "no-store"}
    try:
        ended = await door.provider.ended(form.get("logout_token", ""))
    except UnauthenticatedError as refusal:
        _log.warning("provider_logout_refused", error=str(refusal))
        return Response(b'{"error":"invalid_request"}', 400, headers, media_type="application/json")
    issuer = door.provider.settings.issuer
    count = await services.people.end(issuer, subject=ended.subject, provider_session=ended.provider_session)
    _log.info("provider_logout", logins=count)
    return Response(status_code=200, headers=headers)
