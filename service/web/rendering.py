"""From values to pages: the template environment and the headers of every page.

INVARIANT: no string reaches a page but legible and escaped. Both are done to every value that a template prints, by
the environment, so that no template can forget it. `Verbatim` marks the few strings that are escaped only: what a
visitor typed, given back in its field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jinja2
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from ledger.legible import PROSE_LIMIT, legible_text
from service.auth import Permission, may
from service.version import VERSION
from service.web import wording
from service.web.assets import Assets
from service.web.sessions import WebSession
from service.wiring.services import Services

__all__ = ["PAGE_HEADERS", "Pages", "Verbatim"]

PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    # Our own pages need the origin: browsers send "Origin: null" with a form under no-referrer.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every page; nothing inline, nothing from elsewhere, nothing kept."""

_NAVIGATION: Final = (
    ("/", "Decisions", Permission.READ_DECISIONS),
    ("/approvals", "Held calls", Permission.READ_DECISIONS),
    ("/tools", "Tools", Permission.READ_DECISIONS),
    ("/drift", "Behaviour", Permission.READ_DECISIONS),
    ("/inventory", "Inventory", Permission.READ_DECISIONS),
    ("/packs", "Evidence packs", Permission.MAKE_PACKS),
    ("/docs/api", "API", None),
)
"""The pages that every page links to, with what a visitor must be permitted to see them."""


class Verbatim(str):
    """Text that is escaped but not made legible: a visitor's own words in the field where he typed them."""

    __slots__ = ()


def _shown(value: Any) -> Any:  # noqa: ANN401  # templates print values of every type
    if value is None:
        raise TypeError("a template printed None")
    if isinstance(value, str) and not isinstance(value, Markup | Verbatim):
        return legible_text(value, limit=PROSE_LIMIT)
    return value


def make_environment(assets: Assets) -> jinja2.Environment:
    """Return the templates' environment: escaping, legible, strict about what is missing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("service.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=assets.url, version=VERSION, words=wording)
    return environment


def _navigation(session: WebSession | None) -> list[tuple[str, str]]:
    """Return path and label of the pages that a visitor may open."""
    caller = session.caller if session else None
    return [
        (path, label)
        for path, label, needed in _NAVIGATION
        # As the page itself asks: a role alone is not enough where it takes a person.
        if needed is None or (caller is not None and may(caller, needed))
    ]


class Pages:
    """Renders the pages of one log, or those that are of none."""

    def __init__(self, services: Services | None, assets: Assets) -> None:
        """Say on each page what log this is, and SIMULATED if it is; if there is none, name none."""
        self._environment = make_environment(assets)
        self._common: dict[str, object] = {"simulated": False}
        if services is not None:
            settings = services.settings
            self._common |= {
                "environment": settings.environment,
                "log_id": services.identity.log_id,
                "origin": settings.origin,
                "simulated": services.identity.simulated,
                "tenant": settings.tenant,
            }

    def html(self, template: str, **values: object) -> str:
        """Return a template's text."""
        return self._environment.get_template(template).render(**self._common, **values)

    def page(
        self, template: str, *, session: WebSession | None, path: str, status: int = 200, **values: object
    ) -> Response:
        """Return a page.

        Args:
            template: File name.
            session: Who is logged in, for the head of the page.
            path: Of the request, so that the navigation can say where one is.
            status: HTTP status.
            values: What the template asks for.
        """
        values.setdefault("integrity", None)
        values.setdefault("navigation", _navigation(session))
        text = self.html(template, session=session, path=path, **values)
        return HTMLResponse(text, status_code=status, headers=dict(PAGE_HEADERS))
