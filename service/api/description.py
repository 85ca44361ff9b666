"""What the API says of itself: FastAPI's OpenAPI document, and for each operation the roles that may call it.

The roles are read from where they are enforced, the `permitted` dependency of a route; a route that asks in its own
way (a public log's tiles) says so with `asks`. They stand in the document as OpenAPI 3.1 has it: one security
requirement for each role, any of which is enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from service.api.common import permitted
from service.auth import Permission, roles_holding

__all__ = ["SCHEME", "asks", "describe"]

SCHEME: Final = "token"
"""Name of the only security scheme."""

_SCHEME_OBJECT: Final = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "ts1.<log>.<secret>",
    "description": "A token names one log and one role.",
}
_PERMISSION: Final = "x-tallystick-permission"


def asks(permission: Permission) -> dict[str, Any]:
    """Return what a route adds to its description if it checks a permission itself."""
    return {_PERMISSION: permission.value}


def _permission(route: APIRoute) -> Permission | None:
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, permitted):
            return dependency.call.permission
    said = (route.openapi_extra or {}).get(_PERMISSION)
    return None if said is None else Permission(said)


def _requirements(permission: Permission) -> list[dict[str, list[str]]]:
    return [{SCHEME: [role.value]} for role in roles_holding(permission)]


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Let an application's OpenAPI document name the roles of each operation of ``routers``."""
    asked = {
        (route.path_format, method.lower()): permission
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and (permission := _permission(route)) is not None
        for method in route.methods or ()
    }
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()  # made once, and again when routes were added
        components = document.setdefault("components", {})
        if "securitySchemes" not in components:
            components["securitySchemes"] = {SCHEME: _SCHEME_OBJECT}
            for (path, method), permission in asked.items():
                document["paths"][path][method]["security"] = _requirements(permission)
                document["paths"][path][method][_PERMISSION] = permission.value
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents
