"""Logging in with a token or a login link, and logging out. Each attempt and each logout leaves an access record."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from ledger.errors import LedgerError
from service.api.common import work_for
from service.auth import Caller, log_of_token
from service.failures import describe
from service.fairness import current_log
from service.problems import ForbiddenError, UnauthenticatedError
from service.web.forms import CSRF_FIELD, check_secret, read_form, require_same_origin
from service.web.guard import Dashboard, Lobby, LobbyDep, PageRoute, Seat, redirect, safe_next, seat_of
from service.web.sessions import may_log_in
from service.wiring.services import Services

__all__ = ["Refusal", "address_of", "begin_session", "checked_form", "form_page", "login_page", "refused", "router"]

_log = structlog.get_logger()

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_TARGET: Final = "dashboard"
_Code = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\.[A-Za-z0-9_-]{43}$")]
_Next = Annotated[str, Query(max_length=1024)]


def address_of(request: Request) -> str:
    """Return where a visitor calls from."""
    # The socket's word: a header that names another address can be made up.
    return request.client.host if request.client else "unknown"


def form_page(request: Request, lobby: Lobby, template: str, *, status: int = 200, **values: object) -> Response:
    """Return a page with a form for visitors without a session; cookie and form carry the same secret."""
    secret = lobby.cookies.form_secret(request.cookies) or secrets.token_urlsafe(32)
    response = lobby.strangers.page(template, session=None, path=request.url.path, status=status, csrf=secret, **values)
    lobby.cookies.set_form_secret(response, secret)
    return response


async def checked_form(request: Request, lobby: Lobby) -> dict[str, str]:
    """Return the fields of a form that our own page sent, for a visitor without a session."""
    require_same_origin(request.headers, lobby.hosting.settings.external_url)
    form = await read_form(request)
    secret = lobby.cookies.form_secret(request.cookies)
    if secret is None:
        raise ForbiddenError(
            "the browser sent no cookie with the form; it must take cookies, and reach this page by HTTPS unless the "
            "operator allowed otherwise"
        )
    check_secret(secret, form.get(CSRF_FIELD))
    return form


def login_page(
    request: Request,
    lobby: Lobby,
    *,
    wanted: str = "/",
    status: int = 200,
    error: str = "",
    notice: str = "",
) -> Response:
    """Return the login page."""
    only = lobby.hosting.only
    # Where several logs are served, strangers are not told which of them ask a provider.
    asked = lobby.hosting.asks_providers
    host = only.oidc.settings.host if only is not None and only.oidc is not None else ""
    values = {"provider": asked, "provider_host": host, "log_named": only is not None}
    return form_page(
        request, lobby, "login.html", status=status, wanted=safe_next(wanted), error=error, notice=notice, **values
    )


@router.get("/login")
async def show_login(
    request: Request, lobby: LobbyDep, wanted: Annotated[str, Query(alias="next")] = "/", said: str = ""
) -> Response:
    """Show the login form, or go on where there is a login already."""
    if await seat_of(request) is not None:
        return redirect(safe_next(wanted))
    notice = "You are logged out." if said == "logged-out" else ""
    return login_page(request, lobby, wanted=wanted, notice=notice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed login.

    Attributes:
        log_id: The log that was named, true or made up.
        result: What its record says.
        error: What the visitor reads.
        wanted: Where he wanted to go.
        caller: Whose token it was, if it was anybody's.
    """

    log_id: str | None
    result: str
    error: str
    wanted: str = "/"
    caller: Caller | None = None


async def refused(request: Request, lobby: Lobby, refusal: Refusal) -> Response:
    """Answer a failed login: counted and recorded, or told to wait where so many failed that the log has to be spared.

    Only failures wait. Behind a proxy all people share an address, and nobody's failures may shut the others out. A
    failure is recorded in the log that was named; what named none of ours is recorded nowhere, and looks the same.
    Where there are several logs no answer waits for the record: its time would tell which logs there are.
    """
    address, now_ms = address_of(request), lobby.hosting.clock.now_ms()
    if seconds := lobby.throttle.wait_seconds(address, now_ms):
        patience = (
            f"{refusal.error} Too many logins have failed from your address: wait {seconds} seconds between attempts."
        )
        response = login_page(request, lobby, wanted=refusal.wanted, status=429, error=patience)
        response.headers["Retry-After"] = str(seconds)
        return response
    dashboard = lobby.dashboard(refusal.log_id)
    named = "" if dashboard is None else dashboard.services.identity.log_id
    if not lobby.throttle.failed(address, now_ms, log_id=named) or dashboard is None:
        _log.warning("failed_login_not_recorded", result=refusal.result)
    elif lobby.hosting.only is None:
        lobby.later(_record_refusal_later(dashboard.services, address, refusal))
    else:
        await _record_refusal(dashboard.services, address, refusal)
    return login_page(request, lobby, wanted=refusal.wanted, status=403, error=refusal.error)


async def _record_refusal(services: Services, address: str, refusal: Refusal) -> None:
    access = services.access
    if refusal.caller is None:
        draft = access.stranger_draft(address, "login", _TARGET, result=refusal.result)
    else:
        draft = access.draft(refusal.caller, "login", _TARGET, result=refusal.result)
    await access.record([draft])


async def _record_refusal_later(services: Services, address: str, refusal: Refusal) -> None:
    current_log.set(services.identity.log_id)
    try:
        await _record_refusal(services, address, refusal)
    except Exception as error:  # noqa: BLE001  # nobody waits for it, and nobody else would tell
        _log.error("failed_login_not_recorded", result=refusal.result, **describe(error))


async def begin_session(
    request: Request,
    lobby: Lobby,
    dashboard: Dashboard,
    caller: Caller,
    wanted: str,
    *,
    arrive: Callable[[str], Response] = redirect,
) -> Response:
    """Log a caller in: record first, then a new session; a session that the browser had before ends.

    Args:
        request: Who asks.
        lobby: The dashboard's.
        dashboard: Where he logs in.
        caller: Whom he speaks for.
        wanted: Where he wanted to go.
        arrive: Makes the answer that leads there.
    """
    services = dashboard.services
    work_for(request, services)
    await services.people.admit(caller)
    await services.access.record([services.access.draft(caller, "login", _TARGET)])
    before = lobby.cookies.session(request.cookies)
    earlier = None if before is None else lobby.log_of(before)
    if before is not None and earlier is not None:
        await asyncio.to_thread(lobby.sessions(earlier).end, before)
    session_id = await asyncio.to_thread(lobby.sessions(services.identity.log_id).begin, caller)
    response = arrive(safe_next(wanted))
    lobby.cookies.set_session(response, session_id)
    return response


def _dashboard_of(lobby: Lobby, caller: Caller) -> Dashboard:
    """Return the dashboard of a caller's log.

    Raises:
        ForbiddenError: The caller is an enforcer.
        UnauthenticatedError: The log is none of this process, or not open.
    """
    dashboard = lobby.dashboard(caller.log_id)
    if dashboard is None:
        raise UnauthenticatedError("the token is unknown, expired or revoked")
    may_log_in(caller, dashboard.services.identity.log_id)
    return dashboard


@router.post("/login")
async def log_in(request: Request, lobby: LobbyDep) -> Response:
    """Log in with a token."""
    form = await checked_form(request, lobby)
    wanted, token = form.get("next", "/"), form.get("token", "").strip()
    log_id, known = log_of_token(token), None
    try:
        known = caller = await asyncio.to_thread(lobby.hosting.tokens.authenticate, token)
        dashboard = _dashboard_of(lobby, caller)
    except UnauthenticatedError:
        error = "This token is unknown, expired or revoked. Check that you copied all of it."
        refusal = Refusal(log_id=log_id, result="unknown_token", error=error, wanted=wanted)
        return await refused(request, lobby, refusal)
    except ForbiddenError:
        error = "This is an enforcer's token: it writes records and opens no dashboard."
        refusal = Refusal(log_id=log_id, result="role_refused", error=error, wanted=wanted, caller=known)
        return await refused(request, lobby, refusal)
    return await begin_session(request, lobby, dashboard, caller, wanted)


_DEAD_LINK: Final = "This login link was used before or has expired. Log in with a token, or ask for another link."


@router.get("/login/link/{code}")
async def show_link(request: Request, lobby: LobbyDep, code: _Code) -> Response:
    """Ask whether to log in; looking at the page, as a link preview does, does not spend the link."""
    log_id = lobby.log_of(code)
    known = log_id is not None and await asyncio.to_thread(lobby.links(log_id).is_open, code)
    if not known or lobby.dashboard(log_id) is None:
        return login_page(request, lobby, status=403, error=_DEAD_LINK)
    return form_page(request, lobby, "link.html", code=code)


@router.post("/login/link/{code}")
async def follow_link(request: Request, lobby: LobbyDep, code: _Code) -> Response:
    """Log in with a link, once."""
    await checked_form(request, lobby)
    log_id = lobby.log_of(code)
    dead = Refusal(log_id=log_id, result="dead_link", error=_DEAD_LINK)
    # A log that is not there is asked as any other is; one that is not open spends no link.
    known = log_id is not None and await asyncio.to_thread(lobby.links(log_id).is_open, code)
    dashboard = lobby.dashboard(log_id)
    if log_id is None or not known or dashboard is None:
        return await refused(request, lobby, dead)
    try:
        caller = await asyncio.to_thread(lobby.links(log_id).spend, code)
    except UnauthenticatedError:
        return await refused(request, lobby, dead)
    return await begin_session(request, lobby, dashboard, caller, "/")


@router.post("/logout")
async def log_out(request: Request, lobby: LobbyDep) -> Response:
    """End the session."""
    require_same_origin(request.headers, lobby.hosting.settings.external_url)
    seat = await seat_of(request)
    if seat is not None:
        form = await read_form(request)
        check_secret(seat.session.csrf, form.get(CSRF_FIELD))
        session_id = lobby.cookies.session(request.cookies) or ""
        services = seat.dashboard.services
        await asyncio.to_thread(lobby.sessions(services.identity.log_id).end, session_id)
        try:
            await services.access.record([services.access.draft(seat.session.caller, "logout", _TARGET)])
        except LedgerError as error:
            # Whoever wants to leave must be able to, also while nothing can be recorded.
            _log.error("logout_not_recorded", error=type(error).__name__)
    response = await _after_logout(request, lobby, seat)
    lobby.cookies.clear_session(response)
    return response


async def _after_logout(request: Request, lobby: Lobby, seat: Seat | None) -> Response:
    """Return what leads away from a login that has ended: by the provider, for whom it made.

    Otherwise whoever sits down at that browser next would be logged in again by one click, as the person who left.

    Source: OpenID Connect RP-Initiated Logout 1.0 section 2, by client_id; no ID token is kept to be a hint.
    """
    here = "/login?said=logged-out"
    person = None if seat is None else seat.session.caller.person
    provider = None if seat is None else seat.dashboard.services.oidc
    if person is None or provider is None or person.method != "oidc" or person.issuer != provider.settings.issuer:
        return redirect(here)
    try:
        target = await provider.logout_url(here)
    except LedgerError as error:
        # It has ended here; that the provider does not answer keeps nobody in.
        _log.warning("provider_logout_not_reached", error=type(error).__name__)
        return redirect(here)
    if target is None:
        return redirect(here)
    # By a page and not by a redirect: our pages' policy lets no form of theirs lead to another site.
    saying = f"You are logged out of Tallystick. You log out at {provider.settings.host} as well."
    return lobby.strangers.page("passing.html", session=None, path=request.url.path, target=target, saying=saying)
