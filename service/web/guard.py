"""Who looks, and what a page says when it cannot be shown.

`PageRoute` turns errors into pages: a visitor without a login goes to the login page and comes back afterwards; every
other error of the core becomes a page that says what the problem document of the API would say.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ledger.errors import TallystickError
from service.auth import Permission, require
from service.problems import Problem, UnauthenticatedError, kind_of
from service.web.assets import Assets
from service.web.cookies import Cookies
from service.web.counts import RecentCounts
from service.web.records import RecordCache
from service.web.rendering import PAGE_HEADERS, Pages
from service.web.sessions import LoginLinks, WebSession, WebSessions
from service.web.throttle import LoginThrottle
from service.wiring import Services

__all__ = [
    "Dashboard",
    "DashboardDep",
    "LoginNeededError",
    "PageRoute",
    "ReaderDep",
    "dashboard_of",
    "redirect",
    "safe_next",
    "visitor",
]

# Pages that a visitor may be sent to after logging in: ours, spelt as we spell them, nothing else.
_NEXT: Final = re.compile(
    r"/(?:\?[A-Za-z0-9_.~%&=+:@/-]*|decisions/[0-9a-f-]{36}|sessions/[0-9a-f]{32}|packs|docs/api)?"
)
_MAX_NEXT_CHARS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """The parts of the dashboard beside the services. Made by `routes.install` alone."""

    services: Services
    assets: Assets
    pages: Pages
    cookies: Cookies
    sessions: WebSessions
    links: LoginLinks
    throttle: LoginThrottle
    counts: RecentCounts
    records: RecordCache


def dashboard_of(request: Request) -> Dashboard:
    """Return the dashboard that the application was made with."""
    dashboard: Dashboard = request.app.state.dashboard
    return dashboard


DashboardDep = Annotated[Dashboard, Depends(dashboard_of)]


class LoginNeededError(TallystickError):
    """The page is for those who are logged in."""


async def visitor(request: Request) -> WebSession | None:
    """Return the visitor's session, or None if there is none (any more)."""
    dashboard = dashboard_of(request)
    session_id = dashboard.cookies.session(request.cookies)
    if session_id is None:
        return None
    try:
        return await asyncio.to_thread(dashboard.sessions.find, session_id)
    except UnauthenticatedError:
        return None


async def _reader(request: Request) -> WebSession:
    session = await visitor(request)
    if session is None:
        raise LoginNeededError("log in to see this page")
    require(session.caller, Permission.READ_DECISIONS)
    return session


ReaderDep = Annotated[WebSession, Depends(_reader)]
"""The session of a visitor who may read decisions."""


def safe_next(path: str) -> str:
    """Return a path of ours to go to after logging in; the home page for anything else."""
    return path if len(path) <= _MAX_NEXT_CHARS and _NEXT.fullmatch(path) else "/"


def redirect(path: str) -> Response:
    """Return an answer that sends the browser to another page of ours, by GET."""
    return RedirectResponse(path, status_code=303, headers=dict(PAGE_HEADERS))


def _to_login(request: Request) -> Response:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    path = safe_next(wanted) if request.method == "GET" else "/"
    return redirect("/login" if path == "/" else f"/login?{urlencode({'next': path})}")


def _describe(error: Exception) -> tuple[int, str, str] | None:
    """Return status, title and detail of an error that has a page, or None."""
    if isinstance(error, Problem):
        return error.status_code, error.title, error.detail
    if isinstance(error, RequestValidationError):
        in_path = any(item["loc"][0] == "path" for item in error.errors())
        return (404, "Not found", "There is no such page.") if in_path else (400, "Malformed", "The address is wrong.")
    found = kind_of(error)
    return None if found is None else (found[0], found[2], str(error))


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                return await handler(request)
            except LoginNeededError:
                return _to_login(request)
            except (TallystickError, RequestValidationError, HTTPException) as error:
                described = _describe(error)
                if described is None:
                    raise
                status, title, detail = described
                pages = dashboard_of(request).pages
                session = await visitor(request)
                values = {"title": title, "detail": detail, "code": status}
                return pages.page("error.html", session=session, path=request.url.path, status=status, **values)

        return page
