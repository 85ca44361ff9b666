"""Putting the dashboard into an application."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from service.web import apidocs, login, packs, pages
from service.web.assets import Assets
from service.web.cookies import Cookies
from service.web.counts import NewestDecision, RecentCounts
from service.web.guard import Dashboard, DashboardDep
from service.web.records import RecordCache
from service.web.rendering import Pages
from service.web.sessions import WebSessions
from service.web.throttle import LoginThrottle
from service.wiring import Services

__all__ = ["install"]

_static = APIRouter(include_in_schema=False)


@_static.get("/assets/{name}")
async def get_asset(request: Request, dashboard: DashboardDep, name: str) -> Response:  # noqa: ARG001  # in the path
    """Return a static file; its URL holds its digest, so it never changes."""
    asset = dashboard.assets.at(request.url.path)
    if asset is None:
        raise NotFoundError("no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(asset.data, media_type=asset.media_type, headers=headers)


def install(app: FastAPI, services: Services) -> None:
    """Add the dashboard's pages to an application."""
    settings = services.settings
    log_id = services.identity.log_id
    assets = Assets()
    records = RecordCache(services.reader)
    ends = NewestDecision(services.catalog, log_id, records) if services.identity.simulated else services.clock
    app.state.dashboard = Dashboard(
        services=services,
        assets=assets,
        pages=Pages(services, assets),
        cookies=Cookies(insecure=settings.insecure_cookies, session_seconds=settings.session_seconds),
        sessions=WebSessions(
            services.database, services.clock, log_id, services.tokens, lifetime_seconds=settings.session_seconds
        ),
        links=services.login_links,
        throttle=LoginThrottle(),
        counts=RecentCounts(services.catalog, log_id, ends),
        records=records,
    )
    for router in (pages.router, packs.router, login.router, apidocs.router, _static):
        app.include_router(router)
