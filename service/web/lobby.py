"""The dashboard before it is known which log a visitor is for: what all logs share, and the way to each log's own.

Where several logs are served, what strangers see names none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from service.hosting import Hosting
from service.web.assets import Assets
from service.web.cookies import Cookies
from service.web.counts import NewestDecision, RecentCounts
from service.web.guard import Dashboard
from service.web.records import RecordCache
from service.web.rendering import Pages
from service.web.sessions import LoginLinks, Seeds, WebSessions, log_of_secret
from service.web.throttle import LoginThrottle
from service.wiring.services import Services

__all__ = ["LogLobby"]


class LogLobby:
    """`service.web.guard.Lobby` over a hosting; one event loop owns it.

    Attributes:
        hosting: The logs.
        assets: Static files.
        cookies: Their names and flags.
        throttle: Of failed logins, over all logs.
    """

    def __init__(self, hosting: Hosting) -> None:
        """Make dashboards as they are asked for."""
        settings = hosting.settings
        self.hosting = hosting
        self.assets = Assets()
        self.cookies = Cookies(insecure=settings.insecure_cookies, session_seconds=settings.session_seconds)
        self.throttle = LoginThrottle()
        self._nobodys = Pages(None, self.assets)
        self._dashboards: dict[str, Dashboard] = {}
        self._later: set[asyncio.Task[None]] = set()

    @property
    def strangers(self) -> Pages:
        """Pages for visitors without a login: of the only log, or of none."""
        return self._nobodys if self.hosting.only is None else self._of(self.hosting.only).pages

    def dashboard(self, log_id: str | None) -> Dashboard | None:
        """Return the dashboard of a log that is open; see `Lobby.dashboard`."""
        if self.hosting.only is not None:
            return self._of(self.hosting.only)
        if log_id is None or not self.hosting.is_open(log_id):
            return None
        return self._of(self.hosting.find(log_id))

    def log_of(self, secret: str) -> str | None:
        """Return the log that a secret names, or the only one; see `Lobby.log_of`."""
        only = self.hosting.only
        return log_of_secret(secret) if only is None else only.identity.log_id

    def sessions(self, log_id: str) -> WebSessions:
        """Return the logins to a log, also to one that is not there; see `Lobby.sessions`."""
        hosting = self.hosting
        seconds = hosting.settings.session_seconds
        return WebSessions(
            hosting.database, hosting.clock, log_id, hosting.tokens, self._seeds(log_id), lifetime_seconds=seconds
        )

    def links(self, log_id: str) -> LoginLinks:
        """Return the login links of a log, also of one that is not there; see `Lobby.links`."""
        return LoginLinks(self.hosting.database, self.hosting.clock, log_id, self.hosting.tokens, self._seeds(log_id))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that no answer waits for; see `Lobby.later`."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _seeds(self, log_id: str) -> Seeds:
        # Rows of a log that is not there, or not open, are sealed by nobody.
        return lambda: self.hosting.find(log_id).keys.pseudonym_seeds if self.hosting.is_open(log_id) else ()

    def _of(self, services: Services) -> Dashboard:
        known = self._dashboards.get(services.identity.log_id)
        # A log that was opened again has other parts.
        if known is None or known.services is not services:
            known = self._dashboards[services.identity.log_id] = self._make(services)
        return known

    def _make(self, services: Services) -> Dashboard:
        log_id = services.identity.log_id
        records = RecordCache(services.reader)
        ends = NewestDecision(services.catalog, log_id, records) if services.identity.simulated else services.clock
        return Dashboard(
            services=services,
            pages=Pages(services, self.assets),
            counts=RecentCounts(services.catalog, log_id, ends),
            records=records,
        )
