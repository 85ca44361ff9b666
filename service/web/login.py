"""Logging in with a token or a login link, and logging out. Each attempt and each logout leaves an access record."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from ledger.errors import LedgerError
from service.auth import Caller
from service.problems import ForbiddenError, UnauthenticatedError
from service.web.forms import CSRF_FIELD, check_secret, read_form, require_same_origin
from service.web.guard import Dashboard, DashboardDep, PageRoute, redirect, safe_next, visitor
from service.web.sessions import may_log_in

__all__ = ["router"]

_log = structlog.get_logger()

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_TARGET: Final = "dashboard"
_Code = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{43}$")]
_Next = Annotated[str, Query(max_length=1024)]


def _address(request: Request) -> str:
    # The socket's word: a header that names another address can be made up.
    return request.client.host if request.client else "unknown"


def _form_page(
    request: Request, dashboard: Dashboard, template: str, *, status: int = 200, **values: object
) -> Response:
    """Return a page with a form for visitors without a session; cookie and form carry the same secret."""
    secret = dashboard.cookies.form_secret(request.cookies) or secrets.token_urlsafe(32)
    response = dashboard.pages.page(template, session=None, path=request.url.path, status=status, csrf=secret, **values)
    dashboard.cookies.set_form_secret(response, secret)
    return response


async def _checked_form(request: Request, dashboard: Dashboard) -> dict[str, str]:
    """Return the fields of a form that our own page sent, for a visitor without a session."""
    require_same_origin(request.headers, dashboard.services.settings.external_url)
    form = await read_form(request)
    secret = dashboard.cookies.form_secret(request.cookies)
    if secret is None:
        raise ForbiddenError(
            "the browser sent no cookie with the form; it must take cookies, and reach this page by HTTPS unless the "
            "operator allowed otherwise"
        )
    check_secret(secret, form.get(CSRF_FIELD))
    return form


def _login_page(
    request: Request,
    dashboard: Dashboard,
    *,
    wanted: str = "/",
    status: int = 200,
    error: str = "",
    notice: str = "",
) -> Response:
    return _form_page(
        request, dashboard, "login.html", status=status, wanted=safe_next(wanted), error=error, notice=notice
    )


@router.get("/login")
async def show_login(
    request: Request, dashboard: DashboardDep, wanted: Annotated[str, Query(alias="next")] = "/", said: str = ""
) -> Response:
    """Show the login form, or go on where there is a login already."""
    if await visitor(request) is not None:
        return redirect(safe_next(wanted))
    notice = "You are logged out." if said == "logged-out" else ""
    return _login_page(request, dashboard, wanted=wanted, notice=notice)


async def _refused(
    request: Request, dashboard: Dashboard, result: str, error: str, *, wanted: str = "/", caller: Caller | None = None
) -> Response:
    """Answer a failed login: counted and recorded, or told to wait where so many failed that the log has to be spared.

    Only failures wait. Behind a proxy all people share an address, and nobody's failures may shut the others out.
    """
    services = dashboard.services
    address, now_ms = _address(request), services.clock.now_ms()
    if seconds := dashboard.throttle.wait_seconds(address, now_ms):
        patience = f"{error} Too many logins have failed from your address: wait {seconds} seconds between attempts."
        response = _login_page(request, dashboard, wanted=wanted, status=429, error=patience)
        response.headers["Retry-After"] = str(seconds)
        return response
    if not dashboard.throttle.failed(address, now_ms):
        _log.warning("failed_login_not_recorded", result=result)
    elif caller is None:
        await services.access.record([services.access.stranger_draft(address, "login", _TARGET, result=result)])
    else:
        await services.access.record([services.access.draft(caller, "login", _TARGET, result=result)])
    return _login_page(request, dashboard, wanted=wanted, status=403, error=error)


async def _begin(request: Request, dashboard: Dashboard, caller: Caller, wanted: str) -> Response:
    """Log a caller in: record first, then a new session; a session that the browser had before ends."""
    services = dashboard.services
    await services.access.record([services.access.draft(caller, "login", _TARGET)])
    before = dashboard.cookies.session(request.cookies)
    if before is not None:
        await asyncio.to_thread(dashboard.sessions.end, before)
    session_id = await asyncio.to_thread(dashboard.sessions.begin, caller)
    response = redirect(safe_next(wanted))
    dashboard.cookies.set_session(response, session_id)
    return response


def _authenticate(dashboard: Dashboard, token: str) -> Caller:
    return dashboard.services.tokens.authenticate(token)


@router.post("/login")
async def log_in(request: Request, dashboard: DashboardDep) -> Response:
    """Log in with a token."""
    form = await _checked_form(request, dashboard)
    wanted = form.get("next", "/")
    caller: Caller | None = None
    try:
        caller = await asyncio.to_thread(_authenticate, dashboard, form.get("token", "").strip())
        may_log_in(caller, dashboard.services.identity.log_id)
    except UnauthenticatedError:
        error = "This token is unknown, expired or revoked. Check that you copied all of it."
        return await _refused(request, dashboard, "unknown_token", error, wanted=wanted)
    except ForbiddenError:
        error = "This is an enforcer's token: it writes records and opens no dashboard."
        return await _refused(request, dashboard, "role_refused", error, wanted=wanted, caller=caller)
    return await _begin(request, dashboard, caller, wanted)


_DEAD_LINK: Final = "This login link was used before or has expired. Log in with a token, or ask for another link."


@router.get("/login/link/{code}")
async def show_link(request: Request, dashboard: DashboardDep, code: _Code) -> Response:
    """Ask whether to log in; looking at the page, as a link preview does, does not spend the link."""
    if not await asyncio.to_thread(dashboard.links.is_open, code):
        return _login_page(request, dashboard, status=403, error=_DEAD_LINK)
    return _form_page(request, dashboard, "link.html", code=code)


@router.post("/login/link/{code}")
async def follow_link(request: Request, dashboard: DashboardDep, code: _Code) -> Response:
    """Log in with a link, once."""
    await _checked_form(request, dashboard)
    try:
        caller = await asyncio.to_thread(dashboard.links.spend, code)
    except UnauthenticatedError:
        return await _refused(request, dashboard, "dead_link", _DEAD_LINK)
    return await _begin(request, dashboard, caller, "/")


@router.post("/logout")
async def log_out(request: Request, dashboard: DashboardDep) -> Response:
    """End the session."""
    require_same_origin(request.headers, dashboard.services.settings.external_url)
    session = await visitor(request)
    if session is not None:
        form = await read_form(request)
        check_secret(session.csrf, form.get(CSRF_FIELD))
        session_id = dashboard.cookies.session(request.cookies) or ""
        await asyncio.to_thread(dashboard.sessions.end, session_id)
        services = dashboard.services
        try:
            await services.access.record([services.access.draft(session.caller, "logout", _TARGET)])
        except LedgerError as error:
            # Whoever wants to leave must be able to, also while nothing can be recorded.
            _log.error("logout_not_recorded", error=type(error).__name__)
    response = redirect("/login?said=logged-out")
    dashboard.cookies.clear_session(response)
    return response
