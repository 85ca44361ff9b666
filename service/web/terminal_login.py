"""The pages and answers of `service.web.terminals`: a command line asks, a person compares the code and says yes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service.api.common import authenticated, json_response, work_for
from service.auth import require_person
from service.problems import UnauthenticatedError
from service.web.forms import CSRF_FIELD, check_secret, read_form, require_same_origin
from service.web.guard import Dashboard, DashboardDep, Lobby, LobbyDep, PageRoute, ReaderDep, redirect
from service.web.sessions import log_of_secret
from service.web.terminals import CODE, POLL_SECONDS, REQUEST_SECONDS, PendingError, TerminalLogins

__all__ = ["router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_Code = Annotated[str, Query(alias="code", pattern=CODE)]
_NO_STORE: Final = {"Cache-Control": "no-store"}
_MS_PER_SECOND: Final = 1000


def _logins(dashboard: Dashboard) -> TerminalLogins:
    services = dashboard.services
    return TerminalLogins(
        services.database,
        services.clock,
        services.identity.log_id,
        services.tokens,
        lambda: services.keys.pseudonym_seeds,
    )


def _told(error: str) -> Response:
    return json_response({"error": error}, 400, _NO_STORE)


def _dashboard(lobby: Lobby, log_id: str | None) -> Dashboard | None:
    dashboard = lobby.dashboard(log_id)
    if dashboard is None or log_id not in ("", None, dashboard.services.identity.log_id):
        return None
    return dashboard


@router.post("/login/device")
async def ask(request: Request, lobby: LobbyDep) -> Response:
    """Begin to log a command line in (RFC 8628 section 3.2)."""
    form = await read_form(request)
    dashboard = _dashboard(lobby, form.get("log") or None)
    if dashboard is None:
        return _told("invalid_request")
    work_for(request, dashboard.services)
    asked = await asyncio.to_thread(_logins(dashboard).ask)
    page = f"{lobby.hosting.settings.external_url.rstrip('/')}/login/device"
    answer = {
        "device_code": asked.device_code,
        "user_code": asked.user_code,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?{urlencode({'code': asked.user_code})}",
        "expires_in": REQUEST_SECONDS,
        "interval": POLL_SECONDS,
    }
    return json_response(answer, 200, _NO_STORE)


@router.post("/login/device/token")
async def hand_out(request: Request, lobby: LobbyDep) -> Response:
    """Hand a command line its token, once somebody has said yes (RFC 8628 sections 3.4 and 3.5)."""
    form = await read_form(request)
    code = form.get("device_code", "")
    dashboard = _dashboard(lobby, log_of_secret(code))
    if dashboard is None:
        return _told("expired_token")
    services = dashboard.services
    work_for(request, services)
    try:
        parent = await asyncio.to_thread(_logins(dashboard).take, code)
        await services.people.admit(parent)
    except PendingError:
        return _told("authorization_pending")
    except UnauthenticatedError as error:
        return _told("access_denied" if str(error) != "expired_token" else "expired_token")
    person, ends_ms = parent.person, parent.expires_ms or 0
    seconds = (ends_ms - services.clock.now_ms()) // _MS_PER_SECOND
    if person is None or seconds < 1:
        return _told("access_denied")
    token, caller = await asyncio.to_thread(services.people.issue, person, parent.role, seconds=seconds)
    try:
        # Whatever ends the person's logins from here on ends this one too; before, it did not know of it.
        await asyncio.to_thread(services.tokens.caller, parent.log_id, parent.token_sha256)
    except UnauthenticatedError:
        await asyncio.to_thread(services.tokens.revoke, caller.log_id, caller.token_sha256)
        return _told("access_denied")
    # INVARIANT: the login is on record before its token is handed out.
    await services.access.record([services.access.draft(caller, "login", "command_line")])
    answer = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": seconds,
        "expires_ms": caller.expires_ms,
        "name": person.name,
        "role": caller.role.value,
        "log_id": caller.log_id,
    }
    return json_response(answer, 200, _NO_STORE)


@router.get("/login/device")
async def show(request: Request, dashboard: DashboardDep, session: ReaderDep, code: _Code) -> Response:
    """Show what is asked, for the person to compare."""
    require_person(session.caller, "let a command line in")
    waits = await asyncio.to_thread(_logins(dashboard).waits, code)
    return dashboard.pages.page(
        "device.html", session=session, path=request.url.path, status=200 if waits else 404, code=code, waits=waits
    )


@router.post("/login/device/answer")
async def answer(request: Request, dashboard: DashboardDep, session: ReaderDep, lobby: LobbyDep) -> Response:
    """Take the person's yes or no."""
    require_same_origin(request.headers, lobby.hosting.settings.external_url)
    form = await read_form(request)
    check_secret(session.csrf, form.get(CSRF_FIELD))
    require_person(session.caller, "let a command line in")
    session_id = lobby.cookies.session(request.cookies) if form.get("answer") == "yes" else None
    await asyncio.to_thread(_logins(dashboard).answer, form.get("code", ""), session_id)
    return redirect("/login/device/done")


@router.get("/login/device/done")
async def done(request: Request, dashboard: DashboardDep, session: ReaderDep) -> Response:
    """Say that it was answered."""
    return dashboard.pages.page("device.html", session=session, path=request.url.path, code="", waits=False)


@router.delete("/login/device")
async def log_out(request: Request) -> Response:
    """End the token that asks, a person's; its next use is none."""
    caller = await authenticated(request)
    require_person(caller, "log out")
    services = request.state.services
    await asyncio.to_thread(services.tokens.revoke, caller.log_id, caller.token_sha256)
    await services.access.record([services.access.draft(caller, "logout", "command_line")])
    return Response(status_code=204)
