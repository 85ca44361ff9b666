"""Who looks, and what a page says when it cannot be shown.

`PageRoute` turns errors into pages: a visitor without a login goes to the login page and comes back afterwards; every
other error of the core becomes a page that says what the problem document of the API would say.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ledger.errors import TallystickError
from service.api.common import places_held, work_for
from service.auth import Permission, require
from service.hosting import Hosting
from service.problems import Problem, UnauthenticatedError, kind_of
from service.web.assets import Assets
from service.web.cookies import Cookies
from service.web.counts import RecentCounts
from service.web.records import RecordCache
from service.web.rendering import PAGE_HEADERS, Pages
from service.web.sessions import LoginLinks, WebSession, WebSessions
from service.web.throttle import LoginThrottle
from service.wiring.services import Services

__all__ = [
    "Dashboard",
    "DashboardDep",
    "Lobby",
    "LobbyDep",
    "LoginNeededError",
    "PageRoute",
    "ReaderDep",
    "Seat",
    "lobby_of",
    "redirect",
    "safe_next",
    "seat_of",
]

# Pages that a visitor may be sent to after logging in: ours, spelt as we spell them, nothing else.
_NEXT: Final = re.compile(
    r"/(?:(?:inventory)?\?[A-Za-z0-9_.~%&=+:@/-]*|(?:approvals|containments|decisions|drift)/[0-9a-f-]{36}|sessions/[0-9a-f]{32}|"
    r"(?:drift/)?agents/[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}|approvals|drift|inventory|packs|docs/api|"
    r"tools(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127})?|login/device\?code=[A-Z]{4}-[A-Z]{4})?"
)
_MAX_NEXT_CHARS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """The parts of one log's dashboard beside its services. Made by `service.web.lobby` alone."""

    services: Services
    pages: Pages
    counts: RecentCounts
    records: RecordCache


class Lobby(Protocol):
    """What the dashboard has for whoever has not said yet which log he is for; see `service.web.lobby`.

    Attributes:
        hosting: The logs.
        assets: Static files.
        cookies: Their names and flags.
        throttle: Of failed logins.
    """

    hosting: Hosting
    assets: Assets
    cookies: Cookies
    throttle: LoginThrottle

    @property
    def strangers(self) -> Pages:
        """Pages for visitors without a login."""
        ...

    def dashboard(self, log_id: str | None) -> Dashboard | None:
        """Return the dashboard of a log, or None if there is no such log, or it is not open.

        Args:
            log_id: As a token, link or cookie names it; whatever it is, the only log's dashboard where there is one.
        """
        ...

    def log_of(self, secret: str) -> str | None:
        """Return the log that a session's id or a link's code names, true or made up; where one is served, that one."""
        ...

    def sessions(self, log_id: str) -> WebSessions:
        """Return the logins to a log, whether there is such a log or not.

        Nobody learns from the time of an answer which logs there are: a made-up one is looked for as any other.
        """
        ...

    def links(self, log_id: str) -> LoginLinks:
        """Return the login links of a log, whether there is such a log or not; see `sessions`."""
        ...

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that no answer waits for."""
        ...


def lobby_of(request: Request) -> Lobby:
    """Return the lobby that the application was made with."""
    lobby: Lobby = request.app.state.lobby
    return lobby


LobbyDep = Annotated[Lobby, Depends(lobby_of)]


class LoginNeededError(TallystickError):
    """The page is for those who are logged in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A visitor who is logged in, at the dashboard of his log."""

    dashboard: Dashboard
    session: WebSession


async def seat_of(request: Request) -> Seat | None:
    """Return where a visitor is logged in, or None if he is not (any more)."""
    lobby = lobby_of(request)
    session_id = lobby.cookies.session(request.cookies)
    # INVARIANT 12: the session names the log, and its row is sought among that log's alone.
    log_id = None if session_id is None else lobby.log_of(session_id)
    if session_id is None or log_id is None:
        return None
    try:
        session = await asyncio.to_thread(lobby.sessions(log_id).find, session_id)
    except UnauthenticatedError:
        return None
    dashboard = lobby.dashboard(log_id)
    if dashboard is None:
        return None
    work_for(request, dashboard.services)
    try:
        await dashboard.services.people.admit(session.caller)
    except UnauthenticatedError:
        return None
    return Seat(dashboard=dashboard, session=session)


async def _seated(request: Request) -> Seat:
    seat = await seat_of(request)
    if seat is None:
        raise LoginNeededError("log in to see this page")
    require(seat.session.caller, Permission.READ_DECISIONS)
    return seat


_SeatDep = Annotated[Seat, Depends(_seated)]


def _reader(seat: _SeatDep) -> WebSession:
    return seat.session


def _dashboard(seat: _SeatDep) -> Dashboard:
    return seat.dashboard


ReaderDep = Annotated[WebSession, Depends(_reader)]
"""The session of a visitor who may read decisions."""

DashboardDep = Annotated[Dashboard, Depends(_dashboard)]
"""The dashboard of the log that such a visitor is logged in to."""


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
                with places_held(request):
                    return await handler(request)
            except LoginNeededError:
                return _to_login(request)
            except (TallystickError, RequestValidationError, HTTPException) as error:
                described = _describe(error)
                if described is None:
                    raise
                status, title, detail = described
                seat = await seat_of(request)
                pages = seat.dashboard.pages if seat else lobby_of(request).strangers
                session = seat.session if seat else None
                values = {"title": title, "detail": detail, "code": status}
                return pages.page("error.html", session=session, path=request.url.path, status=status, **values)

        return page
