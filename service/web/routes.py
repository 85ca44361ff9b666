"""Putting the dashboard into an application."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from ledger.errors import NotFoundError
from service.hosting import Hosting
from service.web import (
    agent_page,
    apidocs,
    approvals,
    containment_page,
    drift_page,
    inventory_page,
    login,
    packs,
    pages,
    provider_login,
    terminal_login,
    tools_page,
)
from service.web.guard import LobbyDep
from service.web.lobby import LogLobby

__all__ = ["install"]

_static = APIRouter(include_in_schema=False)


@_static.get("/assets/{name}")
async def get_asset(request: Request, lobby: LobbyDep, name: str) -> Response:  # noqa: ARG001  # in the path
    """Return a static file; its URL holds its digest, so it never changes."""
    asset = lobby.assets.at(request.url.path)
    if asset is None:
        raise NotFoundError("no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(asset.data, media_type=asset.media_type, headers=headers)


def install(app: FastAPI, hosting: Hosting) -> None:
    """Add the dashboard's pages to an application."""
    app.state.lobby = LogLobby(hosting)
    for router in (
        pages.router,
        approvals.router,
        containment_page.router,
        inventory_page.router,
        agent_page.router,
        tools_page.router,
        drift_page.router,
        packs.router,
        login.router,
        provider_login.router,
        terminal_login.router,
        apidocs.router,
        _static,
    ):
        app.include_router(router)
